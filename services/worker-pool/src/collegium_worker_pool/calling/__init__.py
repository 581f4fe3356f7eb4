"""One call of an attempt: within its bounds, gated, streamed on, and turned into an end."""
