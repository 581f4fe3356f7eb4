"""Questions about searches: search, profiles. One rule: what is asked is checked before anything is read."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import msgspec
from collegium_bus.errors import RequestRefusedError
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope, Keyring, UnknownKeyError, held
from collegium_contracts.ids import TENANT_ID, USER_ID
from collegium_contracts.knowledge import (
    ProfileGet,
    ProfileReply,
    ProfileSet,
    ProfileWeights,
    SearchAsked,
    SearchReply,
    SearchRequest,
)
from collegium_contracts.messages import Message
from collegium_contracts.scope import Scope
from collegium_runtime.spans import received
from collegium_store import is_transient
from collegium_telemetry import names
from collegium_telemetry.tracing import Tracing

from collegium_context.search import filtering, profiles
from collegium_context.search.searching import Searching
from collegium_context.search.store import SearchStore
from collegium_context.telemetry import SPAN_SEARCH

_HOP = received(s.SVC_KNOWLEDGE_SEARCH)
LIMIT_MAX = 100
QUERY_CHARS_MAX = 4_000
QUERIES_MAX = 8
BUDGET_TOKENS_MAX = 1_000_000

_decode_asked = msgspec.json.Decoder(SearchAsked).decode
_decode_weights = msgspec.json.Decoder(ProfileWeights).decode
_encode = msgspec.json.Encoder().encode
Q = TypeVar("Q", bound=Message)
A = TypeVar("A")


class SearchQuestions:
    """Answers what the gateway asks about searches."""

    def __init__(self, searching: Searching, store: SearchStore, keyring: Keyring, tracing: Tracing) -> None:
        self._searching = searching
        self._store = store
        self._keyring = keyring
        self._tracing = tracing

    async def search(self, question: Message, traceparent: str) -> Message:
        """Searches a tenant's documents."""
        with self._tracing.hop(SPAN_SEARCH, "server", traceparent, _HOP) as hop:
            request = _expected(question, SearchRequest)
            hop.set(names.TENANT, request.tenant)
            scope = Scope(request.tenant)
            asked = _decode_or_refuse(_decode_asked, await self._open(request.tenant, request.asked), "query")
            _check(asked)
            profile = await self._profile(scope, asked.user) if asked.user else None
            answer, is_cached = await _from_database(self._searching.search(scope, asked, profile))
            return SearchReply(
                results=self._keyring.seal(request.tenant, _encode(answer.results)),
                found=len(answer.results),
                mode=answer.mode,
                degraded=answer.degraded,
                weight=answer.weight,
                knowledge_version=answer.knowledge_version,
                tokens=answer.tokens,
                is_cached=is_cached,
                reranked=answer.reranked,
            )

    async def set_profile(self, question: Message, _traceparent: str) -> Message:
        """Keeps a user's profile, or forgets it."""
        asked = _expected(question, ProfileSet)
        _check_user(asked.user)
        if asked.weights is not None:
            weights = _decode_or_refuse(_decode_weights, await self._open(asked.tenant, asked.weights), "weights")
            if problem := profiles.problem_of(weights):
                raise RequestRefusedError("invalid_value", problem, "weights")
        await _from_database(self._store.set_profile(Scope(asked.tenant), asked.user, asked.weights))
        return ProfileReply(user=asked.user, weights=asked.weights)

    async def get_profile(self, question: Message, _traceparent: str) -> Message:
        """Shows a user's profile."""
        asked = _expected(question, ProfileGet)
        _check_user(asked.user)
        kept = await _from_database(self._store.profile(Scope(asked.tenant), asked.user))
        return ProfileReply(user=asked.user, weights=kept)

    async def _profile(self, scope: Scope, user: str) -> ProfileWeights | None:
        _check_user(user)
        kept = await _from_database(self._store.profile(scope, user))
        return None if kept is None else _decode_weights(await self._open(scope.tenant, kept))

    async def _open(self, tenant: str, envelope: Envelope) -> bytes:
        try:
            await held(self._keyring, tenant, envelope)
            return self._keyring.open(tenant, envelope)
        except UnknownKeyError as error:
            raise RequestRefusedError("invalid_value", "the question cannot be opened", "query") from error


def _decode_or_refuse(decode: object, body: bytes, param: str):
    try:
        return decode(body)  # pyright: ignore[reportCallIssue, reportUnknownVariableType]
    except msgspec.DecodeError as error:
        raise RequestRefusedError("invalid_value", "not of the shape that is asked for", param) from error


def _expected(question: Message, kind: type[Q]) -> Q:
    if not isinstance(question, kind):
        raise RequestRefusedError("invalid_value", f"{type(question).__name__} is not asked here")
    if not TENANT_ID.match(getattr(question, "tenant", "")):
        raise RequestRefusedError("invalid_value", "not the id of a tenant", "tenant")
    return question


def _check_user(user: str) -> None:
    if not USER_ID.match(user):
        raise RequestRefusedError("invalid_value", "not the id of a user", "user")


def _check(asked: SearchAsked) -> None:
    bounds: list[tuple[str, bool, str]] = [
        ("query", bool(asked.query.strip()), "there is no question"),
        ("query", len(asked.query) <= QUERY_CHARS_MAX, f"at most {QUERY_CHARS_MAX} characters"),
        ("queries", len(asked.queries) <= QUERIES_MAX, f"at most {QUERIES_MAX} further wordings"),
        ("queries", all(0 < len(one) <= QUERY_CHARS_MAX for one in asked.queries), "a wording is empty, or too long"),
        ("limit", 1 <= asked.limit <= LIMIT_MAX, f"from 1 to {LIMIT_MAX}"),
        ("threshold", 0 <= asked.threshold <= 1, "from 0 to 1"),
        ("diversity", 0 <= asked.diversity <= 1, "from 0 to 1"),
        ("weight", asked.weight is None or 0 <= asked.weight <= 1, "from 0 to 1"),
        (
            "budget_tokens",
            asked.budget_tokens is None or 1 <= asked.budget_tokens <= BUDGET_TOKENS_MAX,
            f"from 1 to {BUDGET_TOKENS_MAX}",
        ),
    ]
    for param, is_right, reason in bounds:
        if not is_right:
            raise RequestRefusedError("invalid_value", reason, param)
    if problem := filtering.problem_of(asked.filters):
        raise RequestRefusedError("invalid_value", problem, "filters")


async def _from_database(reading: Awaitable[A]) -> A:
    try:
        return await reading
    except RequestRefusedError:
        raise
    except Exception as error:
        if not is_transient(error):
            raise
        raise RequestRefusedError("context_unavailable", "the documents' database is away; ask again") from error
