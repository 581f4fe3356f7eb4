"""Attempts from the work queue: run, tried again, swept up, lost with their worker."""
