"""Reading the dead letters, and removing those that are done with.

By single direct gets, in the order of the stream: letters are few, and whoever reads them needs no consumer. Who wrote
a letter, and for which tenant, is told by its subject, which the broker guards, and never by its content. One rule: a
letter that cannot be read is shown as such; it hides no other.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import DeadLetter

from collegium_bus.claims import ClaimStore
from collegium_bus.connection import Connection
from collegium_bus.errors import BusError, RefusedError
from collegium_bus.wire import decode_headers

# Letters that one page looks at; a filter that matches few of them gets a short page and where to go on.
SCAN_LETTERS = 2_000
# The broker counts nanoseconds in 64 bits, which end in 2262.
_LAST_SECONDS = 9_000_000_000.0
_GONE = 10043
_NEVER_STOOD = 10057


class Letter(NamedTuple):
    """One letter: its sequence in DEAD, who wrote it and for which tenant (empty: unknown), its content or why not."""

    sequence: int
    service: str
    tenant: str
    content: DeadLetter | None
    unreadable: str = ""


class LetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters are meant; what is not given fits all. Ids are exact: callers check them against their patterns."""

    service: str = ""
    tenant: str | None = None
    cause: str = ""
    task: str = ""
    since_ms: int = 0

    @property
    def subject(self) -> str:
        """The part of the filter that the broker carries out."""
        return s.dead_of(self.service, self.tenant)

    def fits(self, letter: Letter) -> bool:
        """Whether a letter of the subject fits the rest; one that cannot be read fits only where nothing is asked."""
        content = letter.content
        if content is None:
            return not (self.cause or self.task or self.since_ms)
        return (
            self.cause in ("", content.cause)
            and self.task in ("", content.known.task_id)
            and content.at_ms >= self.since_ms
        )


class Page(NamedTuple):
    """Letters, oldest first, and the sequence after which the next page begins (none: there is none)."""

    letters: list[Letter]
    next_after: int | None


class LetterBox:
    """The letters over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._claims = ClaimStore(connection)

    async def get(self, sequence: int) -> Letter | None:
        """Returns one letter, or none where it does not stand."""
        return await self._read({"seq": sequence})

    async def page(self, wanted: LetterFilter, *, after: int = 0, limit: int = 100) -> Page:
        """Returns the letters that fit, after a sequence; a page looks at so many letters at most."""
        found: list[Letter] = []
        for _ in range(SCAN_LETTERS):
            where: dict[str, Any] = {"seq": after + 1}
            if not after and wanted.since_ms:
                where = {"start_time": datetime.fromtimestamp(_early(wanted.since_ms), UTC).isoformat()}
            letter = await self._read({**where, "next_by_subj": wanted.subject})
            if letter is None:
                return Page(found, None)
            after = letter.sequence
            if wanted.fits(letter):
                found.append(letter)
                if len(found) == limit:
                    break
        return Page(found, after)

    async def remove(self, sequence: int) -> bool:
        """Removes a letter for good; false where it did not stand (any more)."""
        body = msgspec.json.encode({"seq": sequence})
        reply = msgspec.json.decode(await self._connection.api(f"STREAM.MSG.DELETE.{s.DEAD}", body))
        error = reply.get("error")
        if error is None:
            return True
        if error.get("err_code") in (_GONE, _NEVER_STOOD):
            return False
        raise RefusedError(f"letter {sequence} cannot be removed: {error.get('description')}")

    async def ever_stood(self, sequence: int) -> bool:
        """Whether a letter of this sequence was ever written."""
        info = msgspec.json.decode(await self._connection.api(f"STREAM.INFO.{s.DEAD}"))
        if error := info.get("error"):
            raise BusError(f"the state of {s.DEAD} cannot be read: {error.get('description')}")
        return 0 < sequence <= int(info["state"]["last_seq"])

    async def _read(self, where: dict[str, Any]) -> Letter | None:
        payload, block = await self._connection.request_raw(f"$JS.API.DIRECT.GET.{s.DEAD}", msgspec.json.encode(where))
        headers = decode_headers(block)
        if "Nats-Sequence" not in headers:
            return None
        sequence = int(headers["Nats-Sequence"])
        _, service, tenant = headers["Nats-Subject"].split(".", 2)
        tenant = "" if tenant == "-" else tenant
        try:
            if claim := headers.get(s.H_CLAIM):
                payload = await self._claims.get(claim)
            content = codec.journey.decode(payload)
        except ContractError as error:
            return Letter(sequence, service, tenant, None, str(error))
        if not isinstance(content, DeadLetter):
            return Letter(sequence, service, tenant, None, f"{type(content).__name__}, where only DeadLetter may stand")
        return Letter(sequence, service, tenant, content)


def _early(since_ms: int) -> float:
    """The broker's clock need not be the writer's: it is asked from a quarter of an hour before (Unix seconds)."""
    return min(max(0.0, since_ms / 1000 - 900), _LAST_SECONDS)
