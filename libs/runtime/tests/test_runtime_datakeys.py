"""Data keys on a real broker: made once, rotated, rewrapped, destroyed; and the envelope key that they stand under."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from collegium_bus import topology
from collegium_bus.connection import Connection, connect
from collegium_bus.direct import DirectReader
from collegium_contracts import subjects as s
from collegium_contracts.envelope import UnknownKeyError
from collegium_runtime.datakeys import DataKeys
from collegium_runtime.envelope_key import FILE_NAME, EnvelopeKeyError
from collegium_runtime.platform import unix_ms
from collegium_servers import nats
from collegium_settings.secret import Secret
from collegium_settings.settings import EncryptionSettings
from collegium_testing import eventually

OLD, NEW = Secret("the first envelope key of this platform"), Secret("the second envelope key of this platform")


@pytest.fixture
async def broker(clean_nats_url: str) -> AsyncIterator[Connection]:
    connection = await connect(clean_nats_url, "operator")
    await topology.apply(connection, await topology.plan(connection, pools=["general"]))
    yield connection
    await connection.close()


class Opened:
    """Data keys as processes have them, stopped at the end of a test."""

    def __init__(self, broker: Connection, folder: Path) -> None:
        self._broker = broker
        self._folder = folder
        self._open: list[DataKeys] = []

    async def __call__(
        self, key: Secret | None = None, *previous: Secret, folder: Path | None = None, may_write: bool = True
    ) -> DataKeys:
        encryption = EncryptionSettings(key=key, previous=previous)
        made = DataKeys(self._broker, folder or self._folder, encryption, unix_ms, may_write=may_write)
        self._open.append(made)
        await made.start()
        return made

    async def close(self) -> None:
        for one in self._open:
            await one.stop()


@pytest.fixture
async def opened(broker: Connection, tmp_path: Path) -> AsyncIterator[Opened]:
    opening = Opened(broker, tmp_path / "data")
    yield opening
    await opening.close()


async def versions(broker: Connection, tenant: str) -> int:
    found = await DirectReader(broker).headers(f"KV_{s.KV_DATAKEYS}", f"$KV.{s.KV_DATAKEYS}.{tenant}", limit=100)
    return len(found)


async def test_gateways_that_make_a_tenants_key_at_once_make_one(opened: Opened):
    one, other = await opened(), await opened()
    reader = await opened(may_write=False)
    await asyncio.gather(*(keys.ensure("acme") for keys in (one, other, one, other)))
    assert one.of("acme") == other.of("acme")
    sealed = one.ring.seal("acme", b"canary")
    assert other.ring.open("acme", sealed) == b"canary"
    await eventually(lambda: reader.ring.holds("acme", sealed))
    assert reader.ring.open("acme", sealed) == b"canary"


async def test_the_key_file_is_made_once_and_is_its_owners(opened: Opened, tmp_path: Path):
    await opened()
    file = tmp_path / "data" / FILE_NAME
    made = file.read_text()
    await opened()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (file.read_text(), [path.name for path in file.parent.iterdir()]) == (made, [FILE_NAME])


async def test_a_configured_key_leaves_no_file(opened: Opened, tmp_path: Path):
    await (await opened(OLD)).ensure("acme")
    assert not (tmp_path / "data" / FILE_NAME).exists()


async def test_a_missing_or_wrong_key_is_refused_with_its_path_and_nothing_is_made(opened: Opened, tmp_path: Path):
    await (await opened()).ensure("acme")
    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(EnvelopeKeyError, match=rf"{elsewhere / FILE_NAME} is missing: restore"):
        await opened(folder=elsewhere)
    assert not elsewhere.exists()
    elsewhere.mkdir()
    (elsewhere / FILE_NAME).write_text("another")
    with pytest.raises(EnvelopeKeyError, match="is not the file: restore"):
        await opened(folder=elsewhere, may_write=False)
    with pytest.raises(EnvelopeKeyError, match=r"encryption\.key is not the key"):
        await opened(NEW)


async def test_a_rotated_key_seals_later_and_the_old_one_opens(opened: Opened, broker: Connection):
    keys = await opened()
    await keys.ensure("acme")
    before = keys.ring.seal("acme", b"before")
    record = await keys.rotate("acme")
    assert [key.id for key in record.keys] == [before.key_id.partition(".")[0], record.keys[1].id]
    assert keys.ring.open("acme", before) == b"before"
    assert await versions(broker, "acme") == 1, "the value before is overwritten on disk"


async def test_the_envelope_key_is_exchanged_without_a_loss(opened: Opened):
    old = await opened(OLD)
    for tenant in ("acme", "globex"):
        await old.ensure(tenant)
    sealed = old.ring.seal("acme", b"x")
    both = await opened(NEW, OLD)
    assert (await both.rewrap(is_dry_run=True), await both.rewrap(), await both.rewrap()) == (2, 2, 0)
    assert both.wrapped_by() == {both.envelope.newest.id: 2}
    assert (await opened(NEW)).ring.open("acme", sealed) == b"x"
    with pytest.raises(EnvelopeKeyError):
        await opened(OLD)


async def test_destroyed_keys_are_gone_everywhere_and_never_made_again(opened: Opened, broker: Connection):
    keys, reader = await opened(), await opened(may_write=False)
    for tenant in ("acme", "globex"):
        await keys.ensure(tenant)
    wrapped = keys.of("acme")
    assert wrapped is not None
    sealed, others = keys.ring.seal("acme", b"x"), keys.ring.seal("globex", b"y")
    await eventually(lambda: reader.ring.holds("acme") and reader.ring.holds("globex"))
    assert (await keys.destroy("acme"), await keys.destroy("acme")) == (1, 0)
    assert await versions(broker, "acme") == 1, "only the mark stands"
    await eventually(lambda: reader.is_erased("acme"))
    for ring in (keys.ring, reader.ring, (await opened()).ring):
        with pytest.raises(UnknownKeyError):
            ring.open("acme", sealed)
        assert ring.open("globex", others) == b"y"
    for change in (keys.ensure, keys.rotate):
        with pytest.raises(UnknownKeyError, match="acme"):
            await change("acme")


async def test_destroyed_keys_are_on_no_disk(tmp_path: Path):
    server = await nats.start(tmp_path / "broker")
    broker = await connect(server.url, "operator")
    await topology.apply(broker, await topology.plan(broker, pools=["general"]))
    opening = Opened(broker, tmp_path / "data")
    keys = await opening()

    def on_disk(needle: bytes) -> bool:
        return any(needle in file.read_bytes() for file in (tmp_path / "broker").rglob("*.blk"))

    try:
        for tenant in ("acme", "globex"):
            await keys.ensure(tenant)
        rotated, others = await keys.rotate("acme"), keys.of("globex")
        assert others is not None
        await eventually(lambda: all(on_disk(key.wrapped) for key in (*rotated.keys, *others.keys)))
        await keys.destroy("acme")
        await eventually(lambda: not any(on_disk(key.wrapped) for key in rotated.keys))
        assert on_disk(others.keys[0].wrapped)
    finally:
        await opening.close()
        await broker.close()
        await server.stop()
