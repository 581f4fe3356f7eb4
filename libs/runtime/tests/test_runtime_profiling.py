"""A service process that samples itself: begun and ended by a signal, and only where it was asked for."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from collegium_runtime import profiling

PROGRAM = """
import asyncio, os, signal, time
from collegium_runtime import profiling

def burn():
    began = time.process_time()
    while time.process_time() - began < 0.3:
        sum(range(1000))

async def main():
    sampler = profiling.install("router+worker-pool")
    os.kill(os.getpid(), signal.SIGUSR2)
    await asyncio.sleep(0.01)
    assert sampler.running
    burn()
    os.kill(os.getpid(), signal.SIGUSR2)
    await asyncio.sleep(0.01)
    assert not sampler.running
    burn()

asyncio.run(main())
"""


def test_a_process_writes_where_its_time_went_between_two_signals(tmp_path: Path) -> None:
    environment = {**os.environ, profiling.FOLDER_VARIABLE: str(tmp_path)}
    subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], env=environment, check=True, timeout=60)
    (file,) = tmp_path.glob("router+worker-pool-*.folded")
    lines = [line.rpartition(" ") for line in file.read_text().splitlines()]
    samples = sum(int(count) for _, _, count in lines)
    burning = sum(int(count) for stack, _, count in lines if stack.endswith(":burn"))
    assert burning > 0.9 * samples
    # 0.3 s of processor time and no more; a busy machine may skip some.
    assert 0.4 * 0.3 / profiling.SAMPLE_SECONDS < burning < 1.5 * 0.3 / profiling.SAMPLE_SECONDS


async def test_nothing_is_installed_that_was_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(profiling.FOLDER_VARIABLE, raising=False)
    assert profiling.install("router") is None
    assert not asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR2)
