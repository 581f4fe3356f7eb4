"""Playing one answer: bytes, waits between them, and how it ends.

Here: `Step` and `Performance`, a little state machine on loop timers. Not here: what the bytes are.
The one rule: no task per call. An answer without waits is one write, in the same callback that read the request.

    play ──all steps written──> done | cut
      └─ step with a wait ──timer──> play
    client gone (any time) ──> aborted
"""

import asyncio
from collections.abc import Callable
from typing import Literal, NamedTuple

from collegium_testing.http1 import Http1Connection, chunk_bytes

Ending = Literal["whole", "cut", "hang"]


class Step(NamedTuple):
    """Bytes to send after a wait, and how many completion tokens they carry."""

    wait_seconds: float
    data: bytes
    tokens: int = 0


class Performance:
    """One answer under way.

    `ending` says what follows the last step: the proper end of the reply (`whole`), a closed connection (`cut`),
    or nothing for ever (`hang`). With a `head`, which is that of a chunked reply, the steps' bytes are framed as
    chunks; without one they hold the whole reply.
    """

    __slots__ = (
        "_chunked",
        "_connection",
        "_ending",
        "_head",
        "_next",
        "_on_abort",
        "_on_end",
        "_steps",
        "_timer",
        "sent_tokens",
    )

    def __init__(self, connection: Http1Connection, head: bytes, steps: list[Step], ending: Ending) -> None:
        self._connection = connection
        self._head = head
        self._steps = steps
        self._ending = ending
        self._chunked = bool(head)
        self._next = 0
        self._timer: asyncio.TimerHandle | None = None
        self.sent_tokens = 0

    def play(self, on_end: Callable[[], None], on_abort: Callable[[], None]) -> None:
        """Begins the answer; one of the callbacks runs, once: at the ending, or when the client goes first."""
        self._on_end, self._on_abort = on_end, on_abort
        self._connection.on_disconnect = self._gone
        self._go_on(waited=False)

    def _go_on(self, *, waited: bool) -> None:
        ready: list[bytes] = []
        steps = self._steps
        while self._next < len(steps):
            wait_seconds, data, tokens = steps[self._next]
            if wait_seconds > 0 and not waited:
                self._write(ready, last=False)
                self._timer = asyncio.get_running_loop().call_later(wait_seconds, self._wake)
                return
            waited = False
            ready.append(data)
            self.sent_tokens += tokens
            self._next += 1
        self._write(ready, last=True)
        self._end()

    def _wake(self) -> None:
        self._go_on(waited=True)

    def _write(self, ready: list[bytes], *, last: bool) -> None:
        data = b"".join(ready)
        if self._chunked and data:
            data = chunk_bytes(data)
        if self._chunked and last and self._ending == "whole":
            data += b"0\r\n\r\n"
        if data:
            # The head goes with the first bytes: a wait before them is a wait for the status line too.
            self._connection.write(self._head + data)
            self._head = b""

    def _end(self) -> None:
        if self._ending == "hang":
            return
        on_end = self._on_end
        self._forget()
        on_end()
        if self._ending == "cut":
            self._connection.cut()
        else:
            self._connection.finish()

    def _gone(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        on_abort = self._on_abort
        self._forget()
        on_abort()

    def _forget(self) -> None:
        # The callbacks know this object: letting go of them here spares the garbage collector a cycle per call.
        self._on_end = self._on_abort = _nothing


def _nothing() -> None:
    """Takes the place of callbacks that have run."""
