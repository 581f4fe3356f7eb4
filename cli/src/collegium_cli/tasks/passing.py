"""Passing messages as lines: decoded, and sealed contents masked, or opened by whoever holds their keys. Pure.

One rule: nothing that a person or a model wrote is shown unless it was asked for; that holds for raw bytes too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope, IdentityKeyring, UnknownKeyError
from collegium_contracts.errors import ContractError
from collegium_contracts.experiments import INSTRUCTION_PURPOSE
from collegium_contracts.messages import DeadLetter, Message, TokenChunk
from collegium_contracts.routing import FEATURES_PURPOSE

SHOWN_BYTES = 80
# Deliveries to consumers repeat what was published, under its own subject.
_DELIVERY_PREFIX = b"$JS.ACK."
_SERVICE_PREFIX = "svc."
_ENVELOPE = {"key_id", "nonce", "body"}
# What is sealed for its place alone, by the name of its field.
_PURPOSES = {"instruction": INSTRUCTION_PURPOSE, "features": FEATURES_PURPOSE}
# Fields that seal plain text, which may look like JSON; options' words are msgpack, the others JSON or text.
_TEXTS = {"text", "comment", "callback"}
_WORDS = "words"

# Opens one envelope of a tenant, sealed for a purpose; returns a text, the reason, where it cannot.
Open = Callable[[str, Envelope, str], bytes | str]


class Taste(msgspec.Struct, frozen=True, kw_only=True):
    """Which messages are wanted, and how they are shown."""

    tenant: str | None = None
    task: str | None = None
    raw: bool = False
    content: bool = False
    as_json: bool = False


class Passing(msgspec.Struct, frozen=True):
    """One message that passes; ``claim`` names its payload in the object store (empty: the payload is here)."""

    subject: str
    payload: bytes
    claim: str = ""
    reply: bytes = b""


def open_unsealed(tenant: str, envelope: Envelope, purpose: str) -> bytes | str:
    """Opens what no key sealed."""
    try:
        return IdentityKeyring().open(tenant, envelope, purpose)
    except UnknownKeyError:
        return "its key is not at hand"


def line(passing: Passing, taste: Taste, open_: Open = open_unsealed) -> str | None:
    """Returns a message's line; none where another tenant's or task's was asked for, or it is only a delivery.

    Contents that were asked for are opened by ``open_``; raw bytes are shown as they came.
    """
    if passing.reply.startswith(_DELIVERY_PREFIX):
        return None
    message = _decoded(passing)
    if not _wanted(passing.subject, message, taste):
        return None
    if taste.raw:
        shown = _raw(passing, message, taste)
        return _line(passing.subject, {"bytes": repr(shown)}, taste, text=repr(shown))
    if passing.claim:
        return _line(passing.subject, {"claim": passing.claim}, taste, text=f"in the object store: {passing.claim}")
    if message is None and passing.subject.startswith(s.INTERNAL_PREFIXES):
        size = len(passing.payload)
        return _line(passing.subject, {"size_bytes": size}, taste, text=f"{size} bytes")
    if isinstance(message, Message):
        shown = _message(message, passing, open_ if taste.content else None)
        return _line(passing.subject, {"message": shown}, taste, text=msgspec.json.encode(shown).decode())
    reason = str(message) if message is not None else "undecodable"
    start = passing.payload[:SHOWN_BYTES]
    return _line(
        passing.subject, {"undecodable": reason, "bytes": repr(start)}, taste, text=f"undecodable, {reason}: {start!r}"
    )


def without(passed: list[Passing], already: list[Passing]) -> Iterator[Passing]:
    """Yields what passed and is not among what was read already, each of those once."""
    known = Counter((one.subject, one.payload) for one in already)
    for one in passed:
        if known[one.subject, one.payload] > 0:
            known[one.subject, one.payload] -= 1
        else:
            yield one


def tenant_of(passing: Passing) -> str:
    """Returns whose contents a message holds; empty where that cannot be told."""
    message = _decoded(passing)
    return _tenant(message, passing.subject) if isinstance(message, Message) else ""


def overlaps(one: str, other: str) -> bool:
    """Whether two subject filters can match the same subject."""
    for left, right in zip(one.split("."), other.split("."), strict=False):
        if ">" in (left, right):
            return True
        if left != right and "*" not in (left, right):
            return False
    return one.count(".") == other.count(".")


def is_filter(subject: str) -> bool:
    """Whether a text is a subject or a filter of subjects: tokens without blanks, ``>`` only as the last."""
    tokens = subject.split(".")
    blank = any(not token or any(character.isspace() for character in token) for token in tokens)
    return not blank and ">" not in tokens[:-1]


def _decoded(passing: Passing) -> Message | ContractError | None:
    if passing.claim or passing.subject.startswith(s.INTERNAL_PREFIXES):
        return None
    try:
        if passing.subject.startswith(_SERVICE_PREFIX):
            return codec.request.decode(passing.payload)
        return codec.journey.decode(passing.payload)
    except ContractError as error:
        return error


def _wanted(subject: str, message: Message | ContractError | None, taste: Taste) -> bool:
    tokens = subject.split(".")
    ref = getattr(message, "task", None)
    tenants = {getattr(ref, "tenant", None), getattr(message, "tenant", None)} - {None}
    tasks = {getattr(ref, "id", None), getattr(message, "task_id", None)} - {None}
    tenant_fits = taste.tenant is None or taste.tenant in (tenants or tokens)
    return tenant_fits and (taste.task is None or taste.task in (tasks or tokens))


def _line(subject: str, about: dict[str, Any], taste: Taste, *, text: str) -> str:
    return msgspec.json.encode({"subject": subject, **about}).decode() if taste.as_json else f"{subject} {text}"


def _raw(passing: Passing, message: Message | ContractError | None, taste: Taste) -> bytes:
    """Returns the bytes as they came, with only the sealed ones replaced."""
    if taste.content:
        return passing.payload
    if message is None and not passing.claim:
        return _mask(passing.payload).encode()
    payload = passing.payload
    if isinstance(message, Message):
        for body in _sealed(msgspec.to_builtins(message, builtin_types=(bytes,))):
            mask = msgspec.msgpack.encode(_mask(body).encode())
            payload = payload.replace(msgspec.msgpack.encode(body), mask)
    return payload


def _sealed(value: Any) -> Iterator[bytes]:
    match value:
        case bytes() if value:
            yield value
        case dict():
            for part in value.values():
                yield from _sealed(part)
        case list():
            for part in value:
                yield from _sealed(part)
        case _:
            pass


def _mask(body: bytes, reason: str = "") -> str:
    return f"‹sealed, {len(body)} bytes{f': {reason}' if reason else ''}›"


def _tenant(message: Message, subject: str) -> str:
    """Returns the tenant of a message; a piece of a stream is named by its subject alone."""
    ref = getattr(message, "task", None) or getattr(message, "run", None)
    named = getattr(getattr(ref, "task", ref), "tenant", None) or getattr(message, "tenant", None)
    if named is None and isinstance(message, TokenChunk):
        return "".join(subject.split(".")[1:2])
    return named if isinstance(named, str) else ""


def _message(message: Message, passing: Passing, open_: Open | None) -> dict[str, Any]:
    shown: dict[str, Any] = _Showing(_tenant(message, passing.subject), open_).of(
        msgspec.to_builtins(message, builtin_types=(bytes,)), ""
    )
    if open_ is not None and isinstance(message, DeadLetter):
        original = _decoded(Passing(message.subject, message.payload))
        if isinstance(original, Message):
            shown["payload"] = _message(original, Passing(message.subject, message.payload), open_)
    return shown


class _Showing:
    """Makes a message's parts readable: contents masked, or opened where there is something to open them with."""

    def __init__(self, tenant: str, open_: Open | None) -> None:
        self._tenant = tenant
        self._open = open_

    def of(self, value: Any, name: str) -> Any:
        """Returns a part as it is shown; ``name`` is its field's."""
        match value:
            case dict() if value.keys() == _ENVELOPE:
                return self._envelope(Envelope(**value), name)
            case dict():
                return {key: self.of(part, key) for key, part in value.items()}
            case list():
                return [self.of(part, name) for part in value]
            case bytes():
                return value.decode(errors="replace") if self._open is not None else _mask(value)
            case _:
                return value

    def _envelope(self, envelope: Envelope, name: str) -> Any:
        if self._open is None:
            return _mask(envelope.body)
        opened = self._open(self._tenant, envelope, _PURPOSES.get(name, ""))
        if isinstance(opened, str):
            return _mask(envelope.body, opened)
        if name == _WORDS:
            return self.of(_read(msgspec.msgpack.decode, opened), "")
        # Written as it is read: a text within JSON would be quoted twice.
        if name not in _TEXTS and opened[:1] in (b"[", b"{"):
            return _read(msgspec.json.decode, opened)
        return _text(opened)


def _read(decode: Callable[[bytes], Any], plain: bytes) -> Any:
    try:
        return decode(plain)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _text(plain)


def _text(plain: bytes) -> str:
    try:
        return plain.decode()
    except UnicodeDecodeError:
        return f"‹{len(plain)} bytes that are no text›"
