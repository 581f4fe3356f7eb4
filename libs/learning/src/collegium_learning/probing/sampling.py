"""Which settled tasks are asked again, and of whom. Pure: a task's id decides, so that every replica draws the same.

A task is drawn when it is dispatched, because its prompt is at hand there; whether it is worth asking again, and of
whom, shows when it has settled. One rule: a probe stands on its own: it is never drawn itself, and what belongs to a
conversation, to memory or to several choices is not asked again, because a second answer would not be to the same
question.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Literal

import msgspec
from collegium_contracts.ids import probe_id
from collegium_contracts.messages import Sampling, SettledMessage, TaskCompleted, TaskRef, TaskSubmitted
from collegium_contracts.parts import Plan, Probe, ProbeKind
from collegium_contracts.ranks import as_ranked
from collegium_contracts.state import ModelRecord
from collegium_contracts.students import HeldOutAsk, may_ask

# What the usage of probes is found by in reports.
TAG = "collegium-probe"
# Plans whose answer was one model's word; a panel has checked itself.
PLANS: frozenset[Plan] = frozenset(("auto", "single", "cascade"))
_DRAWS = 2**53
# Of shadows, those that are asked of models that may be good enough; the others look at everybody.
FOCUS = 0.9
HELD_OUT_DELAY_MS = 1_000
# It waits behind all other work, also where there is much.
HELD_OUT_MS = 600_000


def drawn(task_id: str, what: str) -> float:
    """Returns a number in [0, 1) that is a task's own for ``what``, and even over tasks."""
    digest = hashlib.blake2s(f"{what}\x00{task_id}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / _DRAWS


def is_drawn(task_id: str, kind: ProbeKind, share: float) -> bool:
    """Whether a task is among the ``share`` of tasks that are asked again."""
    return share > 0.0 and drawn(task_id, kind) < share


def can_be_probed(submitted: TaskSubmitted) -> bool:
    """Whether a second answer to a task would be an answer to the same question, and say something about the first."""
    task = submitted.task
    return (
        task.probe is None
        # What people had to agree to is not sent elsewhere without asking them.
        and task.people is None
        # What its tests say is worth more than a second answer.
        and not task.tests
        and task.kind == "chat"
        and task.plan in PLANS
        and not task.conversation
        and task.memory in ("", "off")
        and submitted.sampling.n == 1
    )


def probe_of(submitted: TaskSubmitted, probe: Probe, now_ms: int, delay_ms: int) -> TaskSubmitted:
    """Returns the task that asks another one again: later, behind all other work, for nobody who waits.

    Whom it asks is not decided yet: see :func:`asked_of`.
    """
    asked = submitted.task
    begins_ms = now_ms + delay_ms
    task = msgspec.structs.replace(
        asked,
        id=probe_id(asked.tenant, asked.id, probe.kind),
        created_at_ms=now_ms,
        not_before_ms=begins_ms,
        deadline_ms=begins_ms + max(1, asked.deadline_ms - max(asked.created_at_ms, asked.not_before_ms)),
        model="auto",
        # A plan of one member, which consensus settles: whoever settles a probe holds its answer beside the first.
        plan="panel",
        priority="low",
        surface="tasks",
        reply="",
        callback=False,
        hold_expires_ms=0,
        tags={TAG: probe.kind},
        cache="off",
        reused=None,
        quality_min=0.0,
        probe=probe,
    )
    sampling = msgspec.structs.replace(submitted.sampling, stream=False)
    return msgspec.structs.replace(submitted, task=task, sampling=sampling, panel_size=1)


def held_out_of(asked: HeldOutAsk, account: Literal["operator", "tenant"], now_ms: int) -> TaskSubmitted:
    """Returns the task that asks a fine-tuned model what its export held out: at once, behind all other work."""
    probe = Probe(
        of=asked.of,
        kind="held_out",
        account=account,
        model=asked.model,
        answer=asked.answer,
        gave=asked.gave,
        gave_rank=asked.gave_rank,
    )
    begins_ms = now_ms + HELD_OUT_DELAY_MS
    task = TaskRef(
        # Each model is asked once a try, however many are made of one export, or after each other under one name.
        id=probe_id(asked.tenant, asked.of, f"{probe.kind}\x00{asked.model}\x00{asked.made_at_ms}\x00{asked.number}"),
        tenant=asked.tenant,
        created_at_ms=now_ms,
        not_before_ms=begins_ms,
        deadline_ms=begins_ms + HELD_OUT_MS,
        model=asked.model,
        # No fallback of it answers in its place.
        models=[asked.model],
        plan="panel",
        priority="low",
        surface="tasks",
        tier=asked.tier,
        domain=asked.domain,
        tags={TAG: probe.kind},
        probe=probe,
    )
    sampling = Sampling(max_tokens=asked.max_tokens)
    size = len(asked.prompt.body)
    return TaskSubmitted(task=task, prompt=asked.prompt, sampling=sampling, prompt_bytes=size, panel_size=1)


def asked_of(
    probe: Probe, settled: SettledMessage, models: Mapping[str, ModelRecord], in_play: Collection[str] = ()
) -> str:
    """Returns the model that a probe asks, or empty where the settled task is not worth asking again.

    An audit asks the cheapest teacher about an answer that no teacher gave, and about one of a teacher the cheapest of
    the dearer ones, so that whoever has become a teacher is still looked after. A shadow asks one of those below the
    teachers about an answer that a teacher gave, each as often as any other. A trial asks whom it was made for, and so
    does a held out one (see :func:`held_out_of`), which does not come here.
    Ranks are those that apply to the task.
    """
    if not isinstance(settled, TaskCompleted) or settled.task.reused is not None or not settled.model:
        return ""
    task = settled.task
    able = [
        as_ranked(model, task.tenant, task.domain)
        for model in models.values()
        if model.enabled
        and not model.drained
        and may_ask(model.student, task.tenant)
        and model.kind == task.kind
        and (not model.domains or task.domain in model.domains)
        and (not task.models or model.name in task.models)
    ]
    if probe.kind == "trial":
        return probe.model if any(model.name == probe.model for model in able) else ""
    if probe.kind == "audit":
        teachers = [model for model in able if model.rank == "teacher" and model.name != settled.model]
        if settled.rank == "teacher":
            gave = models.get(settled.model)
            teachers = [model for model in teachers if gave is not None and _price(model) > _price(gave)]
        return min(teachers, key=_price).name if teachers else ""
    gave = models.get(settled.model)
    cheaper = sorted(
        model.name
        for model in able
        if model.rank != "teacher" and model.name != settled.model and (gave is None or _price(model) < _price(gave))
    )
    if settled.rank != "teacher" or not cheaper:
        return ""
    if drawn(task.id, "focus") < FOCUS:
        cheaper = [name for name in cheaper if name in in_play] or cheaper
    return cheaper[int(drawn(task.id, "whom") * len(cheaper))]


def _price(model: ModelRecord) -> tuple[int, str]:
    return model.price.input_picos + model.price.output_picos, model.name
