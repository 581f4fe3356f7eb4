"""Comparing a probe's answer with the settled one that it asks about.

A probe is a plan of one member, so its answer comes here before it settles anything; the first answer is read back from
EVENTS, or from where the probe says that it lies. Both are opened here, where answers are compared anyway, and what
leaves is whether they say the same. One rule: a comparison is stored once, however often it is made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import structlog
from collegium_bus.errors import AlreadyStandsError
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.content import Answer, decode_answer
from collegium_contracts.envelope import Envelope, UnknownKeyError, held
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import AttemptAnswered, AttemptUsage, TaskCompleted, TaskRef
from collegium_contracts.parts import Probe, Rank
from collegium_contracts.probes import ProbeCompared
from collegium_learning.answers.shapes import TEXT, form_of
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform

from collegium_consensus.members import Member
from collegium_consensus.reading import Reading

log = structlog.get_logger(__name__)


_decode_envelope = msgspec.msgpack.Decoder(Envelope).decode


class First(NamedTuple):
    """The answer that a probe asks about, of which task it is, and who gave it."""

    answer: Answer
    task: TaskRef
    model: str
    rank: Rank | str
    plan: str = ""
    confidence: float | None = None
    usage: AttemptUsage | None = None


class Probing:
    """Compares the answers of probes."""

    def __init__(self, platform: Platform, reading: Reading) -> None:
        self._platform = platform
        self._reading = reading

    async def compare(self, members: Sequence[Member], answers: Mapping[int, Answer]) -> None:
        """Stores what an answered probe says of the first answer; nothing where either is not to be had.

        Raises BusError where what has settled cannot be read, or the comparison not be stored, now.
        """
        for member in members:
            message = member.message
            if isinstance(message, AttemptAnswered) and member.number in answers:
                first = await self._first(message.task)
                if first is not None:
                    await self._tell(message, answers[member.number], first, member.traceparent)
                return

    async def _first(self, task: TaskRef) -> First | None:
        assert task.probe is not None, "only probes are compared"
        try:
            return await (self._brought(task, task.probe) if task.probe.answer else self._settled(task, task.probe))
        except (ContractError, UnknownKeyError, msgspec.DecodeError, ValueError, RecursionError) as error:
            log.warning("what a probe asks about cannot be read", task=task.id, error=type(error).__name__)
            return None

    async def _brought(self, task: TaskRef, probe: Probe) -> First:
        """Returns the answer that the probe brought along: what it asks about may have left EVENTS long ago."""
        sealed = _decode_envelope(await self._platform.claims.get(probe.answer))
        await held(self._platform.keyring, task.tenant, sealed)
        answer = decode_answer(self._platform.keyring.open(task.tenant, sealed))
        return First(answer, msgspec.structs.replace(task, id=probe.of, probe=None), probe.gave, probe.gave_rank)

    async def _settled(self, task: TaskRef, probe: Probe) -> First | None:
        stored = await self._platform.direct.last(s.EVENTS, s.task_settled(task.tenant, probe.of))
        if stored is None:
            log.warning("what a probe asks about is gone", task=task.id, of=probe.of)
            return None
        claim = stored.headers.get(s.H_CLAIM)
        settled = codec.settled.decode(await self._platform.claims.get(claim) if claim else stored.payload)
        if not isinstance(settled, TaskCompleted):
            return None
        await held(self._platform.keyring, task.tenant, settled.output)
        answer = decode_answer(self._platform.keyring.open(task.tenant, settled.output))
        calls = (one for one in reversed(settled.attempts) if one.model == settled.model and one.succeeded)
        return First(
            answer, settled.task, settled.model, settled.rank, settled.plan, settled.confidence, next(calls, None)
        )

    async def _tell(self, probed: AttemptAnswered, second: Answer, first: First, traceparent: str) -> None:
        task = probed.task
        assert task.probe is not None, "only probes are compared"
        shape = (await self._reading.wanted(task)).shape
        # What a question brought along had asked for is not known any more.
        if task.probe.answer and shape == TEXT:
            shape = form_of(first.answer)
        keys = await self._reading.keys(task, shape, {1: first.answer, 2: second})
        compared = ProbeCompared(
            task=first.task,
            kind=task.probe.kind,
            probe=task.id,
            at_ms=self._platform.now_ms(),
            model=first.model,
            rank=first.rank,
            probe_model=probed.attempt.model,
            probe_rank=probed.attempt.rank,
            probe_usage=probed.call,
            same=keys[1] == keys[2] if keys[1] and keys[2] else None,
            answer_type=shape.kind,
            plan=first.plan,
            confidence=first.confidence,
            usage=first.usage,
            trial=task.probe.trial,
        )
        failpoint("consensus.before-compare")
        with contextlib.suppress(AlreadyStandsError):
            await self._platform.publisher.publish(
                s.probe(task.tenant, task.id),
                codec.encode(compared),
                message_id=f"{task.id}.compared",
                headers={s.TRACEPARENT: traceparent, s.H_TENANT: task.tenant},
                create_once=True,
            )
        failpoint("consensus.after-compare")
