"""Evolution: what every model did in every domain, as a scoreboard.

Pure rooms: ``scoring`` (events → what they add to scores) and ``histogram`` (durations in few numbers). Around them:
``store`` (all SQL), ``fold`` (events in), ``board`` (the scoreboard out), ``telemetry`` (names) and ``app`` (the parts
list). No task waits for anything here.
"""
