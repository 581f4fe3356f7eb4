"""The rows of tasks: folded from events, read by the doors, removed in time."""
