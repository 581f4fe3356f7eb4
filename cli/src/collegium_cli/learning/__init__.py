"""Models and what is learned of them: ranks, policies, confidence, students."""
