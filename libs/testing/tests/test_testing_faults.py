"""Results and their page, the attempt's name in a header, small disks, and the cluster."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from collegium_bus.connection import connect
from collegium_bus.publisher import Publisher
from collegium_contracts import subjects as s
from collegium_testing.faults import facts, results
from collegium_testing.faults.checker import CallKey
from collegium_testing.faults.cluster import NatsCluster
from collegium_testing.faults.disks import NoSmallDiskError, filled, small_disk
from collegium_testing.faults.results import Result

HELD = Result(
    fault="worker killed",
    about="a worker dies",
    outcome="held",
    seed=4,
    tasks=40,
    recovery_seconds=20.83,
    recovers_seconds_max=22,
    took_seconds=30,
    date="2026-01-02",
)


def test_the_page_shows_each_faults_last_result(tmp_path: Path):
    file = tmp_path / "folder" / "results.jsonl"
    other = msgspec.structs.replace(HELD, fault="disk full", recovery_seconds=None, recovers_seconds_max=None)
    for result in (msgspec.structs.replace(HELD, outcome="failed"), other, HELD):
        results.append(file, result)
    page = results.page(results.read(file))
    assert "2 faults, 2 held; last run 2026-01-02" in page
    assert "| worker killed | a worker dies | 40 | held (seed 4) | 20.8 s | 22 s |\n" in page
    assert "| disk full | a worker dies | 40 | held (seed 4) |  |  |\n" in page
    assert "failed" not in page.partition("| fault |")[2]


def test_the_page_names_every_law():
    page = results.page([HELD])
    assert page.count("\n- ") == len(results.LAWS)


@pytest.mark.parametrize(
    ("header", "key"),
    [("tsk_a.2.13", CallKey("tsk_a", 2, 13)), ("", None), ("tsk_a.2", None), ("tsk_a.x.1", None), (".1.1", None)],
)
def test_an_attempts_header_names_its_call(header: str, key: CallKey | None):
    assert facts.key_of(header) == key


def test_a_small_disk_is_full_where_it_is_filled(tmp_path: Path):
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(tmp_path / "disk", size_bytes=1024 * 1024))
        except NoSmallDiskError:
            return  # here nobody may mount: the matrix takes a stream's limit instead
        with filled(disk), pytest.raises(OSError, match="No space left"):
            (disk / "more").write_bytes(b"x" * 100_000)
        (disk / "room").write_bytes(b"x" * 100_000)


@pytest.mark.long
async def test_a_cluster_keeps_what_was_stored_when_the_streams_leader_dies(tmp_path: Path):
    async with NatsCluster(tmp_path) as cluster:
        await cluster.declare()
        connection = await connect(cluster.url, "operator")
        publisher = Publisher(connection)
        await publisher.publish(s.task_settled("acme", "tsk_a"), b"a", message_id="a", create_once=True)
        info = msgspec.json.decode(await connection.api(f"STREAM.INFO.{s.EVENTS}"))
        assert (info["config"]["num_replicas"], len(info["cluster"]["replicas"])) == (3, 2)
        leader = await cluster.leader(s.EVENTS)
        cluster.kill(leader)
        await publisher.publish(s.task_settled("acme", "tsk_b"), b"b", message_id="b", create_once=True)
        await cluster.restart(leader)
        info = msgspec.json.decode(await connection.api(f"STREAM.INFO.{s.EVENTS}"))
        assert info["state"]["messages"] == 2
        await connection.close()
