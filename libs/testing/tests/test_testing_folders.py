"""Where tests write."""

import os
from pathlib import Path

from collegium_testing.folders import make_in_memory


def meminfo(folder: Path, kilobytes: int) -> Path:
    file = folder / "meminfo"
    file.write_text(f"MemTotal: 99 kB\nMemAvailable: {kilobytes} kB\n")
    return file


def test_folders_of_processes_that_have_ended_are_removed_and_others_stay(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("collegium_testing.folders.ROOM_BYTES", 1 << 20)
    memory = tmp_path / "memory"
    ended, running, other = (memory / name for name in ("collegium-tests-4194999", "collegium-tests-1", "else"))
    for folder in (ended, running, other):
        (folder / "inside").mkdir(parents=True)
    made = make_in_memory(memory, meminfo=meminfo(tmp_path, 2 << 10))
    assert made == memory / f"collegium-tests-{os.getpid()}"
    assert made.is_dir()
    assert not ended.exists()
    assert running.exists()
    assert other.exists()


def test_without_room_there_is_none(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("collegium_testing.folders.ROOM_BYTES", 1 << 20)
    assert make_in_memory(tmp_path, meminfo=meminfo(tmp_path, 1)) is None
    assert make_in_memory(tmp_path, meminfo=tmp_path / "none") is None
    assert make_in_memory(tmp_path / "none", meminfo=meminfo(tmp_path, 2 << 10)) is None
    monkeypatch.setattr("collegium_testing.folders.ROOM_BYTES", 1 << 60)
    assert make_in_memory(tmp_path, meminfo=meminfo(tmp_path, 1 << 55)) is None
