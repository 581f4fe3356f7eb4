"""Consensus: the verdict over the answers of a panel.

Pure rooms: ``normalise`` (when two answers are the same), ``vote`` (what an answer votes for, and the count),
``verdict`` (members in, the settled message out); ``aggregation`` (answers by type, votes by reliability or as learned,
when to stop asking) and ``confidence`` (how probably an answer is right, thresholds with a promise), which learn by
``fitting``. Around them: ``handlers`` (ended attempts in, settlement out),
``telemetry`` (names) and ``app`` (the parts list). There is no store: what a verdict needs stands in EVENTS.
"""
