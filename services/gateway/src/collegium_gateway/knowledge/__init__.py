"""The doors to documents, search and memory."""
