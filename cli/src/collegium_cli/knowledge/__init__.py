"""Documents, memory, shared contexts, conversations, and the vector store."""
