"""Failpoints are quiet until armed, fire where and when they were told to, and once over restarts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from collegium_runtime import failpoints
from collegium_runtime.failpoints import FailpointSettingError, InjectedFaultError, failpoint

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def in_a_process(setting: str, done: Path, hits: int) -> subprocess.Popen[bytes]:
    code = (
        "import os\nfrom collegium_runtime import failpoints\nfailpoints.arm_from(os.environ)\n"
        f"for _ in range({hits}): failpoints.failpoint('billing.before-commit')\n"
    )
    environment = {**os.environ, failpoints.VARIABLE: setting, failpoints.DONE_VARIABLE: str(done)}
    return subprocess.Popen([sys.executable, "-c", code], env=environment)


def test_a_failpoint_that_is_not_armed_does_nothing():
    failpoint("billing.before-commit")
    failpoints.arm("billing.after-commit=error")
    failpoint("billing.before-commit")


def test_an_error_is_raised_at_the_hit_it_was_asked_for_and_at_no_other():
    failpoints.arm("billing.before-commit=error:2")
    failpoint("billing.before-commit")
    with pytest.raises(InjectedFaultError):
        failpoint("billing.before-commit")
    failpoint("billing.before-commit")


def test_a_delay_stalls_every_hit():
    failpoints.arm("billing.before-commit=delay:20")
    began = time.monotonic()
    failpoint("billing.before-commit")
    failpoint("billing.before-commit")
    assert time.monotonic() - began >= 0.04


def test_disarming_makes_it_quiet_again():
    failpoints.arm("billing.before-commit=error")()
    failpoint("billing.before-commit")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("billing.before-commit=explode", "'explode' is no action; accepted: kill, stop, delay, error"),
        ("billing.before-comit=kill", "'billing.before-comit' is no failpoint; there are"),
        ("billing.before-commit=delay", "write delay:N"),
        ("billing.before-commit=kill:0", "write kill:N with N above 0"),
        ("billing.before-commit=kill:soon", "write kill:N"),
        ("billing.before-commit", "'' is no action"),
    ],
)
def test_what_is_unknown_is_refused_and_nothing_is_armed(setting: str, says: str):
    with pytest.raises(FailpointSettingError, match="COLLEGIUM_FAILPOINTS") as refused:
        failpoints.arm(f"billing.after-commit=error,{setting}")
    assert says in str(refused.value)
    failpoint("billing.after-commit")


def test_a_kill_is_a_kill_and_happens_once_over_restarts(tmp_path: Path):
    assert in_a_process("billing.before-commit=kill:3", tmp_path, hits=2).wait() == 0
    assert in_a_process("billing.before-commit=kill:3", tmp_path, hits=3).wait() == -signal.SIGKILL
    assert [file.name for file in tmp_path.iterdir()] == ["billing.before-commit"]
    assert in_a_process("billing.before-commit=kill:3", tmp_path, hits=3).wait() == 0


def test_a_stopped_process_goes_on_when_it_is_continued(tmp_path: Path):
    process = in_a_process("billing.before-commit=stop", tmp_path, hits=1)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait() == 0


def test_every_name_stands_at_exactly_the_places_that_call_it():
    sources = [path.read_text() for path in ROOT.glob("services/*/src/**/*.py")]
    for name in failpoints.NAMES:
        assert any(f'failpoint("{name}")' in source for source in sources), f"nobody calls {name}"
