"""One answer that is written while rules read it: text in by ``feed``, gated text out by ``on_text``.

Rules read a window of the text (window.py) in a task of its own, so that nothing waits for them but what is held back.
What a rule takes out is taken out before it goes on, and tokens of the vault become words again. One rule: nothing goes
on that no rule has read, and after a block nothing goes on at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from collegium_contracts.gates import GateRule

from collegium_gates.checking import AskModel, Checking
from collegium_gates.configured import applying
from collegium_gates.deciding import Verdict, applied, restored
from collegium_gates.evaluating import WHOLE
from collegium_gates.units import Change, Segment, Unit
from collegium_gates.window import Window

OnText = Callable[[str], None]


def answer_unit(text: str) -> Unit:
    """Returns an answer's text as a unit."""
    return Unit(text, "assistant", (Segment((0,), 0, len(text)),))


def note_unit(text: str) -> Unit:
    """Returns what a prompt is told besides as a unit: read as what a tool said, as nobody asked for it."""
    return Unit(text, "tool", (Segment((0,), 0, len(text)),))


class GatedStream:
    """One streamed answer; ``gated`` is what rules let go, before words were put back."""

    def __init__(
        self,
        checking: Checking,
        rules: Sequence[GateRule],
        vault: Mapping[str, str],
        on_text: OnText,
        by_model: AskModel | None = None,
    ) -> None:
        self._checking = checking
        self._by_model = by_model
        self._rules = applying(rules, "answer")
        self._vault = vault
        self._on_text = on_text
        holds_all = any(rule.kind in WHOLE for rule in self._rules)
        self._window = Window(holds_all=holds_all, holds_tokens=bool(vault), reads=bool(self._rules))
        self._task: asyncio.Task[None] | None = None
        self._gated: list[str] = []
        self.verdict: Verdict | None = None

    @property
    def blocked(self) -> bool:
        """Whether a rule ended the answer."""
        return self.verdict is not None

    @property
    def gated(self) -> str:
        """What rules let go, with the vault's tokens as the model wrote them."""
        return "".join(self._gated)

    def feed(self, text: str) -> None:
        """Takes what the model wrote."""
        self._window.feed(text)
        if self._task is None and self._window.is_due and not self.blocked:
            self._task = asyncio.create_task(self._read(), name="gate-answer")

    async def finish(self) -> None:
        """Reads what is left and lets it go, or blocks."""
        if self._task is not None:
            await self._task
        if not self.blocked and self._window.held:
            await self._step(at_the_end=True)

    def close(self) -> None:
        """Reads no more; what is held back is gone."""
        if self._task is not None:
            self._task.cancel()

    async def _read(self) -> None:
        try:
            while self._window.is_due and not self.blocked:
                await self._step(at_the_end=False)
        finally:
            self._task = None

    async def _step(self, *, at_the_end: bool) -> None:
        window = self._window
        reading = window.reading
        boundary = len(window.held) if at_the_end else window.boundary()
        verdict = await self._checking.check(self._rules, [answer_unit(reading)], "answer", self._by_model)
        if verdict.block is not None:
            self.verdict = verdict
            return
        before = window.before
        end, changes = _cut(verdict.changes.get(0, ()), before, before + boundary)
        text = applied(reading[before:end], [Change(one.start - before, one.end - before, one.text) for one in changes])
        window.release(end - before)
        if text:
            self._gated.append(text)
            self._on_text(restored(text, self._vault))


def _cut(changes: Sequence[Change], before: int, end: int) -> tuple[int, list[Change]]:
    """Returns how far the text may go, and the changes within: a place that begins before the end goes whole or not."""
    kept: list[Change] = []
    for change in changes:
        if change.end <= before:
            continue
        if change.start >= end:
            break
        if change.end > end:
            # More of it may come.
            return max(before, change.start), kept
        kept.append(Change(max(change.start, before), change.end, change.text))
    return end, kept
