"""Documents: taken in, cut into chunks, embedded, and served as a whole or not at all.

Pure rooms: ``extracting`` (bytes → blocks; ``markup`` and ``pdf`` read what the formats say), ``chunking`` (blocks →
chunks), ``naming`` (ids of documents, chunks and filters). Around them: ``child`` (parsing under limits, in a process
of its own), ``store`` (all SQL), ``ingesting`` (accepted → indexed), ``handlers`` (questions in).
"""
