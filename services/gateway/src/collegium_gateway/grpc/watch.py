"""A watched task as an iterator of events; what the events are is said in taskevents.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from collegium_contracts import subjects as s

from collegium_gateway.errors import ApiError
from collegium_gateway.tasks.events import TaskEvent, TaskEvents


class TaskWatch(TaskEvents):
    """Follows one task for one Watch call."""

    async def events(self) -> AsyncGenerator[TaskEvent, None]:
        """Yields events until the task is done; raises ApiError ``not_ready`` when the gateway stops before."""
        client = self._platform.connection.client
        sid = client.subscribe_raw(s.token(self._tenant, self._view.id), self._on_token)
        self._reader.start()
        replayed = asyncio.create_task(self._after_replay())
        placing = asyncio.create_task(self._tell_place())
        try:
            while (event := await self._queue.get()) is not None:
                yield event
                if event.event == "done":
                    return
            raise ApiError("not_ready", "the gateway is stopping; watch again", retry_after_seconds=1)
        finally:
            replayed.cancel()
            placing.cancel()
            client.unsubscribe_raw(sid)
            await self._reader.stop()

    def end(self) -> None:
        """Ends the iteration for a gateway that stops."""
        self._queue.put_nowait(None)
