"""Asking the router for more attempts of a plan.

First a note of why, create-once for each attempt, then the request, into the queue of the tenant's shard: whoever was
killed between the two finds the note, and asks again. What a request says follows from the plan's events alone, and
everything on its way knows a second one by its task and attempt. One rule: consensus says how many and of which rank;
which model and when is the router's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from collegium_bus.errors import AlreadyStandsError
from collegium_contracts import subjects as s
from collegium_contracts.codec import encode
from collegium_contracts.content import Answer, decode_messages
from collegium_contracts.envelope import Envelope, held
from collegium_contracts.ids import shard_of
from collegium_contracts.messages import (
    AttemptAsked,
    AttemptRef,
    AttemptRequested,
    RunAttempt,
    Sampling,
    TaskDispatched,
    TaskRef,
    TaskSubmitted,
)
from collegium_contracts.money import Price
from collegium_contracts.parts import JudgeMode
from collegium_contracts.plans import JUDGE_TOKENS
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform

from collegium_consensus.course import Ask, Seen, Terms, judge_of, judged_answers
from collegium_consensus.judging import order, prompt, response_format

_FREE = Price()


class Judging(NamedTuple):
    """What a judge is asked with, sealed; of how many bytes; the model it is for (empty: any); and how it judges."""

    prompt: Envelope
    prompt_bytes: int
    model: str
    mode: JudgeMode


class Asking:
    """Asks for attempts."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def judging(
        self, begun: TaskDispatched, ask: Ask, terms: Terms, ends: Sequence[Seen], answers: Mapping[int, Answer]
    ) -> dict[int, Judging]:
        """Returns what judges are asked with, by attempt number; nothing where a move asks for members.

        Raises UnknownKeyError where the question cannot be opened.
        """
        if terms.judge is None or ask.numbers[0] <= terms.of:
            return {}
        submitted, keyring = begun.submitted, self._platform.keyring
        assert submitted is not None, "a plan of several begins with what it is made from"
        tenant = submitted.task.tenant
        await held(keyring, tenant, submitted.prompt)
        question = question_of(keyring.open(tenant, submitted.prompt))
        first = judged_answers(ends, terms)
        found: dict[int, Judging] = {}
        for number in ask.numbers:
            texts = [text_of(answers[one.number]) for one in order(number, terms.of, first) if one.number in answers]
            shown = prompt(terms.judge, question, texts)
            found[number] = Judging(keyring.seal(tenant, shown), len(shown), judge_of(number, ends, terms), terms.judge)
        return found

    async def ask(
        self,
        task: TaskRef,
        begun: TaskDispatched,
        ask: Ask,
        terms: Terms,
        asked: Sequence[str],
        traceparent: str,
        judging: Mapping[int, Judging] | None = None,
    ) -> None:
        """Notes and requests every attempt of a move; ``asked`` are the models that were asked before.

        Raises QueueFullError where the tenant's queue has no place, BrokerUnavailableError where it cannot be stored.
        """
        headers = {s.TRACEPARENT: traceparent, s.H_TENANT: task.tenant}
        for number in ask.numbers:
            failpoint("consensus.before-ask")
            with contextlib.suppress(AlreadyStandsError):
                await self._platform.publisher.publish(
                    s.attempt_asked(task.tenant, task.id, number),
                    encode(noted(task, begun, number, ask, terms, self._platform.now_ms())),
                    message_id=f"{task.id}.{number}.asked",
                    headers=headers,
                    create_once=True,
                )
            failpoint("consensus.after-note")
            wanted = requested(task, begun, number, terms, asked)
            await self._platform.publisher.publish(
                s.task_more(task.priority, shard_of(task.tenant), task.tenant),
                encode(judged(wanted, (judging or {}).get(number))),
                message_id=f"{task.id}.{number}.0.more",
                headers=headers,
            )
            failpoint("consensus.after-ask")


def noted(task: TaskRef, begun: TaskDispatched, number: int, ask: Ask, terms: Terms, now_ms: int) -> AttemptAsked:
    """Returns the note of why an attempt is asked for."""
    return AttemptAsked(
        task=task,
        number=number,
        of=terms.of,
        plan=terms.plan,
        at_ms=now_ms,
        rank=begun.ranks[number - 1] if begun.ranks else "",
        reason=ask.reason,
        confidence=ask.judgement.confidence if ask.judgement is not None else None,
        threshold=terms.threshold if terms.plan == "cascade" else None,
    )


def requested(
    task: TaskRef, begun: TaskDispatched, number: int, terms: Terms, asked: Sequence[str]
) -> AttemptRequested:
    """Returns the request for an attempt: what it runs is what the first ones ran."""
    submitted = begun.submitted
    assert isinstance(submitted, TaskSubmitted), "a plan of several begins with what it is made from"
    attempt = AttemptRef(
        number=number,
        of=terms.of,
        model="",
        rank=begun.ranks[number - 1] if begun.ranks else "student",
        pool="",
        price=_FREE,
        charge=_FREE,
        plan=terms.plan,
    )
    run = RunAttempt(
        task=task,
        attempt=attempt,
        prompt=submitted.prompt,
        sampling=submitted.sampling,
        prompt_bytes=submitted.prompt_bytes + begun.added_bytes,
        history=begun.history,
        notes=begun.notes,
        try_number=0,
    )
    return AttemptRequested(run=run, asked=list(asked))


def judged(wanted: AttemptRequested, judging: Judging | None) -> AttemptRequested:
    """Returns a request as a judge is asked: with the answers of others, and nothing of what members were told."""
    if judging is None:
        return wanted
    run = wanted.run
    task = msgspec.structs.replace(run.task, conversation="", memory="", recalled=None, gated=None)
    judge = msgspec.structs.replace(
        run,
        task=task,
        attempt=msgspec.structs.replace(run.attempt, judges=True, model=judging.model),
        prompt=judging.prompt,
        prompt_bytes=judging.prompt_bytes,
        sampling=Sampling(max_tokens=JUDGE_TOKENS, temperature=0.0, response_format=response_format(judging.mode)),
        history=None,
        notes=[],
    )
    return msgspec.structs.replace(wanted, run=judge)


def text_of(answer: Answer) -> str:
    """Returns what an answer says as it stands: its text, or the calls it wants made as JSON."""
    if not answer.choices:
        return ""
    first = answer.choices[0]
    return first.text or "\n".join(bytes(call).decode() for call in first.tool_calls or ())


def question_of(plain: bytes) -> str:
    """Returns what was asked: the texts of all messages, the last ones last."""
    try:
        messages = decode_messages(plain)
    except msgspec.DecodeError:
        return ""
    return "\n\n".join(f"{one.role}: {one.content}" for one in messages if isinstance(one.content, str))
