"""``runtime.json``: whole or absent, and its owner's alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from collegium_runtime import runtime_file
from collegium_runtime.runtime_file import EmbeddedModel, Runtime

FULL = Runtime(
    http="http://127.0.0.1:1",
    nats="nats://127.0.0.1:2",
    database="postgresql://u:secret@/x",
    credentials={"gateway": "/c/gateway.nk"},
    pids={"nats": 5},
    admin_ports={"gateway": 6},
    embedded_model=EmbeddedModel("smollm2", "http://127.0.0.1:3/v1"),
)


def test_what_was_written_is_read_and_nobody_else_may(tmp_path: Path) -> None:
    path = runtime_file.write(tmp_path, FULL)
    assert runtime_file.read(tmp_path) == FULL
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == [runtime_file.FILE_NAME]


def test_a_second_write_replaces_the_first_whole(tmp_path: Path) -> None:
    runtime_file.write(tmp_path, FULL)
    path = runtime_file.write(tmp_path, Runtime(http="http://b"))
    assert runtime_file.read(tmp_path) == Runtime(http="http://b")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"pids": {"nats": "x"}}'])
def test_what_is_not_ours_is_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / runtime_file.FILE_NAME).write_text(text)
    assert runtime_file.read(tmp_path) is None


def test_fields_of_a_later_version_pass(tmp_path: Path) -> None:
    (tmp_path / runtime_file.FILE_NAME).write_text('{"http": "http://a", "later": 1}')
    assert runtime_file.read(tmp_path) == Runtime(http="http://a")
