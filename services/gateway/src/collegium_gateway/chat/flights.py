"""One call for identical requests at a time: whoever comes first makes it, the others wait for its answer.

A flight ends with an answer, which all its followers get, or without one, and then each of them looks again: the first
to do so makes the call in its stead. One rule: a follower that goes away ends nothing, and a leader that goes away
fails nobody.
"""

from __future__ import annotations

import asyncio
from typing import Final

from collegium_contracts.state import CachedAnswer

# Beyond it a request makes its own call, as it would without a cache.
MAX_FOLLOWERS: Final = 10_000


class Flights:
    """The calls under way, by the digest of what they are asked."""

    def __init__(self) -> None:
        self._flights: dict[bytes, list[asyncio.Future[CachedAnswer | None]]] = {}
        self.followers = 0

    def lead(self, digest: bytes) -> bool:
        """Begins a flight; false where one is under way."""
        if digest in self._flights:
            return False
        self._flights[digest] = []
        return True

    def land(self, digest: bytes, answer: CachedAnswer | None) -> None:
        """Ends the flight that the caller leads."""
        for waiting in self._flights.pop(digest, ()):
            if not waiting.done():
                waiting.set_result(answer)

    async def follow(self, digest: bytes, seconds: float) -> CachedAnswer | None:
        """Returns the answer of the flight under way, or none: it brought none, or too many wait already.

        Raises TimeoutError after ``seconds``.
        """
        waiting = self._flights.get(digest)
        if waiting is None or self.followers >= MAX_FOLLOWERS:
            return None
        # One future a follower: a shared one would be canceled for all with the first who goes away.
        own: asyncio.Future[CachedAnswer | None] = asyncio.get_running_loop().create_future()
        waiting.append(own)
        self.followers += 1
        try:
            async with asyncio.timeout(seconds):
                return await own
        finally:
            self.followers -= 1
            if own in waiting:
                waiting.remove(own)
