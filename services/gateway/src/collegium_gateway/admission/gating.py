"""Gates at the door: which rules a request passes, what they say of it, and what of it the model gets.

Which rules apply is known before anything is stored, and age is decided there. Texts are read beside the hold: whoever
submits waits for both. What the answer has to pass travels with the task, by name and version; the rules themselves
stand in the bucket ``gates`` before any task names them. One rule: a request that no rule concerns takes no step here.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec
import structlog
from collegium_bus.errors import AlreadyStandsError, BusError
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.gates import GATE_BLOCKED, Gated, GateRule
from collegium_contracts.messages import TaskRef, TaskSubmitted
from collegium_contracts.wording import words_opened
from collegium_gates import age, deciding, units
from collegium_gates.age import Vouched
from collegium_gates.checking import Checking
from collegium_gates.configured import Registry, applying
from collegium_gates.deciding import Decision, Outcome
from collegium_gates.errors import UnknownRuleError
from collegium_gates.finding import Findings
from collegium_gates.streaming import answer_unit
from collegium_gates.telling import refusal_text, told
from collegium_gates.units import Unit
from collegium_runtime.audit import Audit
from collegium_runtime.platform import Platform
from collegium_settings import Settings

from collegium_gateway.admission.requests import Options
from collegium_gateway.errors import ApiError
from collegium_gateway.identity.principal import Principal
from collegium_gateway.people.terms import asked_by_gates, with_rules

log = structlog.get_logger(__name__)

# As many as a tenant and a request may each name.
MAX_NAMED: Final = 50
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class JudgesTexts(Protocol):
    """Asks a model what a rule of the kind llm says of a task's texts."""

    async def decide(self, task: TaskRef, rule: GateRule, units: Sequence[Unit]) -> Findings:
        """Returns what it decides; raises GateError."""
        ...


class Gating:
    """The gates of one gateway. ``start`` makes the rules known, ``stop`` ends what evaluates them."""

    def __init__(self, platform: Platform, audit: Audit, checking: Checking | None = None) -> None:
        self._platform = platform
        self._audit = audit
        self._bucket = Bucket(platform.connection, s.KV_GATES)
        self.checking = checking or Checking()
        self.registry = Registry(platform.settings.gates)
        # Also those of configurations that were: a request may have been taken under one.
        self._known: dict[str, GateRule] = {}
        self._decisions = platform.metrics.counters(
            "collegium_gate_decisions_total", "Requests that a gate blocked, changed or noted", ("result",)
        )
        # Made after it, because what asks a model submits tasks.
        self.models: JudgesTexts | None = None
        platform.on_settings.append(self._follow)

    async def start(self) -> None:
        """Stores the rules for those who meet them in tasks, and loads what the rules for everyone need."""
        await self._use(self.registry)

    async def stop(self) -> None:
        """Ends processes and connections."""
        await self.checking.close()

    async def _follow(self, settings: Settings) -> None:
        try:
            await self._use(Registry(settings.gates))
        except BusError as error:
            log.error("changed gates could not be stored, keeping the last ones", error=str(error))

    async def _use(self, registry: Registry) -> None:
        for rule in registry.rules.values():
            if rule.on == ["request"]:
                continue
            with contextlib.suppress(AlreadyStandsError):
                key = registry.references[rule.name].replace("@", ".")
                await self._bucket.put(key, codec.encode(rule), expected_revision=0)
        self._known.update(registry.by_reference)
        self.registry = registry
        self.checking.keys = registry.keys
        self.checking.warm([registry.rules[name] for name in registry.everyone])

    def take(
        self,
        submitted: TaskSubmitted,
        principal: Principal,
        names: Sequence[str] | None,
        verified: dict[str, Any] | None,
        options: Options | None = None,
    ) -> TaskSubmitted:
        """Returns a checked request with the rules that it passes; raises ApiError ``unknown_gate`` for a name that
        none has, and the refusal of a rule about age."""
        registry = self.registry
        if not names and not principal.gates and not registry.everyone:
            return submitted
        if names and len(names) > MAX_NAMED:
            raise ApiError("invalid_value", f"gates may name at most {MAX_NAMED} rules", param="gates")
        task = submitted.task
        try:
            registry.named(names or ())
        except UnknownRuleError as error:
            raise ApiError("unknown_gate", f"{error}; see GET /v1/admin/gates", param="gates") from None
        try:
            references = registry.named((*principal.gates, *(names or ())))
        except UnknownRuleError as error:
            raise self._missing(error.name, task) from None
        rules = [registry.by_reference[one] for one in references]
        self._check_age(
            [rule for rule in rules if rule.kind == "age"],
            Vouched(request=verified or {}, claims=principal.claims, tenant=principal.verified),
            task,
        )
        kept = [one for one, rule in zip(references, rules, strict=True) if _concerns(rule, task)]
        if not kept:
            return submitted
        asking = [registry.by_reference[one] for one in kept if _asks_about_answers(registry.by_reference[one])]
        if asking and task.kind == "chat":
            submitted = with_rules(submitted, asking, self._platform.settings.people, options or Options())
        task = msgspec.structs.replace(submitted.task, gated=Gated(rules=kept))
        return msgspec.structs.replace(submitted, task=task)

    def asks(self, task: TaskRef) -> bool:
        """Whether a rule may want people to be asked about a task."""
        return any(rule.action == "ask" for rule in self._rules(task))

    async def pass_answer(self, task: TaskRef, text: str) -> str:
        """Returns a person's answer as it may be given, as a model's; raises ApiError ``gate_blocked``."""
        vault: dict[str, str] = {}
        if task.gated is not None and task.gated.vault is not None:
            await self._platform.keyring.learn(task.tenant)
            vault = _decode(self._platform.keyring.open(task.tenant, task.gated.vault))
        rules = [rule for rule in applying(self._rules(task), "answer") if rule.action != "ask"]
        if rules:
            by_model = functools.partial(self.models.decide, task) if self.models is not None else None
            verdict = await self.checking.check(rules, [answer_unit(text)], "answer", by_model)
            if verdict.block is not None:
                raise self._refused(verdict.decisions, task)
            self._record(verdict.decisions, task)
            text = deciding.applied(text, verdict.changes.get(0, ()))
        return deciding.restored(text, vault)

    def rewrites(self, task: TaskRef) -> bool:
        """Whether a rule may change a task's prompt."""
        return any(rule.action in ("redact", "tokenise") for rule in self._rules(task))

    async def check(self, submitted: TaskSubmitted) -> TaskSubmitted:
        """Returns a request as it may go on; raises ApiError ``gate_blocked``.

        What is left in it of its rules are those for the answer. Checked again, it passes.
        """
        task, gated = submitted.task, submitted.task.gated
        if gated is None:
            return submitted
        rules = applying(self._rules(task), "request")
        if rules:
            submitted, vault = await self._checked(submitted, rules)
        else:
            vault = gated.vault
        later = [one for one in gated.rules if task.kind == "chat" and self._known[one].on != ["request"]]
        left = Gated(rules=later, vault=vault) if later or vault is not None else None
        return msgspec.structs.replace(submitted, task=msgspec.structs.replace(submitted.task, gated=left))

    async def _checked(self, submitted: TaskSubmitted, rules: list[GateRule]) -> tuple[TaskSubmitted, Any]:
        keyring, task = self._platform.keyring, submitted.task
        prompt = keyring.open(task.tenant, submitted.prompt)
        try:
            messages = _decode(prompt)
            sampling = words_opened(keyring, task.tenant, submitted.sampling)
            beside = [_decode(raw) for raw in (sampling.tools, sampling.tool_choice, sampling.response_format) if raw]
        except (msgspec.DecodeError, RecursionError) as error:
            raise ApiError("invalid_value", f"the request cannot be read by gates: {error}", param="messages") from None
        read = units.of_messages(messages) + units.of_parameters([*beside, sampling.stop or []])
        by_model = functools.partial(self.models.decide, task) if self.models is not None else None
        verdict = await self.checking.check(rules, read, "request", by_model)
        if verdict.block is not None:
            raise self._refused(verdict.decisions, task)
        self._record(verdict.decisions, task)
        deciding.apply(messages, read, verdict)
        # Written anew in any case: a key that stands twice would mean one thing here and another to the model.
        written = _encode(messages)
        vault = keyring.seal(task.tenant, _encode(verdict.vault)) if verdict.vault else None
        if verdict.asked:
            asked = [rule for rule in rules if rule.name in verdict.asked]
            submitted = asked_by_gates(submitted, asked, self._platform.settings.people)
        sealed = keyring.seal(task.tenant, written) if written != prompt else submitted.prompt
        return msgspec.structs.replace(submitted, prompt=sealed, prompt_bytes=len(written)), vault

    def _check_age(self, rules: list[GateRule], vouched: Vouched, task: TaskRef) -> None:
        if not rules:
            return
        today = datetime.fromtimestamp(self._platform.now_ms() / 1000, UTC).date()
        outcomes = [Outcome(rule, age.evaluate(rule, vouched, today)) for rule in rules]
        verdict = deciding.decide(outcomes, [], "request", "")
        if verdict.block is not None:
            raise self._refused(verdict.decisions, task)
        self._record(verdict.decisions, task)

    def _rules(self, task: TaskRef) -> list[GateRule]:
        references = task.gated.rules if task.gated is not None else ()
        for one in references:
            if one not in self._known:
                raise self._missing(one, task)
        return [self._known[one] for one in references]

    def _missing(self, name: str, task: TaskRef) -> ApiError:
        """Returns the refusal of a request that passes a rule which is not there."""
        rule = name.partition("@")[0]
        return self._refused([Decision(rule, name, "", "request", "failed_closed", "there is no such rule")], task)

    def _refused(self, decisions: Sequence[Decision], task: TaskRef) -> ApiError:
        self._record(decisions, task)
        block = next(one for one in decisions if one.blocks)
        return ApiError(GATE_BLOCKED, refusal_text(block), gate=block.rule)

    def _record(self, decisions: Sequence[Decision], task: TaskRef) -> None:
        for decision in decisions:
            self._decisions[decision.result].inc()
            action, outcome, reason, details = told(decision, task)
            actor = task.key_id or f"service:{self._platform.service}"
            entry = self._audit.entry(
                task.tenant, actor, action, outcome, object=task.id, reason=reason, details=details
            )
            self._audit.record(entry)


def _asks_about_answers(rule: GateRule) -> bool:
    return rule.action == "ask" and rule.on != ["request"]


def _concerns(rule: GateRule, task: TaskRef) -> bool:
    """Whether a rule has anything to read of a task: vectors are no answer that it could read."""
    return rule.kind != "age" and (task.kind == "chat" or "request" in rule.on)
