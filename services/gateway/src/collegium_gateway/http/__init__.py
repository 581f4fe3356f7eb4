"""The HTTP door: its frame, replies under idempotency keys, and the document that describes it."""
