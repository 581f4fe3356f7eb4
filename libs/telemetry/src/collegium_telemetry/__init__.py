"""Telemetry: traces by OpenTelemetry, metrics by prometheus-client, logs by structlog; one name for one thing.

Modules: tracing (one span a hop, sampled at the root), metrics, logs (secrets masked), names.
"""
