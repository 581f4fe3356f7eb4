"""A probe that brought the answer it asks about: what is compared, and how, where nobody knows what was wanted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from collegium_consensus.members import Member
from collegium_consensus.probing import Probing
from collegium_consensus.reading import Reading, Wanted
from collegium_contracts import codec
from collegium_contracts.content import Answer, Choice, encode_content
from collegium_contracts.envelope import Envelope, IdentityKeyring
from collegium_contracts.messages import AttemptAnswered, ProbeCompared, TaskRef
from collegium_contracts.parts import Probe
from collegium_learning.answers.shapes import TEXT, Shape
from msgspec import msgpack

FIRST = '{"city": "Oslo", "days": 2}'


class Stated(Reading):
    """Reads answers; what was wanted is handed in."""

    def __init__(self, platform: Any, shape: Shape) -> None:
        super().__init__(platform)
        self._shape = shape

    async def wanted(self, task: TaskRef) -> Wanted:
        return Wanted(self._shape)


async def compared(make: Any, first: str, second: str, shape: Shape = TEXT) -> ProbeCompared:
    told: list[bytes] = []

    async def publish(_subject: str, payload: bytes, **_fields: Any) -> None:
        told.append(payload)

    async def get(_claim: str) -> bytes:
        return msgpack.encode(Envelope("identity", b"", encode_content(Answer([Choice(first)]))))

    platform: Any = SimpleNamespace(
        connection=None, keyring=IdentityKeyring(), claims=SimpleNamespace(get=get), now_ms=lambda: make.now_ms,
        publisher=SimpleNamespace(publish=publish),
    )  # fmt: skip
    probe = Probe(of="tsk_" + "1" * 26, kind="held_out", answer="claim", gave="big", gave_rank="teacher")
    answer = Answer([Choice(second)])
    message = AttemptAnswered(
        task=make.task("2", probe=probe), attempt=make.attempt(1, of=1),
        answer=Envelope("identity", b"", encode_content(answer)), call=make.call(1), at_ms=make.now_ms,
    )  # fmt: skip
    await Probing(platform, Stated(platform, shape)).compare([Member(message, 1, "")], {1: answer})
    [payload] = told
    found = codec.journey.decode(payload)
    assert isinstance(found, ProbeCompared)
    return found


@pytest.mark.parametrize(
    ("second", "same"),
    [('{"days":2,\n "city":"Oslo"}', True), ('```json\n{"days": 2.0, "city": "Oslo"}\n```', True),
     ('{"city": "Oslo", "days": 3}', False), ("Oslo, for 2 days", False)],
)  # fmt: skip
async def test_an_answer_that_is_json_is_compared_as_json(make: Any, second: str, same: bool) -> None:
    found = await compared(make, FIRST, second)
    assert (found.answer_type, found.same) == ("json", same)


async def test_what_is_no_json_is_compared_as_its_domain_says_or_as_text(make: Any) -> None:
    found = await compared(make, "Oslo.", "oslo")
    assert (found.answer_type, found.same) == ("text", True)
    found = await compared(make, "42", "The answer is 42.0", Shape("number"))
    assert (found.answer_type, found.same) == ("number", True)
