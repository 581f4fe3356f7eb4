"""One example of every message, as the golden wire files hold them."""

import msgspec
from collegium_contracts import audit
from collegium_contracts import messages as m
from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import TaskError
from collegium_contracts.holds import (
    BudgetOpened,
    HoldEnded,
    HoldPlaced,
    HoldsJournaled,
    HoldsSnapshot,
    RateState,
    WindowState,
)
from collegium_contracts.money import Price, Usage
from collegium_contracts.parts import Reuse
from collegium_contracts.people import Question

SEALED = Envelope("identity", b"", b'[{"role":"user","content":"hi"}]')
TASK = m.TaskRef(
    id="tsk_" + "0" * 26,
    tenant="acme",
    created_at_ms=1_700_000_000_000,
    deadline_ms=1_700_000_050_000,
    model="auto",
    project="blue",
    key_id="acmekey1",
    priority="high",
    plan="panel",
    surface="tasks",
    domain="law",
    reply="gw1",
    conversation="c1",
    tags={"team": "x"},
)
ATTEMPT = m.AttemptRef(
    number=2,
    of=3,
    model="sim",
    rank="ta",
    pool="general",
    price=Price(input_picos=1, output_picos=2),
    charge=Price(input_picos=3, output_picos=4, cached_input_picos=1),
    plan="panel",
)
USAGE = Usage(input_tokens=10, output_tokens=5, cached_input_tokens=2, cost_usd_picos=20, charge_usd_picos=50)
CALL = m.AttemptUsage(number=2, delivery=1, model="sim", rank="ta", usage=USAGE, duration_ms=120)
SAMPLING = m.Sampling(max_tokens=64, temperature=0.5, stop=["x"], tools=b'[{"type":"function"}]', stream=True)
ERROR = TaskError(code="upstream_error", message="the endpoint of model sim answered 500", upstream_status=500)
PLACED = HoldPlaced(task=TASK.id, tenant="acme", picos=70, expires_at_ms=9_000, budgets=["b1"], at_ms=8)
SETTLED = {
    "task": TASK,
    "plan": "panel",
    "stop_reason": "completed",
    "usage": USAGE,
    "attempts": [CALL],
    "settled_at_ms": 1_700_000_000_500,
    "model": "sim",
    "rank": "ta",
    "confidence": 0.5,
}

SAMPLES: dict[str, m.Message] = {
    type(message).__name__: message
    for message in (
        m.TaskSubmitted(task=TASK, prompt=SEALED, sampling=SAMPLING, prompt_bytes=32, panel_size=5),
        m.FireSchedule(tenant="acme", schedule="sch_" + "0" * 26, at_ms=1_700_000_100_000),
        m.RunAttempt(task=TASK, attempt=ATTEMPT, prompt=SEALED, sampling=SAMPLING, prompt_bytes=32, history=SEALED),
        m.AttemptRequested(
            run=m.RunAttempt(
                task=TASK,
                attempt=ATTEMPT,
                prompt=SEALED,
                sampling=SAMPLING,
                prompt_bytes=32,
                try_number=2,
                max_calls=4,
                alternatives=True,
                earlier=[CALL],
            ),
            error=ERROR,
            not_before_ms=8,
        ),
        m.AttemptRetried(task=TASK, attempt=ATTEMPT, try_number=2, error=ERROR, not_before_ms=8, at_ms=7, call=CALL),
        m.WorkerCapacity(pool="general", worker="w1", slots=128, running=7, memory_ratio=0.5),
        m.AttemptStarted(task=TASK, attempt=ATTEMPT, delivery=1, worker="w1", at_ms=1),
        m.AttemptAnswered(task=TASK, attempt=ATTEMPT, answer=SEALED, call=CALL, at_ms=2, turn=SEALED),
        m.AttemptFailed(task=TASK, attempt=ATTEMPT, error=ERROR, call=CALL, at_ms=2),
        m.AttemptAsked(
            task=TASK,
            number=3,
            of=4,
            plan="cascade",
            at_ms=2,
            rank="ta",
            reason="confidence",
            confidence=0.5,
            threshold=0.7,
        ),
        m.AttemptTested(
            task=TASK,
            attempt=ATTEMPT,
            state="failed",
            passed=2,
            of=3,
            at_ms=3,
            note="differs",
            duration_ms=7,
            behaviour=SEALED,
        ),
        m.AttemptDiscarded(task=TASK, attempt=ATTEMPT, call=CALL, at_ms=2),
        m.TextCheckpointed(task=TASK, attempt=ATTEMPT, delivery=1, chunks=4, text=SEALED, at_ms=3),
        m.TaskCompleted(**SETTLED, output=SEALED, turn=SEALED),
        m.AnswersReused(
            answers=[
                m.TaskCompleted(
                    **{
                        **SETTLED,
                        "attempts": [],
                        "task": msgspec.structs.replace(
                            TASK,
                            cache="hit_exact",
                            reused=Reuse(original="tsk_" + "1" * 26, age_seconds=90, is_stale=True, saved_usd_picos=50),
                        ),
                    },
                    output=Envelope("", b"", b""),
                )
            ]
        ),
        m.TaskFailed(**{**SETTLED, "stop_reason": "failed"}, error=ERROR, partial=SEALED),
        m.TaskCanceled(**{**SETTLED, "stop_reason": "canceled"}, partial=SEALED),
        m.TokenChunk(task_id=TASK.id, attempt=1, delivery=1, number=7, text=SEALED, model="sim"),
        m.TaskAccepted(task=TASK, at_ms=4),
        m.TaskDispatched(task=TASK, plan="panel", models=["sim", "sim"], at_ms=5),
        m.InputRequired(
            task=TASK,
            stage="answer",
            questions=[
                Question(id="answer-1", kind="answer", of="operator", queue="experts", reason="unsure", labels=["law"])
            ],
            at_ms=5,
            expires_at_ms=6,
            hold_until_ms=7,
            submitted=m.TaskSubmitted(task=TASK, prompt=SEALED, sampling=SAMPLING, prompt_bytes=32),
            verdict=m.TaskCompleted(**SETTLED, output=SEALED),
        ),
        m.TaskInput(
            tenant="acme",
            task_id=TASK.id,
            question="answer-1",
            decision="answer",
            source="operator",
            at_ms=6,
            by="revkey01",
            queue="experts",
            answer=SEALED,
            comment=SEALED,
        ),
        m.CancelRequested(task_id=TASK.id, tenant="acme", at_ms=6, reason="client_disconnected"),
        m.Feedback(
            id="fbk_" + "0" * 26,
            task=TASK,
            source="outcome",
            score=0.25,
            at_ms=7,
            plan="panel",
            model="sim",
            rank="ta",
            by="acmekey1",
            comment=SEALED,
        ),
        m.ProbeCompared(
            task=TASK,
            kind="audit",
            probe="tsk_" + "1" * 26,
            at_ms=7,
            model="sim",
            rank="student",
            probe_model="big",
            probe_rank="teacher",
            probe_usage=CALL,
            same=False,
            answer_type="number",
            plan="single",
            confidence=0.5,
            usage=CALL,
        ),
        m.DeadLetter(
            service="billing",
            subject="task.settled.acme.x",
            cause="undecodable_message",
            detail="3 bytes are not a message",
            payload=b"\xff\x00x",
            at_ms=7,
            stream="EVENTS",
            sequence=9,
            delivery=1,
            headers={"a": "b"},
        ),
        HoldsJournaled(
            shard=3,
            at_ms=8,
            events_sequence=11,
            opened=[BudgetOpened(tenant="acme", budget="b1", spent=[(1, 2)])],
            placed=[PLACED],
            ended=[HoldEnded(task=TASK.id, tenant="acme", picos=50, at_ms=9, project="blue", key_id="acmekey1")],
        ),
        HoldsSnapshot(
            shard=3,
            at_ms=9,
            journal_sequence=12,
            events_sequence=11,
            windows=[WindowState(tenant="acme", budget="b1", spent=[(1, 2)], carried_picos=3)],
            holds=[PLACED],
            rates=[RateState(tenant="acme", key_id="acmekey1", day_requests=[(1, 4)], window_tokens=[(1, 5)])],
        ),
        audit.AuditEntry(
            id="aud_" + "0" * 26,
            tenant="acme",
            service="gateway",
            actor="acmekey1",
            action="keys.revoke",
            outcome="done",
            at_ms=8,
            object="acmekey2",
            reason="left the company",
            details={"path": "/v1/admin/keys/acmekey2/revoke"},
            trace="0" * 32,
            count=2,
        ),
    )
}
