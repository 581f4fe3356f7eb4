"""From a request to a task that may begin: shape, bounds, rules, the hold, and the key that makes it one."""
