"""Memory: what is remembered at paths, shared contexts, and what becomes of old turns.

A reading order: times (when something is true and when it was known), views (who reads what), ranking, words and gist
(pure rooms); memory_store and its like (SQL); recalling, keeping, indexing (what is done with them); answers (questions
in, answers out); parts (wiring).
"""
