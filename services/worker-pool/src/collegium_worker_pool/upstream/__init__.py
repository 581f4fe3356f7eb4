"""Speaking with an endpoint: where it is, what is sent, what comes back, what that means and what it cost."""
