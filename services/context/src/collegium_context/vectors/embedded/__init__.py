"""The embedded vector store: one process owns the folder, another one indexes, everybody else asks."""
