"""The load that runs while something breaks: tasks and chats of one tenant, each remembered by what it was told.

A task counts as accepted when its 202 came, a chat when its answer came; what broke on the way is uncertain: it may
stand or not, and is not asked for again under its old name. One rule: nothing that was accepted is forgotten.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import aiohttp

_PAUSE_SECONDS = 0.2
REQUEST_SECONDS = 90.0


class Load:
    """Submits tasks and asks chats over HTTP, and remembers what came of each.

    ``http`` is asked before every request, because a gateway that was started again may be elsewhere. ``accepted``
    maps task ids to when they were (seconds of the monotonic clock); ``answered`` are those of answered chats;
    ``refused`` counts refusals by status and code, ``uncertain`` requests that broke before their answer.
    """

    def __init__(self, http: Callable[[], str], key: str, *, seed: int = 1, deadline_seconds: float = 300) -> None:
        self._http = http
        self._chance = random.Random(seed)  # noqa: S311 - load, not secrets
        self._deadline_seconds = deadline_seconds
        self._headers = {"Authorization": f"Bearer {key}"}
        self._session: aiohttp.ClientSession | None = None
        self._clients: list[asyncio.Task[None]] = []
        self._number = 0
        self.accepted: dict[str, float] = {}
        self.answered: set[str] = set()
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
        return list(await asyncio.gather(*(self._until(self.task, fields) for _ in range(count))))

    async def ask(self, count: int, **fields: Any) -> list[str]:
        """Asks that many chats at once, each until it is answered; returns their task ids."""
        return list(await asyncio.gather(*(self._until(self.chat, fields) for _ in range(count))))

    def keep_going(self, *, tasks: int, chats: int, pause_seconds: float = 0.1) -> None:
        """Starts clients in closed loops, so many for tasks and so many for chats, until :meth:`stop`."""
        for work, count in ((self.task, tasks), (self.chat, chats)):
            self._clients += [asyncio.create_task(self._loop(work, pause_seconds)) for _ in range(count)]

    async def stop(self) -> None:
        """Ends the clients; a request that was under way is uncertain."""
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._clients.clear()

    async def task(self, fields: dict[str, Any]) -> str | None:
        """Submits one task; returns its id where it was accepted."""
        self._number += 1
        body = {"input": f"question {self._number}", "deadline_seconds": self._deadline_seconds, **fields}
        return await self._send("/v1/tasks", body, (200, 202))

    async def chat(self, fields: dict[str, Any]) -> str | None:
        """Asks one chat; returns its task's id where it was answered."""
        self._number += 1
        body = {
            "model": "auto",
            "messages": [{"role": "user", "content": f"question {self._number}"}],
            "collegium": {"deadline_seconds": min(60, self._deadline_seconds)},
            **fields,
        }
        task_id = await self._send("/v1/chat/completions", body, (200,))
        if task_id is not None:
            self.answered.add(task_id)
        return task_id

    async def _send(self, path: str, body: dict[str, Any], good: tuple[int, ...]) -> str | None:
        assert self._session is not None
        try:
            async with self._session.post(self._http() + path, json=body) as response:
                if response.status in good:
                    await response.read()
                    task_id = response.headers["x-collegium-task-id"]
                    self.accepted.setdefault(task_id, time.monotonic())
                    return task_id
                code = (await response.json(content_type=None) or {}).get("error", {}).get("code", "")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            self.uncertain += 1
            return None
        name = f"{response.status} {code}"
        self.refused[name] = self.refused.get(name, 0) + 1
        return None

    async def _until(self, work: Callable[[dict[str, Any]], Awaitable[str | None]], fields: dict[str, Any]) -> str:
        while True:
            task_id = await work(fields)
            if task_id is not None:
                return task_id
            await asyncio.sleep(_PAUSE_SECONDS * self._chance.uniform(0.5, 1.5))

    async def _loop(self, work: Callable[[dict[str, Any]], Awaitable[str | None]], pause_seconds: float) -> None:
        while True:
            done = await work({})
            await asyncio.sleep((pause_seconds if done else _PAUSE_SECONDS) * self._chance.uniform(0.5, 1.5))
