"""The verb ``check``: is the configuration valid, and does every dependency answer? One line each, no secret shown."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec
from collegium_bus.errors import BusError
from collegium_runtime.runtime_file import Runtime
from collegium_settings import Settings, SettingsError
from collegium_telemetry.logs import mask_text

from collegium_cli.environment import quiet_libraries, read_settings, runtime_of
from collegium_cli.tasks.operator import operator

TIMEOUT_SECONDS = 5.0


class Finding(NamedTuple):
    """One checked thing: whether it is well, and what was found."""

    what: str
    well: bool
    found: str


def read_and_run(config: Path | None, data: Path | None, *, as_json: bool) -> int:
    """Reads the configuration and checks everything; what is wrong with the configuration is found, too."""
    try:
        settings = read_settings(config, data)
    except SettingsError as error:
        return _tell([Finding("configuration", False, mask_text(str(one))) for one in error.problems], as_json=as_json)
    return run(settings, as_json=as_json)


def run(settings: Settings, *, as_json: bool) -> int:
    """Checks everything; returns 1 where anything failed."""
    quiet_libraries()
    return _tell(asyncio.run(_check(settings, runtime_of(settings))), as_json=as_json)


def _tell(findings: Sequence[Finding], *, as_json: bool) -> int:
    for finding in findings:
        if as_json:
            print(msgspec.json.encode({"what": finding.what, "ok": finding.well, "found": finding.found}).decode())
        else:
            print(f"{'ok  ' if finding.well else 'FAIL'}  {finding.what}: {finding.found}")
    return 0 if all(finding.well for finding in findings) else 1


async def _check(settings: Settings, runtime: Runtime) -> list[Finding]:
    findings = [Finding("configuration", True, f"{len(settings.models)} models, {len(settings.tenants)} tenants")]
    findings.append(await _tried("broker", lambda: _broker(settings, runtime)))
    findings.append(await _tried("database", lambda: _database(settings, runtime)))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)) as session:
        for model in settings.models:
            headers = {"Authorization": f"Bearer {model.api_key.reveal()}"} if model.api_key else {}
            findings.append(await _model(session, model.name, model.base_url, headers))
        if (embedded := runtime.embedded_model) is not None:
            findings.append(await _model(session, embedded.name, embedded.base_url, {}))
        if settings.telemetry.otlp_endpoint:
            url = settings.telemetry.otlp_endpoint.rstrip("/") + "/v1/traces"
            findings.append(await _tried("traces", lambda url=url: _post_nothing(session, url)))
        if runtime.http:
            url = runtime.http + "/health/ready"
            findings.append(await _tried("gateway", lambda url=url: _get(session, url, {})))
    return findings


async def _tried(what: str, check: Callable[[], Awaitable[str]]) -> Finding:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return Finding(what, True, mask_text(await check()))
    except (BusError, OSError, aiohttp.ClientError, ValueError) as error:
        return Finding(what, False, mask_text(str(error) or type(error).__name__))


async def _broker(settings: Settings, runtime: Runtime) -> str:
    if not (settings.nats.url or runtime.nats):
        return "the bundled server, not running now"
    async with operator(settings, runtime) as connection:
        version = connection.client.connected_server_version
        return f"nats-server {version.major}.{version.minor}.{version.patch}"


async def _database(settings: Settings, runtime: Runtime) -> str:
    url = settings.database.url or runtime.database
    if not url:
        return "the bundled server, not running now"
    import asyncpg

    try:
        connection = await asyncpg.connect(url, timeout=int(TIMEOUT_SECONDS))
    except asyncpg.PostgresError as error:
        raise ConnectionError(str(error)) from error
    try:
        return f"PostgreSQL {await connection.fetchval('SHOW server_version')}"
    finally:
        await connection.close()


async def _model(session: aiohttp.ClientSession, name: str, base_url: str, headers: dict[str, str]) -> Finding:
    url = base_url.rstrip("/") + "/models"
    return await _tried(f"model {name}", lambda: _get(session, url, headers))


async def _get(session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> str:
    async with session.get(url, headers=headers) as response:
        if response.status >= 400:
            raise ConnectionError(f"{url} answered {response.status}")
        return f"{url} answered {response.status}"


async def _post_nothing(session: aiohttp.ClientSession, url: str) -> str:
    async with session.post(url, data=b"", headers={"Content-Type": "application/x-protobuf"}) as response:
        if response.status >= 500 or response.status == 404:
            raise ConnectionError(f"{url} answered {response.status}")
        return f"{url} answered {response.status}"
