"""Tasks: submitted, waited for, followed, shown, scheduled."""
