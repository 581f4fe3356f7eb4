"""Who answers a task: plans and their members, learned policies, and what is looked up for both."""
