"""Restarts and endings, with processes that only pretend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from collegium_cli.up import supervisor as module
from collegium_cli.up.supervisor import MAX_RESTARTS, GaveUpError, Supervisor
from collegium_runtime import runtime_file
from collegium_servers import FolderInUseError
from collegium_settings import Settings
from collegium_testing import eventually


class Pretended:
    """A process that ends when told, and remembers whether it was stopped."""

    def __init__(self, name: str, endings: list[str], *, ends_at_once: bool = False) -> None:
        self.pid = 1
        self.name = name
        self._endings = endings
        self._ended = asyncio.Event()
        if ends_at_once:
            self._ended.set()

    def end(self) -> None:
        self._ended.set()

    async def stop(self, grace_seconds: float = 0.0) -> int:
        if not self._ended.is_set():
            self._endings.append(self.name)
        self._ended.set()
        return 0

    async def wait(self) -> int:
        await self._ended.wait()
        return -9


class Stage:
    """A supervisor whose starts are pretended."""

    def __init__(self, folder: Path) -> None:
        self.supervisor: Any = Supervisor(Settings(data_dir=folder), None, [])
        folder.mkdir(exist_ok=True)
        self.started: list[Pretended] = []
        self.endings: list[str] = []

    def starts(self, name: str, *, ends_at_once: bool = False) -> Callable[[], Awaitable[Pretended]]:
        async def start() -> Pretended:
            self.started.append(Pretended(name, self.endings, ends_at_once=ends_at_once))
            return self.started[-1]

        return start

    async def began(self, count: int) -> None:
        await eventually(lambda: len(self.started) >= count, every_seconds=0.001)


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(module.random, "uniform", lambda _low, _high: 0.0)
    return Stage(tmp_path / "data")


async def finish(stage: Stage) -> None:
    for task in stage.supervisor._watching:
        task.cancel()
    await asyncio.gather(*stage.supervisor._watching, return_exceptions=True)


async def test_what_ends_is_started_again(stage: Stage) -> None:
    await stage.supervisor._run("nats", stage.starts("nats"))
    stage.started[0].end()
    await stage.began(2)
    assert not stage.supervisor.failed.done()
    await finish(stage)


async def test_what_ends_over_and_over_makes_the_supervisor_give_up(stage: Stage) -> None:
    await stage.supervisor._run("work", stage.starts("work", ends_at_once=True))
    with pytest.raises(GaveUpError, match=r"work.*logs/work\.log"):
        await asyncio.wait_for(stage.supervisor.failed, 30)
    assert len(stage.started) == MAX_RESTARTS + 1
    await finish(stage)


async def test_a_soak_may_ask_for_more_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.random, "uniform", lambda _low, _high: 0.0)
    monkeypatch.setenv(module.MAX_RESTARTS_VARIABLE, "2")
    stage = Stage(tmp_path / "data")
    await stage.supervisor._run("work", stage.starts("work", ends_at_once=True))
    with pytest.raises(GaveUpError, match="more than 2 times"):
        await asyncio.wait_for(stage.supervisor.failed, 30)
    await finish(stage)


async def test_backing_off_counts_a_processes_own_endings_only(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(module.random, "uniform", lambda _low, high: asked.append(high) or 0.0)
    for count, name in enumerate(("nats", "model", "gateway"), start=1):
        await stage.supervisor._run(name, stage.starts(name))
        stage.started[-1].end()
        await stage.began(2 * count)
    assert asked == []
    stage.started[-1].end()
    await stage.began(7)
    assert len(asked) == 1
    await finish(stage)


async def test_the_first_failure_of_a_start_cancels_the_others_and_is_told_alone() -> None:
    canceled: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            canceled.append("slow")
            raise

    async def fails() -> None:
        raise GaveUpError("because")

    with pytest.raises(GaveUpError, match="because"):
        await module._together(slow(), fails())
    assert canceled == ["slow"]


async def test_the_gateway_ends_first_and_the_servers_last(stage: Stage) -> None:
    supervisor = stage.supervisor
    supervisor._held = module.claim(supervisor._data, "up")
    supervisor._groups = module_groups()
    for name in ("nats", "postgres", "back-office", "work", "gateway"):
        await supervisor._run(name, stage.starts(name))
    await supervisor.stop()
    assert stage.endings[0] == "gateway"
    assert set(stage.endings[1:3]) == {"back-office", "work"}
    assert set(stage.endings[3:]) == {"nats", "postgres"}


def module_groups() -> list[Any]:
    from collegium_cli.up.layout import groups

    return groups(None)


async def test_after_the_end_no_address_is_left_to_be_tried(stage: Stage) -> None:
    supervisor = stage.supervisor
    supervisor._held = module.claim(supervisor._data, "up")
    supervisor._learn(nats="nats://x", database="postgresql://y", credentials={"operator": "f"})
    supervisor._write_runtime()
    await supervisor.stop()
    left = runtime_file.read(supervisor._data)
    assert left is not None
    assert (left.nats, left.database, left.http, left.pids) == ("", "", "", {})
    assert left.credentials == {"operator": "f"}


async def test_a_folder_in_use_is_left_alone(stage: Stage) -> None:
    held = module.claim(stage.supervisor._data, "up")
    try:
        with pytest.raises(FolderInUseError):
            await stage.supervisor.start()
        await stage.supervisor.stop()
        assert not (stage.supervisor._data / "runtime.json").exists()
    finally:
        held.release()
