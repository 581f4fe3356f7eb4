"""A place at an endpoint that takes so many calls at a time and no more.

One rule: a place is given back once, and by the end of the call at the latest.
"""

from __future__ import annotations

import asyncio


class Place:
    """One call's place; entered, it waits for one."""

    def __init__(self, permits: asyncio.Semaphore) -> None:
        self._permits = permits
        self._is_held = False

    async def __aenter__(self) -> Place:
        await self._permits.acquire()
        self._is_held = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.give_back()

    def give_back(self) -> None:
        """Lets the next call begin: the endpoint has said all, whatever else becomes of it."""
        if self._is_held:
            self._is_held = False
            self._permits.release()
