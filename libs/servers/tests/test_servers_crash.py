"""What is left after ``kill -9``, and what the next start on the same folder makes of it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import nats as nats_client
import pytest
from collegium_servers import FolderInUseError, nats, postgres
from collegium_servers.identity import Identity, boot_id, gone, load, start_ticks
from collegium_servers.process import claim, end_leftover

PARENT = """
import asyncio, json, sys
from pathlib import Path
import asyncpg, nats as nats_client
from collegium_servers import model, nats, postgres

async def main():
    folder = Path(sys.argv[1])
    broker, database = await asyncio.gather(nats.start(folder), postgres.start(folder))
    pids = {"nats": broker.pid, "postgres": database.pid}
    if "model" in sys.argv:
        pids["model"] = (await model.start(folder, slots=1, context_tokens=256)).pid
    client = await nats_client.connect(broker.url)
    await client.jetstream().add_stream(name="KEPT", subjects=["kept"])
    for number in range(50):
        await client.jetstream().publish("kept", str(number).encode())
    connection = await asyncpg.connect(database.url)
    await connection.execute("create table kept (n int)")
    await connection.execute("insert into kept select generate_series(1, 50)")
    print(json.dumps(pids), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def spawn(*arguments: str, folder: Path | None = None) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": ":".join(entry for entry in sys.path if entry)}
    return subprocess.Popen([sys.executable, "-c", *arguments], stdout=subprocess.PIPE, cwd=folder, env=environment)


async def crash(folder: Path, *extra: str, everything: bool) -> dict[str, int]:
    """Runs a parent that stores something, kills it (and its servers), and returns the pids of the servers."""
    with spawn(PARENT, str(folder), *extra) as parent:
        pids: dict[str, int] = json.loads(await asyncio.to_thread(parent.stdout.readline))
        parent.kill()
        for pid in pids.values() if everything else ():
            os.kill(pid, signal.SIGKILL)
        parent.wait()
    return pids


async def kept(folder: Path) -> tuple[int, int]:
    broker, database = await asyncio.gather(nats.start(folder), postgres.start(folder))
    try:
        client = await nats_client.connect(broker.url)
        messages = (await client.jetstream().stream_info("KEPT")).state.messages
        await client.close()
        connection = await asyncpg.connect(database.url)
        rows = await connection.fetchval("select count(*) from kept")
        await connection.close()
    finally:
        await asyncio.gather(broker.stop(), database.stop())
    return messages, rows


@pytest.mark.chaos
@pytest.mark.parametrize("everything", [False, True], ids=["the parent", "everything"])
async def test_what_was_acknowledged_survives_the_kill_of(tmp_path: Path, everything: bool) -> None:
    pids = await crash(tmp_path, everything=everything)
    assert await kept(tmp_path) == (50, 50)
    for pid in pids.values():
        assert await gone(pid, 5)


@pytest.mark.chaos
@pytest.mark.model
async def test_the_model_dies_with_its_parent(tmp_path: Path) -> None:
    pids = await crash(tmp_path, "model", everything=False)
    assert await gone(pids["model"], 10)
    await kept(tmp_path)  # ends the two that survived


async def test_a_process_that_merely_reuses_the_pid_is_left_alone(tmp_path: Path) -> None:
    with spawn("import signal; signal.pause()", "foreign", folder=tmp_path) as foreign:
        ticks = start_ticks(foreign.pid)
        held = claim(tmp_path, "nats")
        for identity in (
            Identity(foreign.pid, ticks, boot_id(), "another mark"),
            Identity(foreign.pid, ticks - 1, boot_id(), "foreign"),
            Identity(foreign.pid, ticks, "another boot", "foreign"),
        ):
            identity.save(held.pid_file)
            assert not await end_leftover(held)
            assert foreign.poll() is None
        assert not held.pid_file.exists()
        foreign.kill()
        held.release()


async def test_a_leftover_that_ignores_the_gentle_signal_is_killed(tmp_path: Path) -> None:
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    with spawn(script, "stubborn") as stubborn:
        await asyncio.to_thread(stubborn.stdout.readline)
        held = claim(tmp_path, "nats")
        Identity(stubborn.pid, start_ticks(stubborn.pid), boot_id(), "stubborn").save(held.pid_file)
        assert await end_leftover(held, grace_seconds=0.05)
        assert stubborn.wait() == -signal.SIGKILL
        held.release()


def test_a_half_written_identity_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "nats.json").write_text('{"pid": 1')
    assert load(tmp_path / "nats.json") is None


def test_a_claim_excludes_others_until_it_is_released(tmp_path: Path) -> None:
    held = claim(tmp_path, "nats")
    with pytest.raises(FolderInUseError, match="stop it, or use another folder"):
        claim(tmp_path, "nats")
    claim(tmp_path, "postgres").release()
    held.release()
    claim(tmp_path, "nats").release()
