"""Children get little, say what is understood, and end when they are to."""

from __future__ import annotations

import asyncio
import io
import os
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from collegium_children.child import Child, environment, start
from collegium_children.frames import bodies, framed, put
from collegium_testing import eventually

ECHO = """
import os, sys, time
from collegium_children.frames import answers, bodies, put
out = answers()
print("a library talks")
for body in bodies(sys.stdin.buffer):
    if body == b"environment":
        body = repr(dict(os.environ)).encode()
    if body == b"hang":
        child = os.fork()
        if not child:
            time.sleep(600)
        body = str(child).encode()
    put(out, body)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "echoing.py").write_text(ECHO)
    monkeypatch.syspath_prepend(tmp_path)
    return "echoing"


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def said(child: Child, body: bytes) -> bytes:
    await child.put(body)
    return await child.take()


async def test_frames_go_in_and_come_out_whatever_libraries_print(module: str):
    child = await start(module)
    try:
        for body in (b"", b"x", b"\x00" * 300_000):
            assert await said(child, body) == body
    finally:
        await child.close(30)
    assert child.code == 0


async def test_no_key_of_the_environment_is_passed_on(module: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLLEGIUM_SECRET", "swordfish")
    monkeypatch.setenv("OPENAI_API_KEY", "swordfish")
    child = await start(module, threads=1)
    try:
        seen = await said(child, b"environment")
    finally:
        await child.end()
    assert b"swordfish" not in seen
    assert b"'OMP_NUM_THREADS': '1'" in seen
    assert "OMP_NUM_THREADS" not in environment()


async def test_what_leads_a_group_ends_with_all_that_it_started(module: str):
    child = await start(module, leads=True)
    grandchild = int(await said(child, b"hang"))
    assert runs(grandchild)
    await child.end()
    await child.end()
    assert (child.runs, child.code) == (False, -9)
    await eventually(lambda: not runs(grandchild))


async def test_one_that_does_not_hear_the_end_of_its_input_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "deaf.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.syspath_prepend(tmp_path)
    child = await start("deaf")
    async with asyncio.timeout(60):
        await child.close(0.05)
    assert child.code == -9


async def test_a_frame_that_is_too_large_or_cut_off_is_refused(module: str):
    child = await start(module)
    await child.put(b"x" * 1000)
    with pytest.raises(OSError, match="1000 bytes are no answer"):
        await child.take(999)
    await child.end()
    with pytest.raises((asyncio.IncompleteReadError, OSError)):
        await child.take(999_999_999)


async def test_all_that_one_says_until_it_ends_and_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "once.py").write_text("import sys\nprint(sys.stdin.read()[::-1], end='')\nsys.exit('no more')\n")
    monkeypatch.syspath_prepend(tmp_path)
    child = await start("once", words=PIPE)
    assert await child.converse(b"abc") == (b"cba", b"no more\n")
    assert child.code == 1
    assert child.pid != os.getpid()


def test_what_is_cut_off_is_no_body():
    assert list(bodies(io.BytesIO(framed(b"one") + framed(b"two")[:-1]))) == [b"one"]
    assert list(bodies(io.BytesIO(framed(b"one") + b"\x00\x00"))) == [b"one"]


def test_a_reader_that_is_gone_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    sink = os.fdopen(writing, "wb", buffering=0)
    put(sink, b"x")
    sink.close()
