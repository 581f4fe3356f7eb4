"""Traces, metrics and logs of Collegium, and their names.

Import the modules by name (``collegium_telemetry.tracing``, ``.metrics``, ``.logs``, ``.names``): what a process does
not use is not loaded. One rule: telemetry never decides what happens to a task, and never shows content or secrets.
"""
