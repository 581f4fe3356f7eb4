"""Failpoints: named places at which a process may be made to die, stop, stall or fail, for tests of what follows.

A service calls :func:`failpoint` where a fault tells most; nothing happens until a process is started with
``COLLEGIUM_FAILPOINTS``, a comma-separated list of ``name=action``:

    billing.before-commit=kill:3     kill -9 of the own process at the third hit (without a number: at the first)
    worker-pool.during-call=stop     SIGSTOP of the own process; whoever watches it continues it
    consensus.after-settle=delay:500 every hit stalls the whole process, event loop included, for so many milliseconds
    context.before-commit=error:2    the second hit raises InjectedFaultError

Where ``COLLEGIUM_FAILPOINTS_DONE`` names a folder, a failpoint that is about to kill, stop or fail leaves an empty file
of its name there first, and one that finds such a file stays quiet: so a fault happens once, however often a supervisor
starts the process again, and whoever waits for it sees that it happened. One rule: when off, a failpoint costs one look
at a module's variable.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

VARIABLE: Final = "COLLEGIUM_FAILPOINTS"
DONE_VARIABLE: Final = "COLLEGIUM_FAILPOINTS_DONE"
ACTIONS: Final = ("kill", "stop", "delay", "error")

NAMES: Final = (
    "gateway.before-submit",
    "gateway.after-submit",
    "gateway.before-accepted",
    "gateway.after-pause",
    "gateway.before-input",
    "gateway.after-input",
    "router.after-receive",
    "router.before-dispatch",
    "router.after-dispatch",
    "router.before-again",
    "router.after-again",
    "router.before-purge",
    "worker-pool.after-claim",
    "worker-pool.after-started",
    "worker-pool.during-call",
    "worker-pool.after-result",
    "worker-pool.before-ack",
    "consensus.before-ask",
    "consensus.after-note",
    "consensus.after-ask",
    "router.after-draw",
    "consensus.before-compare",
    "consensus.after-compare",
    "consensus.before-tested",
    "consensus.after-tested",
    "consensus.before-settle",
    "consensus.after-settle",
    "consensus.before-pause",
    "consensus.after-pause",
    "consensus.before-input",
    "consensus.after-input",
    "billing.before-commit",
    "billing.after-commit",
    "context.before-commit",
    "context.after-commit",
    "context.before-accept",
    "context.after-accept",
    "context.after-points",
    "context.before-indexed",
    "context.before-switch",
    "context.after-switch",
    "context.after-anew",
    "context.before-generation",
    "evolution.before-commit",
    "evolution.after-commit",
    "evolution.before-fit",
    "evolution.after-fit",
    "evolution.after-keep",
    "evolution.after-publish",
    "evolution.after-rank",
    "evolution.before-note",
)


class FailpointSettingError(ValueError):
    """``COLLEGIUM_FAILPOINTS`` names an unknown place or action, or a number that is none."""

    code = "invalid_failpoints"


class InjectedFaultError(Exception):
    """What the action ``error`` raises; no caller expects it, as with any defect."""

    code = "injected_fault"


class _Point:
    """One armed failpoint: its action and what is left of its count."""

    def __init__(self, name: str, action: str, number: int, done: Path | None) -> None:
        self._name = name
        self._action = action
        self._number = number
        self._done = done
        self._hits = 0

    def hit(self) -> None:
        if self._action == "delay":
            time.sleep(self._number / 1000)
            return
        self._hits += 1
        if self._hits != self._number or not self._first():
            return
        if self._action == "error":
            raise InjectedFaultError(f"failpoint {self._name}: hit {self._hits}")
        os.kill(os.getpid(), signal.SIGKILL if self._action == "kill" else signal.SIGSTOP)

    def _first(self) -> bool:
        if self._done is None:
            return True
        try:
            (self._done / self._name).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


_armed: dict[str, _Point] | None = None


def failpoint(name: str) -> None:
    """Does what was armed for this place; nothing where nothing was."""
    if _armed is not None and (point := _armed.get(name)) is not None:
        point.hit()


def arm(setting: str, *, done: Path | None = None) -> Callable[[], None]:
    """Arms what a setting names, in place of all that was armed; returns what disarms it again.

    Raises FailpointSettingError for what is unknown, and arms nothing then.
    """
    global _armed  # noqa: PLW0603 - the one look that a failpoint costs when off
    points = _parse(setting, done)
    _armed = points or None

    def disarm() -> None:
        global _armed  # noqa: PLW0603
        _armed = None

    return disarm


def arm_from(environ: Mapping[str, str]) -> None:
    """Arms what the environment names; raises FailpointSettingError for what is unknown."""
    done = environ.get(DONE_VARIABLE)
    arm(environ.get(VARIABLE, ""), done=Path(done) if done else None)


def _parse(setting: str, done: Path | None) -> dict[str, _Point]:
    points: dict[str, _Point] = {}
    for part in filter(None, (part.strip() for part in setting.split(","))):
        name, _, what = part.partition("=")
        action, colon, number = what.partition(":")
        if name not in NAMES:
            raise FailpointSettingError(f"{VARIABLE}: {name!r} is no failpoint; there are {', '.join(NAMES)}")
        if action not in ACTIONS:
            raise FailpointSettingError(f"{VARIABLE}: {name}: {action!r} is no action; accepted: {', '.join(ACTIONS)}")
        if not colon and action != "delay":
            number = "1"
        if not (number.isascii() and number.isdigit() and int(number) > 0):
            raise FailpointSettingError(f"{VARIABLE}: {name}={what}: write {action}:N with N above 0")
        points[name] = _Point(name, action, int(number), done)
    return points
