"""Taking an answer: who may give it, what it may be, and that it stands once.

An answer of a person's own passes the rules of the task's answer before it is stored, as a model's does. One rule: the
stream decides whose answer stands; whoever comes second is told so, and the same answer again is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal

import msgspec
from collegium_bus.errors import AlreadyStandsError, BusError
from collegium_bus.pauses import Waiting, waiting
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.content import Answer, Choice, encode_content
from collegium_contracts.errors import ContractError
from collegium_contracts.ids import TASK_ID
from collegium_contracts.messages import TaskInput
from collegium_contracts.people import InputSource, Question, stage_of
from collegium_runtime.audit import Audit
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform

from collegium_gateway.admission.gating import Gating
from collegium_gateway.errors import ApiError, from_bus
from collegium_gateway.identity.principal import Principal

MAX_BODY_BYTES: Final = 1_000_000
TEXT_CHARS_MAX: Final = 200_000
COMMENT_CHARS_MAX: Final = 4_000


class InputRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An answer: ``approve`` or ``deny`` what was asked about, or (where one is wanted) a ``text`` of one's own.

    ``question`` may be left out where there is one that the asker may answer.
    """

    decision: Literal["approve", "deny", "answer"] | None = None
    text: Annotated[str, msgspec.Meta(max_length=TEXT_CHARS_MAX)] | None = None
    question: str = ""
    comment: Annotated[str, msgspec.Meta(max_length=COMMENT_CHARS_MAX)] = ""


decode_input = msgspec.json.Decoder(InputRequest)


class Answering:
    """Takes answers of clients and of staff."""

    def __init__(self, platform: Platform, gating: Gating, audit: Audit) -> None:
        self._platform = platform
        self._gating = gating
        self._audit = audit

    async def standing(self, tenant: str, task_id: str) -> Waiting | None:
        """Returns what a task waits for, none where it never did; raises ApiError where it cannot be read now."""
        if TASK_ID.match(task_id) is None:
            return None
        try:
            return await waiting(self._platform.direct, self._platform.claims, tenant, task_id)
        except (BusError, ContractError) as error:
            raise ApiError("broker_unavailable", f"task {task_id} cannot be read now", retry_after_seconds=1) from error

    async def of_client(self, principal: Principal, task_id: str, asked: InputRequest, traceparent: str) -> TaskInput:
        """Stores what a client answers about its task; errors as of :meth:`answer`."""
        return await self.answer(
            principal,
            principal.tenant,
            task_id,
            asked,
            may=lambda question: question.of == "client",
            source="client",
            traceparent=traceparent,
        )

    async def answer(
        self,
        principal: Principal,
        tenant: str,
        task_id: str,
        asked: InputRequest,
        *,
        may: Callable[[Question], bool],
        source: InputSource,
        traceparent: str,
    ) -> TaskInput:
        """Stores an answer to a question that ``may`` lets through, and returns what stands.

        Raises ApiError ``not_found``, ``no_question``, ``already_answered``, ``invalid_value``, a gate's refusal, or
        what the broker refused.
        """
        found = await self.standing(tenant, task_id)
        if found is None:
            raise ApiError("no_question", f"task {task_id} waits for nobody", param="id")
        question = _chosen(found, asked, may, task_id)
        decision = asked.decision or ("answer" if asked.text is not None else None)
        if decision is None:
            raise ApiError("invalid_value", "say approve, deny or answer, or give a text", param="decision")
        text = _text(question, decision, asked.text)
        seal = self._platform.keyring.seal
        answer = None
        if text is not None:
            text = await self._gating.pass_answer(found.pause.task, text)
            answer = seal(tenant, encode_content(Answer([Choice(text)])))
        given = TaskInput(
            tenant=tenant,
            task_id=task_id,
            question=question.id,
            decision=decision,
            source=source,
            at_ms=self._platform.now_ms(),
            by=principal.key_id,
            queue=question.queue,
            answer=answer,
            comment=seal(tenant, asked.comment.encode()) if asked.comment else None,
        )
        given = await self.store(given, traceparent)
        self._tell(principal, given, question)
        return given

    async def store(self, given: TaskInput, traceparent: str) -> TaskInput:
        """Stores an answer create-once; returns what stands, raises ``already_answered`` where it is another's."""
        subject = s.task_input(given.tenant, given.task_id, given.question)
        failpoint("gateway.before-input")
        try:
            await self._platform.publisher.publish(
                subject,
                codec.encode(given),
                message_id=f"{given.task_id}.{given.question}.{given.by or given.source}.{given.at_ms}",
                headers={s.TRACEPARENT: traceparent, s.H_TENANT: given.tenant},
                create_once=True,
            )
        except AlreadyStandsError:
            return await self._standing(given, subject)
        except BusError as error:
            raise from_bus(error, f"the answer about task {given.task_id}") from error
        failpoint("gateway.after-input")
        return given

    async def _standing(self, given: TaskInput, subject: str) -> TaskInput:
        stored = await self._platform.direct.last(s.EVENTS, subject)
        stands = codec.journey.decode(stored.payload) if stored is not None else None
        if isinstance(stands, TaskInput) and (stands.by, stands.decision) == (given.by, given.decision):
            return stands
        raise _answered(given.task_id, given.question)

    def _tell(self, principal: Principal, given: TaskInput, question: Question) -> None:
        """Records who decided what; of the words nothing is told."""
        entry = self._audit.entry(
            given.tenant,
            principal.key_id,
            f"task.{given.decision}",
            "done",
            object=given.task_id,
            reason=question.reason,
            details={
                "question": question.id,
                "queue": question.queue,
                "rule": question.rule,
                "source": given.source,
                "actor_tenant": principal.tenant,
            },
        )
        self._audit.record(entry)


def _chosen(found: Waiting, asked: InputRequest, may: Callable[[Question], bool], task_id: str) -> Question:
    if asked.question:
        question = next((one for one in found.pause.questions if one.id == asked.question and may(one)), None)
        if question is None:
            if stage_of(asked.question) != found.pause.stage:
                raise ApiError("no_question", f"task {task_id} does not wait for {asked.question!r}", param="question")
            text = f"question {asked.question!r} of task {task_id} is not yours to answer"
            raise ApiError("no_question", text, param="question")
        if found.is_settled or question.id in found.given:
            raise _answered(task_id, question.id)
        return question
    mine = [one for one in found.open if may(one)]
    if len(mine) == 1:
        return mine[0]
    if mine:
        names = ", ".join(one.id for one in mine)
        raise ApiError("invalid_value", f"task {task_id} waits for answers to {names}; name one", param="question")
    raise ApiError("no_question", f"task {task_id} waits for nothing that you may answer", param="id")


def _text(question: Question, decision: str, text: str | None) -> str | None:
    if decision != "answer":
        if text is not None:
            raise ApiError(
                "invalid_value", "a text is an answer of one's own: leave it out, or the decision", param="text"
            )
        return None
    if question.kind != "answer":
        raise ApiError("invalid_value", f"question {question.id} takes approve or deny alone", param="decision")
    if text is None or not text.strip():
        raise ApiError("invalid_value", "an answer of one's own needs a text", param="text")
    return text


def _answered(task_id: str, question: str) -> ApiError:
    return ApiError("already_answered", f"question {question} of task {task_id} was answered before", param="question")
