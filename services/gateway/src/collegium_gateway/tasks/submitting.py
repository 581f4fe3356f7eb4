"""``POST /v1/tasks``: plain ASGI like a chat, because queues are filled by thousands of small requests.

One rule: the answer comes after the task and its acceptance are stored, so that what was told of is found.
"""

from __future__ import annotations

import re

from collegium_runtime.platform import Platform
from collegium_telemetry.hop import Hop

from collegium_gateway.admission.admission import asked_by_task
from collegium_gateway.admission.idempotency import HEADER
from collegium_gateway.admission.requests import decode_task, options_of, parse
from collegium_gateway.chat.door import adding, describe
from collegium_gateway.errors import ApiError
from collegium_gateway.http import asgi
from collegium_gateway.http.asgi import Headers, Receive, Scope, Send
from collegium_gateway.http.keyed import REPLAYED_HEADER
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.readmodel.rows import TERMINAL
from collegium_gateway.tasks.application import Tasks
from collegium_gateway.tasks.keyed import Asking, KeyedTask, KeyedTasks
from collegium_gateway.tasks.views import view_headers

MAX_WAIT_SECONDS = 300.0
_PREFER_WAIT = re.compile(r"\bwait=(\d{1,4})\b")


class SubmitDoor:
    """The submitting endpoint as an ASGI callable."""

    def __init__(self, platform: Platform, directory: Directory, tasks: Tasks, keyed: KeyedTasks) -> None:
        self._platform = platform
        self._directory = directory
        self._tasks = tasks
        self._keyed = keyed
        self._max_body_bytes = platform.settings.http.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        hop, common = asgi.begin(self._platform.tracing, scope, "POST /v1/tasks")
        principal: Principal | None = None
        try:
            principal = self._directory.keys.authenticate(asgi.header(scope, b"authorization"))
            await self._submit(principal, scope, receive, send, hop, common)
        except ApiError as error:
            hop.fail(error.code)
            common += self._tasks.admission.standing_headers(principal, common)
            await asgi.send_error(send, error, common)
        finally:
            hop.end()

    async def _submit(
        self, principal: Principal, scope: Scope, receive: Receive, send: Send, hop: Hop, common: Headers
    ) -> None:
        principal.need("tasks")
        body = await asgi.read_body(scope, receive, self._max_body_bytes)
        task_request = parse(decode_task, body)
        asked = asked_by_task(task_request, options_of(task_request))
        wait_seconds = _seconds(asgi.header(scope, b"prefer"))
        submitted = self._tasks.prepare(principal, asked, waits=wait_seconds > 0)
        keyed: KeyedTask | None = None
        if (key := asgi.header(scope, HEADER)) is not None:
            asking = Asking(key, "POST", scope["path"], body)
            keyed = await self._keyed.begin(principal, asking, submitted, hop, callback_url=asked.callback_url)
            submitted = keyed.submitted
            if keyed.replayed:
                common.append(REPLAYED_HEADER)
        if hop.sampled:
            describe(hop, submitted)
        if keyed is None:
            view = await self._tasks.submit(
                submitted, hop, wait_seconds=wait_seconds, callback_url=asked.callback_url, on_rates=adding(common)
            )
        else:
            view = await keyed.submit(hop, wait_seconds=wait_seconds, on_rates=adding(common))
        common.append((b"location", f"/v1/tasks/{view.id}".encode()))
        common += [(name.encode(), value.encode("latin-1")) for name, value in view_headers(view).items()]
        await asgi.send_json(send, 200 if view.state in TERMINAL else 202, view, common)


def _seconds(prefer: str | None) -> float:
    """Returns how long the client wants to wait, by its ``Prefer`` header."""
    match = _PREFER_WAIT.search(prefer) if prefer is not None else None
    return min(float(match.group(1)), MAX_WAIT_SECONDS) if match is not None else 0.0
