"""Documents over HTTP: add, replace, list, show, remove, and follow how one is taken in.

Content is sealed here and goes to context with the question, or, where it is too large for a message, through the
object store. One rule: 202 means that the document is durable; that it is found is told by its state.
"""

from __future__ import annotations

import asyncio

import msgspec
from collegium_bus.claims import ClaimStore
from collegium_bus.errors import BusError
from collegium_contracts import knowledge as k
from collegium_contracts import subjects as s
from collegium_contracts.ids import DOCUMENT_ID
from collegium_runtime.platform import Platform
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from collegium_gateway.asking import ask_context
from collegium_gateway.errors import ApiError
from collegium_gateway.http import asgi
from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.knowledge import uploads
from collegium_gateway.knowledge.document_bodies import KINDS, Sent, document_view, sent
from collegium_gateway.knowledge.spool import MEMORY_BYTES, Spool
from collegium_gateway.knowledge.uploads import FORM, Upload, said_in_query

SCOPE = "knowledge"
# A message takes a megabyte; what is larger goes through the object store.
INLINE_BYTES_MAX = 256 * 1024
# A document keeps its text, sealed, with some overlap, and a vector for every few hundred letters of it.
KEPT_SHARE = 3
ADD_SECONDS = 30.0
# Tens of megabytes take the database some seconds, and many where others use it too.
BYTES_A_SECOND = 1_000_000
# Uploads that are in memory as a whole, twice over, while they are sealed and stored.
LARGE_AT_ONCE = 2
PAGE_MAX = 200
WAIT_SECONDS_MAX = 60.0
_LOOK_SECONDS = 0.05
_FOLLOW_SECONDS = 0.3
_KEEP_ALIVE_LOOKS = 50
_encode_json = msgspec.json.Encoder(order="deterministic").encode
_encode = msgspec.msgpack.Encoder().encode


class DocumentDoor:
    """The routes about documents."""

    def __init__(self, platform: Platform, directory: Directory) -> None:
        self._platform = platform
        self._directory = directory
        self._uploads = ClaimStore(platform.connection, s.UPLOADS_BUCKET)
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)

    def routes(self) -> list[Route]:
        """The routes of this door."""
        return [
            Route("/v1/documents", self._add, methods=["POST"]),
            Route("/v1/documents", self._list, methods=["GET"]),
            Route("/v1/documents/{id}", self._replace, methods=["PUT"]),
            Route("/v1/documents/{id}", self._get, methods=["GET"]),
            Route("/v1/documents/{id}", self._delete, methods=["DELETE"]),
            Route("/v1/documents/{id}/events", self._events, methods=["GET"]),
        ]

    def _principal(self, request: Request) -> Principal:
        principal = self._directory.keys.authenticate(request.headers.get("authorization"))
        principal.need(SCOPE)
        return principal

    async def _add(self, request: Request) -> Response:
        return await self._take_in(request, replaces=False)

    async def _replace(self, request: Request) -> Response:
        return await self._take_in(request, replaces=True)

    async def _take_in(self, request: Request, *, replaces: bool) -> Response:
        principal = self._principal(request)
        self._directory.need_storage(principal.tenant, principal.tier)
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        with Spool() as spool:
            if media == FORM or media in KINDS:
                question = await self._uploaded(request, principal, media, spool, replaces=replaces)
            else:
                body = await asgi.read_body(request.scope, request.receive, self._platform.settings.http.max_body_bytes)
                document = sent(media, body)
                question = await self._question(principal, document, document.content, replaces=replaces)
        if replaces:
            question = msgspec.structs.replace(question, document=_id_of(request))
        reply = await ask_context(
            self._platform,
            s.SVC_KNOWLEDGE_DOCUMENT_ADD,
            question,
            k.DocumentReply,
            timeout_seconds=ADD_SECONDS + spool.size / BYTES_A_SECOND,
        )
        row = await self._waited(principal, reply.document, _wait_seconds(request.headers.get("prefer")))
        status = 202 if row.state == "accepted" else 200
        return json_reply(self._view(principal, row), status, {"location": f"/v1/documents/{row.id}"})

    async def _uploaded(
        self, request: Request, principal: Principal, media: str, spool: Spool, *, replaces: bool
    ) -> k.DocumentAdd:
        """Reads a file piece by piece; few of them are whole in memory at a time."""
        scope, max_bytes = request.scope, self._platform.settings.http.max_upload_bytes
        if media == FORM:
            upload = await uploads.read_form(scope, request.receive, max_bytes, spool)
        else:
            uploads.check_charset(request.headers["content-type"])
            await uploads.read_body(scope, request.receive, max_bytes, spool)
            upload = said_in_query(media, dict(request.query_params))
        if not spool.is_on_disk:
            return await self._question(principal, upload, spool.read(), replaces=replaces)
        async with self._large:
            content = await asyncio.to_thread(spool.read)
            return await self._question(principal, upload, content, replaces=replaces)

    async def _question(
        self, principal: Principal, document: Sent | Upload, plain: bytes, *, replaces: bool
    ) -> k.DocumentAdd:
        tenant, keyring = principal.tenant, self._platform.keyring
        self._directory.need_storage(tenant, principal.tier, KEPT_SHARE * len(plain))
        # Sealing takes a millisecond a megabyte, and more where everybody else has to wait for it.
        content = (
            await asyncio.to_thread(keyring.seal, tenant, plain)
            if len(plain) > MEMORY_BYTES
            else keyring.seal(tenant, plain)
        )
        claim = ""
        sealed = None if len(content.body) > INLINE_BYTES_MAX else content
        if sealed is None:
            try:
                claim = await self._uploads.put(_encode(content))
            except BusError as error:
                raise ApiError("broker_unavailable", "the upload could not be stored; try again later") from error
        return k.DocumentAdd(
            tenant=tenant,
            document=document.id,
            project=principal.project,
            kind=document.kind,
            content=sealed,
            claim=claim,
            meta=keyring.seal(tenant, _encode_json(document.meta)),
            replaces=replaces,
        )

    async def _waited(self, principal: Principal, row: k.DocumentRow, seconds: float) -> k.DocumentRow:
        """Looks until the document is taken in, or the time that the client waits is over."""
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + seconds, _LOOK_SECONDS
        while row.state == "accepted" and loop.time() < until:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _FOLLOW_SECONDS)
            row = await self._row(principal, row.id)
        return row

    async def _list(self, request: Request) -> Response:
        principal = self._principal(request)
        query = request.query_params
        state = query.get("state") or None
        if state not in (None, "accepted", "indexed", "failed"):
            raise ApiError("invalid_value", "state is accepted, indexed or failed", param="state")
        limit = query.get("limit", "50")
        if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit) <= PAGE_MAX):
            raise ApiError("invalid_value", f"limit is from 1 to {PAGE_MAX}", param="limit")
        after = query.get("cursor", "")
        if after and not DOCUMENT_ID.match(after):
            raise ApiError("invalid_value", "cursor is a next_cursor of this list", param="cursor")
        question = k.DocumentList(tenant=principal.tenant, after=after, state=state, limit=int(limit))
        reply = await ask_context(self._platform, s.SVC_KNOWLEDGE_DOCUMENT_LIST, question, k.DocumentsReply)
        data = [self._view(principal, row) for row in reply.documents]
        return json_reply({"data": data, "next_cursor": reply.next_after or None})

    async def _get(self, request: Request) -> Response:
        principal = self._principal(request)
        return json_reply(self._view(principal, await self._row(principal, _id_of(request))))

    async def _row(self, principal: Principal, document: str) -> k.DocumentRow:
        question = k.DocumentGet(tenant=principal.tenant, document=document)
        return (await ask_context(self._platform, s.SVC_KNOWLEDGE_DOCUMENT_GET, question, k.DocumentReply)).document

    async def _delete(self, request: Request) -> Response:
        principal = self._principal(request)
        question = k.DocumentDelete(tenant=principal.tenant, document=_id_of(request))
        reply = await ask_context(self._platform, s.SVC_KNOWLEDGE_DOCUMENT_DELETE, question, k.DocumentReply)
        return json_reply({"id": reply.document.id, "deleted": True})

    async def _events(self, request: Request) -> Response:
        principal = self._principal(request)
        return _Following(self, principal, await self._row(principal, _id_of(request)))

    def _view(self, principal: Principal, row: k.DocumentRow) -> dict[str, object]:
        return document_view(row, principal.tenant, self._platform.keyring)

    async def follow(self, principal: Principal, row: k.DocumentRow, send: Send) -> None:
        """Sends an event for every change of a document until it is indexed, failed, or gone."""
        await asgi.start_events(send, [])
        told, looks = None, 0
        try:
            while True:
                shown = self._view(principal, row)
                if shown != told:
                    told, looks = shown, 0
                    await asgi.send_event(send, shown, event="state" if row.state == "accepted" else "done")
                if row.state != "accepted":
                    break
                looks += 1
                if looks % _KEEP_ALIVE_LOOKS == 0:
                    await send({"type": "http.response.body", "body": b": keep-alive\n\n", "more_body": True})
                await asyncio.sleep(_FOLLOW_SECONDS)
                row = await self._row(principal, row.id)
        except ApiError as error:
            await asgi.send_event(send, asgi.error_body(error))
        await asgi.end_events(send)


class _Following(Response):
    """A stream of events about one document."""

    def __init__(self, door: DocumentDoor, principal: Principal, row: k.DocumentRow) -> None:
        super().__init__()
        self._door = door
        self._asked = (principal, row)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends until the end, or until the client is gone."""
        following = asyncio.create_task(self._door.follow(*self._asked, send))
        gone = asyncio.create_task(_until_gone(receive))
        _, left = await asyncio.wait((following, gone), return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        await asyncio.gather(following, gone, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _id_of(request: Request) -> str:
    document: str = request.path_params["id"]
    if DOCUMENT_ID.match(document) is None:
        raise ApiError("not_found", f"there is no document {document!r}", param="id")
    return document


def _wait_seconds(prefer: str | None) -> float:
    name, _, value = (prefer or "").partition("=")
    if name.strip().lower() != "wait" or not (value.isascii() and value.isdecimal()):
        return 0.0
    return min(float(value), WAIT_SECONDS_MAX)
