"""What ``tap --content`` opens, on a real broker: with the key, without it, of an erased tenant, and large messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from collegium_bus import topology
from collegium_bus.claims import ClaimStore
from collegium_bus.connection import Connection, connect
from collegium_cli.tasks.opening import Opening
from collegium_cli.tasks.passing import Passing, Taste, line
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.envelope import IDENTITY_KEY_ID, Envelope
from collegium_contracts.messages import Sampling, TaskRef, TaskSubmitted
from collegium_runtime.datakeys import DataKeys
from collegium_runtime.envelope_key import FILE_NAME
from collegium_runtime.platform import unix_ms
from collegium_settings import Settings, load
from collegium_testing import eventually

SECRET = b'[{"role":"user","content":"my private question"}]'


@pytest.fixture
async def broker(clean_nats_url: str) -> AsyncIterator[Connection]:
    connection = await connect(clean_nats_url, "operator")
    await topology.apply(connection, await topology.plan(connection, pools=["general"]))
    yield connection
    await connection.close()


@pytest.fixture
async def keys(broker: Connection, tmp_path: Path) -> AsyncIterator[DataKeys]:
    """The data keys as a gateway makes them."""
    settings = settings_of(tmp_path)
    made = DataKeys(broker, tmp_path, settings.encryption, unix_ms, may_write=True)
    await made.start()
    await made.ensure("acme")
    yield made
    await made.stop()


def settings_of(folder: Path) -> Settings:
    return load(None, {"COLLEGIUM_DATA_DIR": str(folder)})


def submitted(keys: DataKeys, tenant: str = "acme") -> bytes:
    task = TaskRef(id="tsk_1", tenant=tenant, created_at_ms=1, deadline_ms=2, model="auto")
    prompt = keys.ring.seal(tenant, SECRET)
    return codec.encode(TaskSubmitted(task=task, prompt=prompt, sampling=Sampling(), prompt_bytes=len(SECRET)))


async def shown(opening: Opening, payload: bytes, claim: str = "") -> str:
    passing = Passing(s.task_submitted("normal", 3, "acme"), payload, claim)
    text = line(await opening.ready(passing), Taste(content=True), opening.open)
    assert text is not None
    return text


async def test_with_the_key_contents_are_shown_also_of_a_tenant_that_is_new(
    broker: Connection, keys: DataKeys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    opening = Opening(broker, settings_of(tmp_path))
    await opening.start()
    assert "my private question" in await shown(opening, submitted(keys))
    await keys.ensure("globex")
    assert "my private question" in await shown(opening, submitted(keys, "globex"))
    await opening.stop()
    assert capsys.readouterr().err == ""


async def test_without_the_envelope_key_it_is_said_once_and_nothing_is_made(
    broker: Connection, keys: DataKeys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    elsewhere = tmp_path / "elsewhere"
    opening = Opening(broker, settings_of(elsewhere))
    await opening.start()
    text = await shown(opening, submitted(keys))
    await opening.stop()
    assert "private" not in text
    assert ": its key is not at hand›" in text
    (said,) = capsys.readouterr().err.splitlines()
    assert str(elsewhere / FILE_NAME) in said
    assert not elsewhere.exists()


async def test_what_stands_of_an_erased_tenant_is_shown_as_erased(broker: Connection, keys: DataKeys, tmp_path: Path):
    opening = Opening(broker, settings_of(tmp_path))
    await opening.start()
    before = submitted(keys)
    assert "my private question" in await shown(opening, before)
    await keys.destroy("acme")

    async def is_erased() -> bool:
        return ": tenant acme was erased›" in await shown(opening, before)

    await eventually(is_erased)
    await opening.stop()


async def test_a_large_message_is_fetched_and_one_that_is_gone_is_named(
    broker: Connection, keys: DataKeys, tmp_path: Path
):
    opening = Opening(broker, settings_of(tmp_path))
    await opening.start()
    claim = await ClaimStore(broker).put(submitted(keys))
    assert "my private question" in await shown(opening, b"", claim)
    gone = f"{'0' * 32}:10:{'0' * 64}"
    assert f"in the object store: {gone}" in await shown(opening, b"", gone)
    await opening.stop()


async def test_a_broker_without_data_keys_is_said_and_the_rest_is_shown(
    clean_nats_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    connection = await connect(clean_nats_url, "operator")
    opening = Opening(connection, settings_of(tmp_path))
    await opening.start()
    task = TaskRef(id="tsk_1", tenant="acme", created_at_ms=1, deadline_ms=2, model="auto")
    prompt = Envelope(IDENTITY_KEY_ID, b"", SECRET)
    message = TaskSubmitted(task=task, prompt=prompt, sampling=Sampling(), prompt_bytes=len(SECRET))
    assert "my private question" in await shown(opening, codec.encode(message))
    await opening.stop()
    await connection.close()
    assert "the data keys cannot be read" in capsys.readouterr().err
