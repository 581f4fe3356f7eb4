"""What students are made of, in the workers: fetched where the roster names it, opened with its tenant's key.

It is checked whole before it is used; what is none is refused with an alarm, and the last good one goes on. Those that
were asked least lately make room, and come back when they are asked again. Not here: what one is (heads, prompts). One
rule: whatever stands in the store, only what the roster names is used, for the tenants that the roster states.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Final, Generic, NamedTuple, TypeVar

import structlog
from collegium_bus.claims import ClaimStore
from collegium_bus.errors import BusError
from collegium_bus.kv import Bucket, Entry
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope, UnknownKeyError, held
from collegium_contracts.errors import ContractError, TaskError
from collegium_contracts.state import Roster
from collegium_contracts.students import StudentKind, StudentOf
from collegium_learning.heads.head import BYTES_MAX
from collegium_runtime.platform import Platform
from msgspec import msgpack

from collegium_worker_pool.upstream.failures import CallFailed

log = structlog.get_logger(__name__)

# What those of a kind may take of a worker's memory together: some dozens of the largest.
MEMORY_BYTES: Final = 8 * BYTES_MAX
_open_envelope = msgpack.Decoder(Envelope).decode
T = TypeVar("T")


class Loaded(NamedTuple, Generic[T]):
    """What was made of content that was fetched under a claim, and how many bytes that was."""

    content: str
    made: T
    size: int


class Contents(ABC, Generic[T]):
    """The students of one kind of one worker, followed by a watch of the roster."""

    def __init__(self, platform: Platform, kind: StudentKind) -> None:
        self._platform = platform
        self._kind = kind
        self._store = ClaimStore(platform.connection, s.STUDENTS_BUCKET)
        self._watch = Bucket(platform.connection, s.KV_MODELS).watch(self._learn)
        self._named: dict[str, StudentOf] = {}
        self._loaded: OrderedDict[str, Loaded[T]] = OrderedDict()
        self._loading: dict[str, asyncio.Task[None]] = {}
        # By model the content that is none, which no second look makes one.
        self._bad: dict[str, str] = {}
        self._refused = platform.metrics.counters(
            f"collegium_{kind}s_refused_total",
            "Students that could not be used as they stand in the roster",
            ("cause",),
        )

    async def start(self) -> None:
        """Reads which there are, then follows."""
        await self._watch.start()

    async def stop(self) -> None:
        """Stops."""
        await self._watch.stop()
        for task in self._loading.values():
            task.cancel()
        await asyncio.gather(*self._loading.values(), return_exceptions=True)

    def named(self, model: str) -> str:
        """Returns the claim of the content that the roster names for a student, empty where it names none."""
        student = self._named.get(model)
        return student.content if student is not None else ""

    @abstractmethod
    def made_of(self, model: str, content: bytes) -> T:
        """Returns what content makes, called in a thread; raises ValueError where it is none."""

    async def _serving(self, model: str, student: StudentOf) -> T:
        loaded = self._loaded.get(model)
        if loaded is None and self._bad.get(model) != student.content:
            await asyncio.shield(self._load_soon(model, student))
            loaded = self._loaded.get(model)
        if loaded is None:
            raise away(model, "it could not be loaded")
        self._loaded.move_to_end(model)
        return loaded.made

    def _learn(self, entry: Entry) -> None:
        if entry.key != s.ROSTER_KEY:
            return
        try:
            roster = codec.state.decode(entry.value)
        except ContractError as error:
            log.error("roster unreadable, students stay as they are", kind=self._kind, error=str(error))
            return
        if not isinstance(roster, Roster):
            return
        self._named = {
            model.name: model.student
            for model in roster.models
            if model.enabled and model.student is not None and model.student.kind == self._kind
        }
        for known in (self._loaded, self._bad):
            for gone in known.keys() - self._named.keys():
                del known[gone]
        # Only what is asked here is kept fresh: this is read again every minute, and memory does not hold them all.
        for model, loaded in self._loaded.items():
            student = self._named[model]
            if student.content not in (loaded.content, self._bad.get(model)):
                self._load_soon(model, student)

    def _load_soon(self, model: str, student: StudentOf) -> asyncio.Task[None]:
        task = self._loading.get(model)
        if task is None:
            task = self._loading[model] = asyncio.create_task(self._load(model, student), name=f"{self._kind}-{model}")
            task.add_done_callback(lambda _done: self._loaded_now(model, student))
        return task

    def _loaded_now(self, model: str, student: StudentOf) -> None:
        self._loading.pop(model, None)
        newer = self._named.get(model)
        if newer is not None and newer.content != student.content:
            self._load_soon(model, newer)

    async def _load(self, model: str, student: StudentOf) -> None:
        """Loads one in the place of the last good one; whatever is wrong with it leaves that."""
        owner, sealed = student.tenants[0], None
        try:
            sealed = _open_envelope(await self._store.get(student.content))
            await held(self._platform.keyring, owner, sealed)
            content = self._platform.keyring.open(owner, sealed, f"student:{model}")
            made = await asyncio.to_thread(self.made_of, model, content)
        except (ContractError, BusError, ValueError) as error:
            self._refused[type(error).__name__].inc()
            is_late = isinstance(error, UnknownKeyError) and not self._platform.keyring.holds(owner, sealed)
            if not is_late and not isinstance(error, BusError):
                self._bad[model] = student.content
            log.error("student refused, the last good one stays", kind=self._kind, model=model, error=str(error))
            return
        self._bad.pop(model, None)
        self._loaded[model] = Loaded(student.content, made, len(content))
        while len(self._loaded) > 1 and sum(one.size for one in self._loaded.values()) > MEMORY_BYTES:
            self._loaded.popitem(last=False)
        log.info("student loaded", kind=self._kind, model=model, bytes=len(content))


def away(model: str, why: str) -> CallFailed:
    """Returns that a student cannot answer now."""
    return CallFailed(TaskError(code="head_unavailable", message=f"student {model} cannot answer now ({why})"))
