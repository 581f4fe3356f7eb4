"""Rules that a model decides, asked as a task of the tenant whose request it is: held, booked and charged once.

The task passes no rules itself, or it would ask for ever; it names the rule in its tags. One rule: it is over when the
rule's time is, and what is not decided by then is the rule's to bear.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec
import structlog
from collegium_contracts import ids
from collegium_contracts.gates import GateRule
from collegium_contracts.messages import Sampling, TaskCompleted, TaskRef
from collegium_gates import judged
from collegium_gates.errors import RuleFailedError
from collegium_gates.finding import Findings
from collegium_gates.units import Unit
from collegium_runtime.platform import Platform

from collegium_gateway.admission.admission import AUTO, Asked, submission
from collegium_gateway.admission.requests import Options
from collegium_gateway.errors import ApiError
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.tasks.application import Tasks
from collegium_gateway.tasks.views import answer_of

log = structlog.get_logger(__name__)

_encode = msgspec.json.Encoder().encode


class ModelRules:
    """Asks models of the roster for one gateway."""

    def __init__(self, platform: Platform, directory: Directory, tasks: Tasks) -> None:
        self._platform = platform
        self._directory = directory
        self._tasks = tasks

    async def decide(self, task: TaskRef, rule: GateRule, units: Sequence[Unit], *, checks: bool = False) -> Findings:
        """Returns what a rule's model decides about a task's texts; raises RuleFailedError.

        ``checks`` says that the task waits for it with its answer in hand, and lends it its place.
        """
        with self._platform.tracing.root("gate by model", "internal", attributes=None) as hop:
            try:
                submitted = submission(
                    _asked(rule, units),
                    _asking(task),
                    self._directory.models,
                    self._platform.keyring,
                    task_id=ids.task_id(self._platform.now_ms(), os.urandom(10)),
                    reply=self._tasks.replica,
                    now_ms=self._platform.now_ms(),
                )
                if checks:
                    checking = msgspec.structs.replace(submitted.task, checks=task.id)
                    submitted = msgspec.structs.replace(submitted, task=checking)
                settled = await self._tasks.complete(submitted, hop)
            except ApiError as error:
                log.warning("a gate's model cannot be asked", rule=rule.name, task=task.id, code=error.code)
                raise RuleFailedError(f"its model cannot be asked: {error.code}") from None
        if not isinstance(settled, TaskCompleted):
            raise RuleFailedError(f"its model gave no answer: {settled.stop_reason}")
        answer = answer_of(self._platform.keyring, task.tenant, settled.output)
        text = answer.choices[0].text if answer is not None and answer.choices else None
        return judged.decision(text or "")


def _asked(rule: GateRule, units: Sequence[Unit]) -> Asked:
    return Asked(
        model=rule.model or AUTO,
        messages=_encode(judged.question(rule, units)),
        sampling=Sampling(
            max_tokens=judged.ANSWER_TOKENS, temperature=0.0, response_format=_encode(judged.response_format(rule))
        ),
        options=Options(
            plan="single",
            deadline_seconds=max(1.0, rule.timeout_ms / 1000),
            cache="off",
            tags={"gate": rule.name},
            priority="high",
        ),
        surface="chat",
    )


def _asking(task: TaskRef) -> Principal:
    """The tenant and key whose request is checked; which models the key may ask is no matter of the operator's rule."""
    return Principal(task.tenant, task.project, task.key_id, frozenset({"chat"}), task.tier, pool=task.pool)
