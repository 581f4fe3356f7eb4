"""The audit trail: entries sealed into chains, kept, verified and shown."""
