"""The process that owns the folder of the embedded store: takes its lock, opens it, answers questions on the broker.

Started by context with its own credentials (see child.py); it ends with its parent. One rule: one process owns a
folder, and another one is told so and changes nothing.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec
import structlog
import uvloop
from collegium_bus.connection import Connection
from collegium_children.frames import bodies
from collegium_contracts import subjects as s
from collegium_contracts.base import Message
from collegium_contracts.codec import encode
from collegium_contracts.errors import ContractError
from collegium_runtime.host import connect_as
from collegium_runtime.runtime_file import Runtime
from collegium_servers.model_process import die_with_parent
from collegium_settings import Settings
from collegium_settings.settings import NatsSettings
from collegium_telemetry.logs import bind_service, configure_logging

from collegium_context.vectors import wire
from collegium_context.vectors.embedded import scratch
from collegium_context.vectors.embedded.engine import Engine
from collegium_context.vectors.embedded.jobs import Jobs
from collegium_context.vectors.embedded.operating import Operator
from collegium_context.vectors.embedded.shards import Prepared, prepare
from collegium_context.vectors.embedded.shelf import Sizes
from collegium_context.vectors.interface import InvalidQuestionError, StoreLockedError, VectorStoreError

log = structlog.get_logger(__name__)

EXIT_LOCKED: Final = 75
ANSWER_BYTES_MAX: Final = 960 * 1024
# What clients ask for; the last token of the subject.
VERB: Final = "ask"


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What the parent tells on standard input."""

    folder: str
    parent: int
    nats: NatsSettings
    seed_file: str | None
    durability: str
    sizes: Sizes = Sizes()


def lock(folder: Path) -> int:
    """Takes the folder's lock and returns what holds it; raises StoreLockedError at once."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / scratch.LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreLockedError(
            f"{folder} is in use: another process owns this vector store; stop it, or use another data folder"
        ) from None
    return descriptor


def is_locked(folder: Path) -> bool:
    """Whether another process owns the folder now."""
    try:
        os.close(lock(folder))
    except StoreLockedError:
        return True
    return False


class Owner:
    """Answers questions with an engine, one turn of the loop each."""

    def __init__(self, connection: Connection, engine: Engine, jobs: Jobs, *, sync: bool) -> None:
        self._connection = connection
        self._engine = engine
        self._jobs = jobs
        self._operator = Operator(engine, jobs)
        self._sync = sync
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscription = 0
        self._writing = asyncio.Lock()

    async def start(self) -> None:
        """Subscribes."""
        self._subscription = self._connection.client.subscribe_raw(s.svc_vectors(VERB), self._on_question)
        await self._connection.flush()

    async def stop(self) -> None:
        """Answers what has come, and no more."""
        self._connection.client.unsubscribe_raw(self._subscription)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_question(self, _subject: bytes, reply: bytes, payload: bytes, _headers: bytes | None) -> None:
        task = asyncio.create_task(self._answer(reply.decode(), payload))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, reply: str, payload: bytes) -> None:
        try:
            answer = await self._do(wire.question.decode(payload))
        except (VectorStoreError, ContractError) as error:
            answer = wire.Failed(code=error.code, message=str(error))
        except Exception as error:  # whoever asked must get an answer whatever failed here
            log.error("question to the vector store failed", exc_info=error)
            answer = wire.Failed(code="vector_store_unavailable", message="the vector store failed; see its log")
        body = encode(answer)
        if len(body) > ANSWER_BYTES_MAX:
            refusal = "the answer is larger than a message may be; ask for fewer points, or without vectors"
            body = encode(wire.Failed(code=InvalidQuestionError.code, message=refusal))
        self._connection.publish(reply, body)

    async def _do(self, question: Message) -> Message:
        engine = self._engine
        match question:
            case wire.Look():
                return engine.look(question)
            case wire.Put():
                return wire.Done(count=await self._put(question))
            case wire.Drop():
                async with self._writing:
                    await self._drop(question)
                await self._synced(question.collection)
                return wire.Done()
            case wire.Count():
                return wire.Done(count=engine.count(question))
            case wire.Ensure():
                engine.ensure(question.spec)
                return wire.Done()
            case wire.Describe():
                return wire.Described(spec=engine.collection(question.collection).spec)
            case wire.Forget():
                await self._jobs.forget(question.tenant)
                return wire.Done()
            case wire.Unmake():
                await self._jobs.unmake(question.collection)
                return wire.Done()
            case wire.Ask():
                return wire.Told(body=msgspec.json.encode(await self._operator.do(question)))
            case _:
                raise InvalidQuestionError(f"{type(question).__name__} is not asked here")

    async def _put(self, question: wire.Put) -> int:
        batch = self._engine.collect(question)
        if not batch:
            return 0
        # One at a time, so that what was sent later also stands later; who searches is answered in between.
        async with self._writing:
            made: list[Prepared] = []
            for rows in batch:
                for step in prepare(question.tenant, rows):
                    if step is not None:
                        made.append(step)
                    await asyncio.sleep(0)
            self._engine.put(question, made)
        await self._synced(question.collection)
        return sum(len(rows) for rows in batch)

    async def _drop(self, question: wire.Drop) -> None:
        more = self._engine.drop(question)
        while more:
            await asyncio.sleep(0)  # others are answered between two pages
            more = self._engine.drop(question)

    async def _synced(self, collection: str) -> None:
        if self._sync:
            await self._engine.sync(collection)


async def _run(orders: Orders) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    scratch.clear(Path(orders.folder))
    scratch.sweep()
    engine = Engine(Path(orders.folder), orders.sizes)
    runtime = Runtime(credentials={"context": orders.seed_file} if orders.seed_file else {})
    connection = await connect_as("context", Settings(nats=orders.nats), runtime)
    jobs = Jobs(engine)
    jobs.start()
    owner = Owner(connection, engine, jobs, sync=orders.durability == "power")
    await owner.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await stopping.wait()
    await owner.stop()
    await jobs.stop()
    await connection.close()
    engine.close()
    scratch.clear(Path(orders.folder))


def main() -> int:
    """Owns a folder until a signal; returns the exit code."""
    orders = msgspec.json.decode(next(bodies(sys.stdin.buffer)), type=Orders)
    die_with_parent(orders.parent)
    configure_logging("context-vectors")
    bind_service("context-vectors")
    try:
        lock(Path(orders.folder))
    except StoreLockedError as error:
        log.warning("vector store locked", reason=str(error))
        return EXIT_LOCKED
    uvloop.run(_run(orders))
    return 0


if __name__ == "__main__":
    sys.exit(main())
