"""Consensus: carries cascades and panels on, and settles them.

Pure rooms: ``normalise`` (when two answers are the same), ``vote`` (what an answer votes for), ``aggregation`` (which
answer is given, and when enough were asked), ``confidence`` (how probably it is right), ``course`` (from ended attempts
to what is next), ``verdict`` (to the settled message). Around them: ``members`` (ended attempts as they stand),
``handlers`` (events in, moves made), ``asking`` (requests to the router), ``overdue`` (plans whose time ran out),
``telemetry`` (names) and ``app`` (the parts list). There is no store: what a verdict needs stands in EVENTS.
"""
