"""A model's own upstream quota: tokens in a rolling window, calls in a minute. Pure.

Every router hears the end of every call with the broker's time, so all of them hold the same windows; what is
dispatched and has not ended is counted by its bound, and what is left of a window is divided among the routers by
shares (shares.py), so that together they do not pass it. A window moves in steps of a small part of its length: a
call counts a step too long rather than too short. One rule: a model without limits costs nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from collegium_contracts.callnote import CallNote
from collegium_contracts.state import ModelRecord
from collegium_contracts.windows import QuotaWindow, QuotaWindows, WindowState

from collegium_router.limits.permits import Permits
from collegium_router.limits.shares import Need
from collegium_router.roster.bases import upstream_of

SLOTS: Final = 120
MINUTE_MS: Final = 60_000
# A window is divided among routers in so many parts.
PARTS: Final = 10_000
# As the estimate of a call without counts does it.
_BYTES_PER_TOKEN: Final = 4


class Load(NamedTuple):
    """What dispatching a task may cost its model at most: tokens and calls."""

    tokens: int
    calls: int


class Size(NamedTuple):
    """What a task's load follows from: the prompt, the bound that was asked for, choices a call, and attempts."""

    prompt_bytes: int
    max_tokens: int | None
    choices: int = 1
    attempts: int = 1


class Rolling:
    """A sum over the last ``window_ms``, in steps."""

    __slots__ = ("_newest", "_slots", "_step_ms", "_total", "window_ms")

    def __init__(self, window_ms: int) -> None:
        self.window_ms = window_ms
        self._step_ms = max(1, -(-window_ms // SLOTS))
        # One slot more than the window has: the newest is not over yet.
        self._slots = [0] * (SLOTS + 1)
        self._newest = 0
        self._total = 0

    def add(self, at_ms: int, amount: int) -> None:
        """Counts an amount at its time; one that is older than the window is not counted."""
        step = at_ms // self._step_ms
        self._move_to(step)
        if step > self._newest - len(self._slots):
            self._slots[step % len(self._slots)] += amount
            self._total += amount

    def used(self, now_ms: int) -> int:
        """Returns the sum as it is now."""
        self._move_to(now_ms // self._step_ms)
        return self._total

    def free_at_ms(self, now_ms: int, most: int) -> int:
        """Returns when the sum is at most ``most`` (Unix ms) if nothing more comes; now where it is."""
        left = self.used(now_ms)
        if left <= most:
            return now_ms
        for step in range(self._newest - len(self._slots) + 1, self._newest + 1):
            left -= self._slots[step % len(self._slots)]
            if left <= most:
                return (step + len(self._slots)) * self._step_ms
        return now_ms + self.window_ms

    def state(self, limit: int, now_ms: int) -> WindowState:
        """Returns the window as it is kept and shown, the oldest slot first."""
        used = self.used(now_ms)
        oldest = self._newest - len(self._slots) + 1
        slots = [self._slots[step % len(self._slots)] for step in range(oldest, self._newest + 1)]
        return WindowState(window_ms=self.window_ms, limit=limit, used=used, newest=self._newest, slots=slots)

    def load(self, state: WindowState) -> bool:
        """Takes over what was kept; false, and nothing taken, where it is of another length."""
        if state.window_ms != self.window_ms or len(state.slots) != len(self._slots) or min(state.slots) < 0:
            return False
        self._newest = state.newest
        oldest = self._newest - len(self._slots) + 1
        for index, amount in enumerate(state.slots):
            self._slots[(oldest + index) % len(self._slots)] = amount
        self._total = sum(state.slots)
        return True

    def _move_to(self, step: int) -> None:
        if step <= self._newest:
            return
        for passed in range(max(self._newest + 1, step - len(self._slots) + 1), step + 1):
            index = passed % len(self._slots)
            self._total -= self._slots[index]
            self._slots[index] = 0
        self._newest = step


class Windows:
    """The windows of one model: tokens, calls, either or both."""

    __slots__ = ("calls", "tokens")

    def __init__(self, model: ModelRecord) -> None:
        self.tokens = Rolling(model.token_window_seconds * 1000) if model.tokens_per_window is not None else None
        self.calls = Rolling(MINUTE_MS) if model.requests_per_minute is not None else None

    def count(self, note: CallNote, ended_ms: int) -> None:
        """Counts a finished call: its tokens at its end, the call itself at its beginning."""
        if self.tokens is not None:
            self.tokens.add(ended_ms, note.tokens)
        if self.calls is not None:
            self.calls.add(ended_ms - note.duration_ms, 1)

    def of(self, model: ModelRecord) -> list[tuple[Rolling, int, bool]]:
        """Returns each window that limits a model, its limit, and whether it counts calls."""
        found: list[tuple[Rolling, int, bool]] = []
        if self.tokens is not None and model.tokens_per_window is not None:
            found.append((self.tokens, model.tokens_per_window, False))
        if self.calls is not None and model.requests_per_minute is not None:
            found.append((self.calls, model.requests_per_minute, True))
        return found

    def fits(self, model: ModelRecord) -> bool:
        """Whether these are the windows of the model's limits as they are now."""
        window_ms = self.tokens.window_ms if self.tokens is not None else None
        wanted_ms = model.token_window_seconds * 1000 if model.tokens_per_window is not None else None
        return window_ms == wanted_ms and (self.calls is None) == (model.requests_per_minute is None)


class Book:
    """The windows of all limited models, counted up to one event of the stream; ``bases``: as whose a call counts."""

    def __init__(self, models: Iterable[ModelRecord], bases: Mapping[str, str] | None = None) -> None:
        self.bases = bases or {}
        self.windows = {model.name: Windows(model) for model in models}
        self.sequence = 0

    def count(self, sequence: int, ended_ms: int, note: CallNote) -> None:
        """Counts the call that an event ended; one that was counted before is not counted again."""
        if sequence <= self.sequence:
            return
        self.sequence = sequence
        windows = self.windows.get(self.bases.get(note.model, note.model))
        if windows is not None:
            windows.count(note, ended_ms)

    def load(self, kept: QuotaWindows) -> bool:
        """Goes on from what was kept; false, and to be thrown away, where a window is missing or another."""
        by_model = {one.model: one for one in kept.models}
        for name, windows in self.windows.items():
            one = by_model.get(name)
            if one is None:
                return False
            for rolling, state in ((windows.tokens, one.tokens), (windows.calls, one.calls)):
                if rolling is not None and (state is None or not rolling.load(state)):
                    return False
        self.sequence = kept.sequence
        return True


class Quotas:
    """What decides whether a limited model may be asked. ``parts_of`` is this router's share of a resource."""

    def __init__(self, permits: Permits, parts_of: Callable[[str], int]) -> None:
        self._permits = permits
        self._parts_of = parts_of
        self.limited: dict[str, ModelRecord] = {}
        self.book: Book | None = None
        self._waiting: list[tuple[int, int, CallNote]] | None = None

    def use_roster(self, models: Mapping[str, ModelRecord]) -> None:
        """Learns the models' limits as they are now."""
        self.limited = {
            name: model
            for name, model in models.items()
            if model.is_limited and model.enabled and upstream_of(model) == name
        }

    @property
    def gate(self) -> Quotas | None:
        """Itself where any model is limited, so that nobody else need ask."""
        return self if self.limited else None

    @property
    def is_behind(self) -> bool:
        """Whether a limited model has no window of its own yet."""
        if self.book is None:
            return bool(self.limited)
        windows = self.book.windows
        return any(name not in windows or not windows[name].fits(model) for name, model in self.limited.items())

    def hear(self, sequence: int, ended_ms: int, note: CallNote) -> None:
        """Counts the call that an event of now ended."""
        if self.book is not None:
            self.book.count(sequence, ended_ms, note)
        if self._waiting is not None:
            self._waiting.append((sequence, ended_ms, note))

    def begin_book(self) -> Book:
        """Returns an empty book to be filled from what was; meanwhile what is heard is kept for it."""
        self._waiting = []
        return Book(self.limited.values(), self._permits.bases)

    def use_book(self, book: Book) -> None:
        """Goes by a filled book from now on."""
        book.bases = self._permits.bases
        for sequence, ended_ms, note in self._waiting or ():
            book.count(sequence, ended_ms, note)
        self._waiting = None
        self.book = book

    def full_until_ms(self, model: ModelRecord, size: Size, now_ms: int) -> int:
        """Returns when a model's windows have a place for a task (Unix ms), 0 where they have one now.

        What is dispatched and has not ended is not looked at: it ends soon, and then it is known what it used.
        """
        windows = self.book.windows.get(upstream_of(model)) if self.book is not None and model.is_limited else None
        if windows is None:
            return 0
        load, until_ms = load_of(model, size), 0
        for rolling, limit, is_calls in windows.of(model):
            free_ms = rolling.free_at_ms(now_ms, limit - min(limit, load.calls if is_calls else load.tokens))
            if free_ms > now_ms:
                until_ms = max(until_ms, free_ms)
        return until_ms

    def has_room(self, model: ModelRecord, size: Size, now_ms: int) -> bool:
        """Whether a task fits this router's share of what is left, beside what is dispatched and has not ended.

        Until the windows are known there is no room.
        """
        if not model.is_limited:
            return True
        if self.book is None:
            return False
        name = upstream_of(model)
        windows = self.book.windows.get(name)
        if windows is None:
            return True
        parts, load = self._parts_of(quota_resource(name)), load_of(model, size)
        for rolling, limit, is_calls in windows.of(model):
            held = self._held(name, is_calls=is_calls)
            asked = min(limit, load.calls if is_calls else load.tokens)
            left = limit - rolling.used(now_ms)
            # What would not even fit this router's share of an empty window goes alone.
            alone = parts > 0 and held == 0 and asked > limit * parts // PARTS
            if held + asked > (left if alone else left * parts // PARTS):
                return False
        return True

    def needs(self, wanted: Callable[[str], int], now_ms: int) -> dict[str, Need]:
        """Returns each limited model's window as a resource; ``wanted`` says how many tasks wait for a model."""
        found: dict[str, Need] = {}
        for name, model in self.limited.items():
            windows = self.book.windows.get(name) if self.book is not None else None
            in_use = asked = 0
            held_calls = self._held(name, is_calls=True)
            for rolling, limit, is_calls in windows.of(model) if windows is not None else ():
                left = max(1, limit - rolling.used(now_ms))
                held = self._held(name, is_calls=is_calls)
                each = 1 if is_calls else max(1, held // held_calls if held_calls else model.max_output_tokens)
                in_use = max(in_use, min(PARTS, -(-held * PARTS // left)))
                asked = max(asked, min(PARTS, -(-(held + wanted(name) * each) * PARTS // left)))
            found[quota_resource(name)] = Need(PARTS, asked, in_use)
        return found

    def used_ratio(self, name: str, now_ms: int) -> float:
        """Returns how much of a model's tightest window is used."""
        windows = self.book.windows.get(name) if self.book is not None else None
        model = self.limited.get(name)
        if windows is None or model is None:
            return 0.0
        return max((rolling.used(now_ms) / max(1, limit) for rolling, limit, _ in windows.of(model)), default=0.0)

    def kept(self, now_ms: int) -> QuotaWindows | None:
        """Returns the windows as they are kept and shown; none where they are not known."""
        if self.book is None:
            return None
        found: list[QuotaWindow] = []
        for name, model in self.limited.items():
            windows = self.book.windows.get(name)
            if windows is None or not windows.fits(model):
                return None
            states = {is_calls: rolling.state(limit, now_ms) for rolling, limit, is_calls in windows.of(model)}
            found.append(QuotaWindow(model=name, tokens=states.get(False), calls=states.get(True)))
        return QuotaWindows(sequence=self.book.sequence, at_ms=now_ms, models=found)

    def _held(self, model: str, *, is_calls: bool) -> int:
        return self._permits.by_model[model] if is_calls else self._permits.tokens_by_model[model]


def load_of(model: ModelRecord, size: Size) -> Load:
    """Returns what a task may cost a model at most; the prompt is estimated."""
    return Load(tokens_of(model, size) * size.attempts, size.attempts)


def tokens_of(model: ModelRecord, size: Size) -> int:
    """Returns the tokens that one attempt may cost a model at most; the prompt is estimated."""
    bound = model.max_output_tokens if size.max_tokens is None else min(size.max_tokens, model.max_output_tokens)
    return -(-size.prompt_bytes // _BYTES_PER_TOKEN) + bound * max(1, size.choices)


def quota_resource(model: str) -> str:
    """Names a model's window among the resources."""
    return f"quota {model}"
