"""The hot doors: chats and embeddings, answered while the client waits."""
