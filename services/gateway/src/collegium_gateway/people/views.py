"""How questions are shown: to the client whose task waits, and to those who answer. Pure, apart from opening envelopes.

One rule: a client sees an answer that others have still to agree to no sooner than they did.
"""

from __future__ import annotations

from typing import Any

import msgspec
from collegium_bus.pauses import Waiting
from collegium_contracts.content import Answer, as_shown, decode_answer
from collegium_contracts.envelope import Envelope, Keyring
from collegium_contracts.messages import TaskInput
from collegium_contracts.people import Question

from collegium_gateway.people.book import QuestionRow
from collegium_gateway.tasks.views import rfc3339


def waiting_view(found: Waiting, keyring: Keyring) -> dict[str, Any]:
    """Returns what a task waits for, as its client sees it."""
    pause = found.pause
    shown: dict[str, Any] = {
        "stage": pause.stage,
        "asked_at": rfc3339(pause.at_ms),
        "expires_at": rfc3339(pause.expires_at_ms),
        "questions": [_question(one, found.given.get(one.id)) for one in pause.questions],
    }
    if pause.verdict is not None and all(one.of == "client" for one in pause.questions):
        shown["candidate"] = _answer(keyring, pause.task.tenant, pause.verdict.output)
        shown["confidence"] = pause.verdict.confidence
    return shown


def row_view(row: QuestionRow) -> dict[str, Any]:
    """Returns a question as those who answer see it in a list: without any content."""
    return {
        "id": f"{row.task_id}.{row.question}",
        "task_id": row.task_id,
        "question": row.question,
        "tenant": row.tenant,
        "stage": row.stage,
        "kind": row.kind,
        "of": row.whom,
        "queue": row.queue or None,
        "reason": row.reason,
        "rule": row.rule or None,
        "labels": row.labels,
        "state": row.state,
        "created_at": rfc3339(row.created_at_ms),
        "expires_at": rfc3339(row.expires_at_ms),
        "answered_at": rfc3339(row.answered_at_ms) if row.answered_at_ms is not None else None,
        "decision": row.decision,
        "answered_by": row.answered_by or None,
        "claimed_by": row.claimed_by,
        "claimed_until": rfc3339(row.claimed_until_ms) if row.claimed_until_ms is not None else None,
    }


def content_view(found: Waiting, keyring: Keyring) -> dict[str, Any]:
    """Returns what is to be judged: the messages of the request, and the answer that waits with what it was thought
    worth."""
    pause = found.pause
    tenant = pause.task.tenant
    shown: dict[str, Any] = {"messages": None, "candidate": None, "confidence": None, "model": None, "plan": None}
    if pause.submitted is not None:
        shown["messages"] = msgspec.json.decode(keyring.open(tenant, pause.submitted.prompt))
    if pause.verdict is not None:
        verdict = pause.verdict
        shown |= {
            "candidate": _answer(keyring, tenant, verdict.output),
            "confidence": verdict.confidence,
            "model": verdict.model,
            "plan": verdict.plan,
            "stop_reason": verdict.stop_reason,
        }
    shown["answers"] = {
        name: {"decision": one.decision, "comment": _text(keyring, tenant, one.comment)}
        for name, one in found.given.items()
    }
    return shown


def _question(question: Question, given: TaskInput | None) -> dict[str, Any]:
    return {
        "id": question.id,
        "kind": question.kind,
        "of": question.of,
        "queue": question.queue or None,
        "reason": question.reason,
        "rule": question.rule or None,
        "state": "open" if given is None else "expired" if given.decision == "expire" else "answered",
        "on_expiry": question.on_expiry,
    }


def _answer(keyring: Keyring, tenant: str, envelope: Envelope) -> list[dict[str, Any]]:
    answer: Answer = decode_answer(keyring.open(tenant, envelope))
    return msgspec.json.decode(msgspec.json.encode(as_shown(answer.choices)))


def _text(keyring: Keyring, tenant: str, envelope: Envelope | None) -> str | None:
    return keyring.open(tenant, envelope).decode(errors="replace") if envelope is not None else None
