import asyncio
from pathlib import Path

import nats as nats_client
import nkeys
import pytest
from collegium_servers import DurabilityError, FolderInUseError, NatsConfig, NatsUser, StartError, nats, render_config
from nacl.signing import SigningKey

SEED_BYTES = bytes(range(32))


def seed_and_public() -> tuple[str, str]:
    seed = nkeys.encode_seed(bytes(SigningKey(SEED_BYTES))[:32], nkeys.PREFIX_BYTE_USER)
    return seed.decode(), nkeys.from_seed(bytearray(seed)).public_key.decode()


async def answer_without_key(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b'CONNECT {"verbose":true}\r\nPING\r\n')
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode()


async def test_starts_with_jetstream_and_ends_when_told(tmp_path: Path) -> None:
    server = await nats.start(tmp_path)
    try:
        client = await nats_client.connect(server.url)
        account = await client.jetstream().account_info()
        assert account.streams == 0
        await client.close()
    finally:
        assert await server.stop() == 0
    assert not server.child.running
    assert await server.stop() == 0


async def test_power_durability_is_effective(tmp_path: Path) -> None:
    server = await nats.start(tmp_path, durability="power")
    await server.stop()
    assert server.sync_always


async def test_power_durability_is_refused_when_the_text_says_otherwise(tmp_path: Path) -> None:
    text = render_config(NatsConfig(tmp_path / "store", durability="process"))
    with pytest.raises(DurabilityError):
        await nats.start(tmp_path, config_text=text, durability="power")
    server = await nats.start(tmp_path)  # nothing was left behind that holds the folder
    await server.stop()


async def test_one_folder_has_one_server(tmp_path: Path) -> None:
    server = await nats.start(tmp_path)
    try:
        with pytest.raises(FolderInUseError):
            await nats.start(tmp_path)
        assert server.child.running
    finally:
        await server.stop()


async def test_a_bad_configuration_ends_with_what_the_server_printed(tmp_path: Path) -> None:
    with pytest.raises(StartError) as caught:
        await nats.start(tmp_path, config_text='listen: "127.0.0.1:-1"\nno_such_option: 3\n')
    assert any("no_such_option" in line for line in caught.value.last_lines)


async def test_a_server_that_dies_is_noticed_and_started_again_on_the_same_port(tmp_path: Path) -> None:
    server = await nats.start(tmp_path)
    watching = asyncio.create_task(server.wait())
    server.child._process.kill()
    assert await watching == -9
    await server.stop()
    again = await nats.start(tmp_path, port=server.port)
    assert (again.port, again.pid != server.pid) == (server.port, True)
    await again.stop()


async def test_a_user_may_do_what_its_lists_say_and_nothing_else(tmp_path: Path) -> None:
    seed, public = seed_and_public()
    user = NatsUser(public, publish=("work.>",), subscribe=("_INBOX.router.>",))
    server = await nats.start(tmp_path, config_text=render_config(NatsConfig(tmp_path / "store", users=(user,))))
    refused: asyncio.Queue[str] = asyncio.Queue()

    async def note(error: Exception) -> None:
        refused.put_nowait(str(error).lower())

    try:
        assert "Authorization Violation" in await answer_without_key(server.port)
        client = await nats_client.connect(server.url, nkeys_seed_str=seed, error_cb=note)
        await client.publish("work.general.normal", b"allowed")
        await client.flush()
        await client.publish("ledger.0", b"forbidden")
        await client.flush()
        async with asyncio.timeout(30):
            text = await refused.get()
        assert "permissions violation" in text
        assert "ledger.0" in text
        await client.close()
    finally:
        await server.stop()
