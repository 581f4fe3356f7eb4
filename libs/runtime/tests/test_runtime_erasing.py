"""Erasing: keys first, every part until it is done, over failures and restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from collegium_bus import topology
from collegium_bus.connection import Connection, connect
from collegium_contracts.state import ERASURE_PARTS, Erasure
from collegium_runtime import erasing
from collegium_runtime.erasing import SWEEP_FOR_MS, Erase, Erasing, is_due, left_of
from collegium_runtime.platform import unix_ms
from collegium_testing import eventually

NOW_MS = 1_800_000_000_000


@pytest.fixture
async def broker(clean_nats_url: str) -> AsyncIterator[Connection]:
    connection = await connect(clean_nats_url, "operator")
    await topology.apply(connection, await topology.plan(connection, pools=["general"]))
    yield connection
    await connection.close()


class Part:
    """A part that fails as often as it is told, then erases."""

    def __init__(self, log: list[str], name: str, failures: int = 0) -> None:
        self._log = log
        self._name = name
        self._failures = failures

    async def __call__(self, tenant: str) -> int:
        if self._failures:
            self._failures -= 1
            raise OSError("away")
        self._log.append(f"{self._name} {tenant}")
        return 3


def make(broker: Connection, parts: dict[Any, Erase], known: list[str] | None = None) -> Erasing:
    platform: Any = SimpleNamespace(connection=broker, now_ms=unix_ms)
    return Erasing(platform, parts, known.append if known is not None else None)


def test_the_keys_go_first_and_the_rest_is_swept_while_the_erasure_is_young():
    begun = Erasure(tenant="acme", requested_at_ms=NOW_MS, requested_by="k")
    assert [part for part in ERASURE_PARTS if is_due(begun, part, NOW_MS)] == ["data_keys"]
    keyless = Erasure(tenant="acme", requested_at_ms=NOW_MS, requested_by="k", done={"data_keys": 1})
    assert [part for part in ERASURE_PARTS if is_due(keyless, part, NOW_MS)] == list(ERASURE_PARTS[1:])
    ended = Erasure(tenant="acme", requested_at_ms=NOW_MS, requested_by="k", done=dict.fromkeys(ERASURE_PARTS, 1))
    assert left_of(ended) == []
    assert [part for part in ERASURE_PARTS if is_due(ended, part, NOW_MS)] == list(ERASURE_PARTS[1:])
    assert not any(is_due(ended, part, NOW_MS + SWEEP_FOR_MS) for part in ERASURE_PARTS)


async def test_every_part_is_erased_whoever_failed_and_whoever_came_late(
    broker: Connection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(erasing, "AGAIN_SECONDS", 0.01)
    log: list[str] = []
    known: list[str] = []
    gateway = make(broker, {"data_keys": Part(log, "data_keys", 2), "gateway": Part(log, "gateway")}, known)
    others = make(
        broker, {name: Part(log, name, 3 * (name == "context")) for name in ("router", "context", "evolution")}
    )
    await gateway.start()
    await others.start()
    requested = await gateway.request("acme", "key1")
    assert await others.request("acme", "key2") == requested, "asked again, it is the same one"
    late = make(broker, {"billing": Part(log, "billing"), "events": Part(log, "events")})

    async def all_but_billing() -> bool:
        standing = await gateway.of("acme")
        return standing is not None and left_of(standing) == ["billing", "events"]

    await eventually(all_but_billing)
    await others.stop()
    await late.start()

    async def erased() -> bool:
        standing = await gateway.of("acme")
        return standing is not None and not left_of(standing)

    await eventually(erased)
    standing = await gateway.of("acme")
    assert standing is not None
    assert (log[0], sorted(log)) == ("data_keys acme", sorted(f"{part} acme" for part in ERASURE_PARTS))
    assert (standing.requested_by, standing.removed) == ("key1", dict.fromkeys(ERASURE_PARTS, 3))
    assert set(known) == {"acme"}
    await late.stop()
    await gateway.stop()
