"""Tasks that wait: read from INGRESS, in a fair order."""
