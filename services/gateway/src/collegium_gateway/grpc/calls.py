"""What every gRPC call goes through: who asks, the root span, and errors as canonical status codes.

One rule: a client is told by google.rpc.ErrorInfo what HTTP tells it by ``code``; a defect is logged and told as
``internal_error``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio
import msgspec
import structlog
from collegium_contracts.requests import Rates
from collegium_runtime.platform import Platform
from collegium_store import is_unstorable
from collegium_telemetry.hop import Hop
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as ProtoMessage
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from collegium_gateway.admission.holding import rate_headers
from collegium_gateway.admission.idempotency import HEADER, REPLAYED
from collegium_gateway.errors import ApiError, unstorable
from collegium_gateway.http.asgi import request_id
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.keywatch import ASKING, peer_scope
from collegium_gateway.identity.principal import Principal
from collegium_gateway.tasks.keyed import Asking

log = structlog.get_logger(__name__)

DOMAIN = "collegium"
DETAILS_KEY = "grpc-status-details-bin"
# Errors travel in HTTP/2 trailers, which clients bound at 8 KB for all of them, twice the message included.
MAX_MESSAGE_CHARS = 500
_STATUS = {code.name: code for code in grpc.StatusCode}

Reply = TypeVar("Reply")
Context = grpc.aio.ServicerContext[Any, Any]


class Method(msgspec.Struct, frozen=True):
    """One RPC: its full name, and the scope that a key needs for it."""

    name: str
    scope: str


class Call:
    """One call of a principal, under its root span."""

    def __init__(
        self, context: Context, principal: Principal, hop: Hop, request_id: str, method: str, key: str | None
    ) -> None:
        self._context = context
        self._request_id = request_id
        self._method = method
        self._key = key
        self.principal = principal
        self.hop = hop
        self.trailing: tuple[tuple[str, str], ...] = ()

    def asking(self, request: ProtoMessage) -> Asking | None:
        """Returns the request as its idempotency key knows it; none where it came without one."""
        if self._key is None:
            return None
        return Asking(self._key, "gRPC", self._method, request.SerializeToString(deterministic=True))

    def tell_rates(self, rates: Rates) -> None:
        """Notes the rates, named as over HTTP; they go out when the call ends, however it ends."""
        self.trailing = tuple((name.decode(), value.decode()) for name, value in rate_headers(rates))
        self._context.set_trailing_metadata(self.trailing)

    async def accept(self, task_id: str, *, replayed: bool = False) -> None:
        """Sends the initial metadata: the ids by which this call is found again, and whether it repeats another."""
        await self._context.send_initial_metadata(
            (
                ("x-request-id", self._request_id),
                ("traceparent", self.hop.traceparent),
                ("x-collegium-task-id", task_id),
                *(((REPLAYED, "true"),) if replayed else ()),
            )
        )


class Calls:
    """Lets calls in and turns what they raise into statuses."""

    def __init__(self, platform: Platform, directory: Directory) -> None:
        self._tracing = platform.tracing
        self._directory = directory
        self._keys = directory.keys

    async def run(self, context: Context, method: Method, work: Callable[[Call], Awaitable[Reply]]) -> Reply:
        """Returns what ``work`` returns, or aborts the call with the status of what it raised."""
        metadata: dict[str, str | bytes] = dict(context.invocation_metadata() or ())
        hop = self._tracing.root(method.name, "server", incoming_traceparent=_text(metadata.get("traceparent")))
        ASKING.set(peer_scope(context.peer(), method.name))
        call: Call | None = None
        try:
            if self._directory.tokens is not None:
                await self._directory.tokens.prepare(_text(metadata.get("authorization")))
            principal = self._keys.authenticate(_text(metadata.get("authorization")))
            principal.need(method.scope)
            key = _text(metadata.get(HEADER.decode()))
            call = Call(context, principal, hop, _request_id(metadata), method.name, key)
            return await work(call)
        except ApiError as error:
            hop.fail(error.code)
            refused = error
        except asyncio.CancelledError:
            hop.fail("client_disconnected")
            raise
        except Exception as error:  # the last line of defence of this door
            if is_unstorable(error):
                refused = unstorable()
            else:
                log.error("call failed", method=method.name, exc_info=error)
                refused = ApiError("internal_error", "the gateway failed on this call; its log says why")
            hop.fail(refused.code)
        finally:
            hop.end()
        return await refuse(context, refused, call.trailing if call is not None else ())


async def refuse(context: Context, error: ApiError, trailing: tuple[tuple[str, str], ...] = ()) -> NoReturn:
    """Aborts a call with an error's canonical status, its details, and further trailing metadata."""
    message = error.message[:MAX_MESSAGE_CHARS]
    code = _STATUS[error.kind.grpc_status]
    status = Status(code=code.value[0], message=message)
    known = {"param": (error.param or "")[:MAX_MESSAGE_CHARS], "task_id": error.task_id}
    reason = ErrorInfo(
        reason=error.shown_code, domain=DOMAIN, metadata={name: text for name, text in known.items() if text}
    )
    status.details.add().Pack(reason)
    if error.retry_after_seconds is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_after_seconds * 1000))
        status.details.add().Pack(RetryInfo(retry_delay=delay))
    await context.abort(code, message, ((DETAILS_KEY, status.SerializeToString()), *trailing))


def _text(value: str | bytes | None) -> str | None:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _request_id(metadata: dict[str, str | bytes]) -> str:
    given = _text(metadata.get("x-request-id"))
    return request_id({"headers": [(b"x-request-id", given.encode("latin-1", "replace"))] if given else []})
