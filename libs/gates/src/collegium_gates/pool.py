"""The processes that evaluate heavy rules, as a service sees them: started when needed, ended when they hang.

A process of their own because libraries load for seconds and calculate with the interpreter's lock held, and because
nothing else bounds how long a rule takes. A rule that outlasts its time costs its process; the rules after it are asked
of another one. One rule: whoever asks gets an answer for every rule, in bounded time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog
from collegium_children.child import Child, start
from collegium_contracts.gates import GateRule

from collegium_gates.child import BEGUN, Answer, Question, decode_answer, encode_question
from collegium_gates.finding import Findings
from collegium_gates.units import Unit

log = structlog.get_logger(__name__)

PROCESSES: Final = 2
START_SECONDS: Final = 60.0
# Questions that wait for a process; beyond it a rule counts as not evaluated at once.
MAX_WAITING: Final = 256
WAIT_SECONDS: Final = 10.0
# A rule may take its time for so many characters, and as much again for as many more.
CHARACTERS_IN_TIME: Final = 50_000

Result = Findings | str


class _GoneError(Exception):
    """The process ended, or was ended; the message says why."""


class _Child:
    """One process, and one question at a time."""

    def __init__(self) -> None:
        self._process: Child | None = None
        self._number = 0

    async def ask(self, rules: Sequence[GateRule], units: Sequence[Unit]) -> list[Result]:
        """Returns findings or failures; as many as came before the process had to be ended, at least one."""
        results: list[Result] = []
        try:
            process = await self._ready()
            self._number += 1
            await process.put(encode_question(Question(self._number, list(rules), list(units))))
            await self._next(process, BEGUN, START_SECONDS)
            for index, rule in enumerate(rules):
                answer = await self._next(process, index, limit_seconds(rule, units))
                results.append(answer.failure if answer.findings is None else answer.findings)
        except (_GoneError, ConnectionError, OSError, RuntimeError) as error:
            await self.end()
            why = str(error) if isinstance(error, _GoneError) else "its process ended"
            log.warning("a gate's process was ended", rule=rules[len(results)].name, reason=why)
            results.append(why)
        except asyncio.CancelledError:
            # An answer that nobody waits for would be taken for the next question's.
            await asyncio.shield(self.end())
            raise
        return results

    async def end(self) -> None:
        """Ends the process; doing it twice is no error."""
        process, self._process = self._process, None
        if process is not None:
            await process.end()

    async def _ready(self) -> Child:
        if self._process is None or not self._process.runs:
            self._process = await start("collegium_gates.child", threads=1)
        return self._process

    async def _next(self, process: Child, index: int, seconds: float) -> Answer:
        try:
            async with asyncio.timeout(seconds):
                answer = decode_answer(await process.take())
        except TimeoutError:
            raise _GoneError(f"it took longer than {seconds:g} s") from None
        except (asyncio.IncompleteReadError, msgspec.DecodeError):
            raise _GoneError("its process ended") from None
        if (answer.number, answer.index) != (self._number, index):
            raise _GoneError("its process answered something else")
        return answer


def limit_seconds(rule: GateRule, units: Sequence[Unit]) -> float:
    """Returns how long a rule may take on units."""
    return rule.timeout_ms / 1000 * (1 + sum(len(unit.text) for unit in units) // CHARACTERS_IN_TIME)


class Pool:
    """All processes of one service. ``close`` ends them."""

    def __init__(self, processes: int = PROCESSES) -> None:
        self._children = [_Child() for _ in range(processes)]
        # Last in, first out: a second process is started when one is busy, and not before.
        self._free: asyncio.LifoQueue[_Child] = asyncio.LifoQueue()
        for child in reversed(self._children):
            self._free.put_nowait(child)
        self._waiting = 0
        self._closed = False

    async def evaluate(self, rules: Sequence[GateRule], units: Sequence[Unit]) -> list[Result]:
        """Returns for each rule what it found, or in words why it could not be evaluated."""
        results: list[Result] = []
        while len(results) < len(rules):
            child = await self._take()
            if isinstance(child, str):
                return [*results, *[child] * (len(rules) - len(results))]
            try:
                results += await child.ask(rules[len(results) :], units)
            finally:
                self._free.put_nowait(child)
        return results

    async def close(self) -> None:
        """Ends the processes."""
        self._closed = True
        await asyncio.gather(*(child.end() for child in self._children))

    async def _take(self) -> _Child | str:
        if self._closed:
            return "the service is stopping"
        if self._waiting >= MAX_WAITING:
            return "too many wait for a process"
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_SECONDS + START_SECONDS):
                return await self._free.get()
        except TimeoutError:
            return "no process was free in time"
        finally:
            self._waiting -= 1
