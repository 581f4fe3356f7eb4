"""The frame that every service runs in: connection, telemetry, keyring, admin port, readiness and drain.

A service gives :func:`build`-style factories an :class:`collegium_runtime.platform.Platform` and gets started and
stopped; it never reads configuration files, opens broker connections or serves health by itself.
"""
