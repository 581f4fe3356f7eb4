"""The admin port of a service: ``/health/live``, ``/health/ready`` and ``/metrics``.

Live: the event loop answers. Ready: the broker is connected and everything the service names is true. One rule: a probe
tells the truth and costs nothing, so it looks at state and asks nobody.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiohttp import web
from collegium_telemetry.metrics import Metrics


class AdminServer:
    """Serves one service's probes and metrics on a port of its own."""

    def __init__(self, service: str, readiness: Callable[[], dict[str, bool]], metrics: Metrics) -> None:
        self._service = service
        self._readiness = readiness
        self._metrics = metrics
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listens; port 0 takes a free one (see ``port``)."""
        app = web.Application()
        app.router.add_get("/health/live", self._live)
        app.router.add_get("/health/ready", self._ready)
        app.router.add_get("/metrics", self._render)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stops listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _live(self, _request: web.Request) -> web.Response:
        return _json({"status": "live", "service": self._service})

    async def _ready(self, _request: web.Request) -> web.Response:
        checks = self._readiness()
        ready = all(checks.values())
        return _json({"status": "ready" if ready else "not ready", "checks": checks}, 200 if ready else 503)

    async def _render(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})


def _json(body: dict[str, object], status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
