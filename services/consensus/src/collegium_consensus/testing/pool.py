"""The processes that run answers, as consensus sees them: started when needed, ended when they hang or did enough.

A tenant has one answer run at a time and few more waiting, so that nobody's endless loops keep others from being
tested. One rule: whoever has a place gets an answer in bounded time; whoever has none comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import DEVNULL
from collections import defaultdict
from collections.abc import Callable, Generator
from typing import Final

import msgspec
import structlog
from collegium_children.child import Child, start
from collegium_contracts.code_tests import CodeTest

from collegium_consensus.testing.child import (
    ANSWER_SECONDS,
    CALL_SECONDS,
    Checked,
    Question,
    decode_checked,
    encode_question,
)

log = structlog.get_logger(__name__)

PROCESSES: Final = 2
# Answers of one tenant that have a place, the one that is run included; where many tenants want one, each has one.
TENANT_PLACES: Final = 4
CROWDED: Final = 24
PLACES: Final = 48
# The first answer of a process waits until its interpreter is loaded.
START_SECONDS: Final = 30.0
# The bounds inside come first.
OUTER_SECONDS: Final = 2 * (ANSWER_SECONDS + CALL_SECONDS) + 2.0
# Then a process gives its place to another, whatever it has kept.
ANSWERS_MAX: Final = 500
CHECKED_BYTES_MAX: Final = 1_000_000


class _Child:
    """One process, and one answer at a time; ``is_busy`` from when it is asked until it has answered."""

    def __init__(self) -> None:
        self._process: Child | None = None
        self._number = 0
        self.is_busy = False

    async def check(self, text: str, tests: list[CodeTest], at_ms: int) -> Checked:
        """Returns what became of an answer; ``not_run`` where the process ended or had to be."""
        try:
            process, seconds = await self._ready()
            self._number += 1
            async with asyncio.timeout(seconds):
                return await self._asked(process, Question(self._number, text, tests, at_ms))
        except (TimeoutError, OSError, asyncio.IncompleteReadError, msgspec.DecodeError) as error:
            log.warning("a process that runs answers was ended", reason=type(error).__name__)
            await self.end()
            return Checked(self._number, "not_run", "crashed", 0)
        except BaseException:
            # What nobody waits for would be taken for the next answer's.
            await asyncio.shield(self.end())
            raise

    async def end(self) -> None:
        """Ends the process and whatever it started; doing it twice is no error."""
        process, self._process, self.is_busy = self._process, None, False
        if process is not None:
            await process.end()

    async def _asked(self, process: Child, question: Question) -> Checked:
        self.is_busy = True
        await process.put(encode_question(question))
        checked = decode_checked(await process.take(CHECKED_BYTES_MAX))
        if checked.number != question.number:
            raise OSError("it answered something else")
        self.is_busy = False
        return checked

    async def _ready(self) -> tuple[Child, float]:
        if self._process is not None and self._number >= ANSWERS_MAX:
            await self.end()
        if self._process is not None and self._process.runs:
            return self._process, OUTER_SECONDS
        self._number = 0
        self._process = await start("collegium_consensus.testing.child", leads=True, words=DEVNULL)
        return self._process, START_SECONDS + OUTER_SECONDS


class Turn:
    """A tenant's turn, and how many of its answers have a place."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.places = 0


class Pool:
    """All processes of one consensus. ``close`` ends them."""

    def __init__(self, processes: int = PROCESSES) -> None:
        self._children = [_Child() for _ in range(processes)]
        # Last in, first out: a second process is started when one is busy, and not before.
        self._free: asyncio.LifoQueue[_Child] = asyncio.LifoQueue()
        for child in reversed(self._children):
            self._free.put_nowait(child)
        self._turns: defaultdict[str, Turn] = defaultdict(Turn)
        self._places = 0

    @contextlib.contextmanager
    def place(self, tenant: str) -> Generator[Turn | None]:
        """Gives an answer of a tenant a place, or none where the tenant or all have theirs."""
        turn = self._turns[tenant]
        most = TENANT_PLACES if self._places < CROWDED else 1
        if turn.places >= most or self._places >= PLACES:
            if not turn.places:
                del self._turns[tenant]
            yield None
            return
        turn.places += 1
        self._places += 1
        try:
            yield turn
        finally:
            turn.places -= 1
            self._places -= 1
            if not turn.places:
                del self._turns[tenant]

    async def check(
        self, turn: Turn, text: str, tests: list[CodeTest], at_ms: int, is_late: Callable[[], bool]
    ) -> Checked:
        """Runs an answer that has a place against tests when its turn comes; ``late`` where that is too late."""
        async with turn.lock:
            child = await self._free.get()
            try:
                if is_late():
                    return Checked(0, "not_run", "late", 0)
                return await child.check(text, tests, at_ms)
            finally:
                self._free.put_nowait(child)

    async def close(self) -> None:
        """Ends the processes."""
        await asyncio.gather(*(child.end() for child in self._children))
