"""Gates, and the people whom they ask."""
