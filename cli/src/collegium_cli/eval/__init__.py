"""The verb ``eval``: outcomes that others recorded, replayed through what the platform decides by."""
