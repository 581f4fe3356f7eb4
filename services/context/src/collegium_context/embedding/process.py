"""The bundled embedder's process, as context sees it: started when it is first needed, and again after it ended.

A process of its own because the library loads for half a second with the interpreter's lock held, because its work may
then stand behind everything that answers requests, and because a fault in native code must not end context. One rule:
what was asked of a process that ended is refused, and the next question starts another one.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import structlog
from collegium_children.child import Child, start
from collegium_settings.embeddings import BUNDLED_DIMENSIONS

from collegium_context.embedding.interface import Counted, EmbedderUnavailableError

log = structlog.get_logger(__name__)

START_SECONDS: Final = 60.0
# A process that ends at once must not be started over and over.
AGAIN_SECONDS: Final = 1.0
END_SECONDS: Final = 2.0
# A run takes some milliseconds; a process that is silent for so long has stopped, and is ended.
RUN_SECONDS: Final = 30.0

_Answer = tuple[int, bytes, list[int], str]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Answer).decode


class EmbedderProcess:
    """One process; :meth:`encode` may be called by several tasks at once."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[_Answer]] = {}
        self._process: Child | None = None
        self._reading: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._started_at = -AGAIN_SECONDS
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process's id, or none while there is none."""
        return self._process.pid if self._process is not None and self._process.runs else None

    async def encode(self, texts: Sequence[str]) -> Counted:
        """Embeds texts in one run; raises :class:`EmbedderUnavailableError`."""
        process = await self._ready()
        number = next(self._numbers)
        answered: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._asked[number] = answered
        try:
            body = _encode((number, texts))
            async with asyncio.timeout(RUN_SECONDS):
                await process.put(body)
                _, vectors, tokens, error = await answered
        except TimeoutError:
            log.error("the embedder's process is silent and is ended", seconds=RUN_SECONDS)
            process.kill()
            if self._reading is not None:
                await asyncio.wait((self._reading,), timeout=END_SECONDS)
            raise _ended() from None
        except (ConnectionError, RuntimeError):
            raise _ended() from None
        finally:
            self._asked.pop(number, None)
        if error:
            raise EmbedderUnavailableError(f"the bundled embedder failed: {error}")
        return Counted(np.frombuffer(vectors, dtype=np.float32).reshape(-1, BUNDLED_DIMENSIONS), tokens)

    async def close(self) -> None:
        """Ends the process; doing it twice is no error."""
        self._closed = True
        async with self._starting:
            process, self._process = self._process, None
            if process is not None:
                await process.close(END_SECONDS)
            if self._reading is not None:
                await asyncio.gather(self._reading, return_exceptions=True)

    async def _ready(self) -> Child:
        async with self._starting:
            if self._closed:
                raise EmbedderUnavailableError("the embedder is stopping")
            if self._process is None or self._reading is None or self._reading.done():
                await self._start()
            assert self._process is not None, "it was started, or an error was raised"
            return self._process

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._started_at + AGAIN_SECONDS - loop.time()))
        self._started_at = loop.time()
        self._process = process = await start("collegium_context.embedding.worker", str(self._threads))
        try:
            async with asyncio.timeout(START_SECONDS):
                _, _, _, error = _decode(await process.take())
        except (TimeoutError, asyncio.IncompleteReadError, msgspec.DecodeError):
            error = "it did not start"
        except BaseException:
            process.kill()
            raise
        if error:
            await process.end()
            self._process = None
            raise EmbedderUnavailableError(f"the bundled embedder: {error}")
        self._reading = asyncio.create_task(self._read(process), name="embedder-answers")

    async def _read(self, process: Child) -> None:
        try:
            while True:
                answer = _decode(await process.take())
                asked = self._asked.get(answer[0])
                if asked is not None and not asked.done():
                    asked.set_result(answer)
        except (asyncio.IncompleteReadError, msgspec.DecodeError, ConnectionError):
            process.kill()
            code = await process.wait()
            if not self._closed:
                log.error("the embedder's process ended; the next text starts another", code=code)
        finally:
            for asked in self._asked.values():
                if not asked.done():
                    asked.set_exception(_ended())


def _ended() -> EmbedderUnavailableError:
    return EmbedderUnavailableError("the bundled embedder's process ended; ask again")
