"""Context: the turns of conversations, kept and given back.

Pure room: ``turn`` (a settled task → a turn; turns → a history). Around it: ``store`` (all SQL), ``fold`` (settled
tasks in), ``freshness`` (waiting until a client's own writes are folded), ``handlers`` (questions in), ``telemetry``
(names) and ``app`` (the parts list).
"""
