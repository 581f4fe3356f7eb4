"""The load that runs while something breaks: tasks and chats of one tenant, each remembered by what it was told.

A task counts as accepted when its 202 came, a chat when its answer came. What broke on the way is sent again under the
same idempotency key, so that one question makes one task. One rule: nothing that was accepted is forgotten.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import aiohttp

_PAUSE_SECONDS = 0.2
REQUEST_SECONDS = 90.0
# Refusals that say nothing of the question itself: it may be asked again.
_NOT_NOW: Final = (429, 503)


class _Question(NamedTuple):
    """One request: where to, its body, what answers it well, and the idempotency key of all its tries."""

    path: str
    body: dict[str, Any]
    good: tuple[int, ...]
    key: str


class Load:
    """Submits tasks and asks chats over HTTP, and remembers what came of each.

    ``http`` is asked before every request, because a gateway that was started again may be elsewhere. ``accepted``
    maps task ids to when they were (seconds of the monotonic clock); ``asked`` counts questions, ``refused`` refusals
    by status and code, ``uncertain`` requests that broke before their answer and were sent again under their key.
    """

    def __init__(self, http: Callable[[], str], key: str, *, seed: int = 1, deadline_seconds: float = 300) -> None:
        self._http = http
        self._chance = random.Random(seed)  # noqa: S311 - load, not secrets
        self._deadline_seconds = deadline_seconds
        self._headers = {"Authorization": f"Bearer {key}"}
        self._session: aiohttp.ClientSession | None = None
        self._clients: list[asyncio.Task[None]] = []
        self._finishing = False
        self.asked = 0
        self.accepted: dict[str, float] = {}
        self.refused: dict[str, int] = {}
        self.uncertain = 0

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        assert self._session is not None
        await self._session.close()

    async def submit(self, count: int, **fields: Any) -> list[str]:
        """Submits that many tasks at once, each until it is accepted; returns their ids."""
        return list(await asyncio.gather(*(self._until(self._task, fields) for _ in range(count))))

    async def ask(self, count: int, **fields: Any) -> list[str]:
        """Asks that many chats at once, each until it is answered; returns their task ids."""
        return list(await asyncio.gather(*(self._until(self._chat, fields) for _ in range(count))))

    def keep_going(self, *, tasks: int, chats: int, pause_seconds: float = 0.1) -> None:
        """Starts clients in closed loops, so many for tasks and so many for chats, until :meth:`stop`."""
        for make, count in ((self._task, tasks), (self._chat, chats)):
            self._clients += [asyncio.create_task(self._loop(make, pause_seconds)) for _ in range(count)]

    async def finish(self, *, deadline_seconds: float) -> bool:
        """Lets each client end its question and begin no other; false where that took too long."""
        self._finishing = True
        if self._clients:
            await asyncio.wait(self._clients, timeout=deadline_seconds)
        return all(client.done() for client in self._clients)

    async def stop(self) -> None:
        """Ends the clients; of a question that was under way it is not known whether it became a task."""
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._clients.clear()

    def _task(self, fields: dict[str, Any]) -> _Question:
        number = self._next()
        body = {"input": f"question {number}", "deadline_seconds": self._deadline_seconds, **fields}
        return _Question("/v1/tasks", body, (200, 202), f"load-{number}")

    def _chat(self, fields: dict[str, Any]) -> _Question:
        number = self._next()
        body = {
            "model": "auto",
            "messages": [{"role": "user", "content": f"question {number}"}],
            "collegium": {"deadline_seconds": min(60, self._deadline_seconds), "cache": "off"},
            **fields,
        }
        return _Question("/v1/chat/completions", body, (200,), f"load-{number}")

    def _next(self) -> int:
        self.asked += 1
        return self.asked

    async def _send(self, question: _Question) -> str | None:
        """Sends a question until its outcome is certain; returns its task's id, or none where it was refused."""
        while True:
            try:
                status, task_id, code = await self._once(question)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
                self.uncertain += 1
            else:
                if task_id:
                    self.accepted.setdefault(task_id, time.monotonic())
                    return task_id
                name = f"{status} {code}"
                self.refused[name] = self.refused.get(name, 0) + 1
                if status not in _NOT_NOW:
                    return None
            await asyncio.sleep(_PAUSE_SECONDS * self._chance.uniform(0.5, 1.5))

    async def _once(self, question: _Question) -> tuple[int, str, str]:
        assert self._session is not None
        headers = {"Idempotency-Key": question.key}
        async with self._session.post(self._http() + question.path, json=question.body, headers=headers) as response:
            if response.status in question.good:
                await response.read()
                return response.status, response.headers["x-collegium-task-id"], ""
            error = (await response.json(content_type=None) or {}).get("error", {})
            return response.status, "", error.get("code", "")

    async def _until(self, make: Callable[[dict[str, Any]], _Question], fields: dict[str, Any]) -> str:
        while True:
            if (task_id := await self._send(make(fields))) is not None:
                return task_id

    async def _loop(self, make: Callable[[dict[str, Any]], _Question], pause_seconds: float) -> None:
        while not self._finishing:
            await self._send(make({}))
            await asyncio.sleep(pause_seconds * self._chance.uniform(0.5, 1.5))
