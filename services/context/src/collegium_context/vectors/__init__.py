"""The vector store of context: one protocol, an embedded engine and a server behind it."""
