"""Gates of answers: what a model says passes its task's rules before it goes anywhere.

Streamed text is held back and read a window at a time; the whole is read before the attempt ends, tool calls too. What
is blocked is shown to nobody and stored nowhere: the call is booked, and the attempt ends with the rule's name. One
rule: a rule that a task names and that cannot be had here blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import structlog
from collegium_bus.errors import BusError
from collegium_bus.kv import Bucket, Entry
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.content import Answer, Choice
from collegium_contracts.errors import ContractError, TaskError
from collegium_contracts.gates import GATE_BLOCKED, GateRule
from collegium_contracts.messages import TaskRef
from collegium_gates import deciding, units
from collegium_gates.checking import Checking
from collegium_gates.configured import Registry, applying
from collegium_gates.deciding import Decision, restored, restored_json
from collegium_gates.evaluating import WHOLE
from collegium_gates.streaming import GatedStream, OnText, answer_unit, note_unit
from collegium_gates.telling import refusal_text, told
from collegium_runtime.audit import Audit
from collegium_runtime.platform import Platform
from collegium_settings import Settings

from collegium_worker_pool.calling.judging import AskGateway, Judging
from collegium_worker_pool.upstream.failures import CallFailed
from collegium_worker_pool.upstream.places import Place
from collegium_worker_pool.upstream.upstream import CallResult

log = structlog.get_logger(__name__)

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode
_decode_vault: Final = msgspec.json.Decoder(dict[str, str]).decode


class AnswerGates:
    """The gates of one worker pool: rules by name and version, followed by a watch."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._bucket = Bucket(platform.connection, s.KV_GATES)
        self._watch = self._bucket.watch(self._learn)
        self._rules: dict[str, GateRule] = {}
        self.audit = Audit.of(platform)
        self.checking = Checking()
        self.ask_gateway = AskGateway(platform.connection, platform.keyring)
        self._decisions = platform.metrics.counters(
            "collegium_gate_decisions_total", "Answers that a gate blocked, changed or noted", ("result",)
        )
        platform.on_settings.append(self._use)

    async def start(self) -> None:
        """Reads the rules that stand, then follows."""
        await self._use(self._platform.settings)
        await self._watch.start()

    async def stop(self) -> None:
        """Follows no more, and ends what evaluates rules."""
        await self._watch.stop()
        await self.checking.close()
        await self.audit.stop()

    async def of(self, task: TaskRef) -> GatedAnswer:
        """Returns what a gated task's answer goes through; raises CallFailed where a rule is not to be had."""
        assert task.gated is not None, "asked for gated tasks alone"
        rules = [await self._rule(reference, task) for reference in task.gated.rules]
        vault: dict[str, str] = {}
        if task.gated.vault is not None:
            vault = _decode_vault(self._platform.keyring.open(task.tenant, task.gated.vault))
        return GatedAnswer(self, task, rules, vault)

    def record(self, decisions: Sequence[Decision], task: TaskRef) -> None:
        """Tells the audit trail."""
        for decision in decisions:
            self._decisions[decision.result].inc()
            action, outcome, reason, details = told(decision, task)
            actor = task.key_id or f"service:{self._platform.service}"
            entry = self.audit.entry(
                task.tenant, actor, action, outcome, object=task.id, reason=reason, details=details
            )
            self.audit.record(entry)

    def refused(self, decisions: Sequence[Decision], task: TaskRef) -> CallFailed:
        """Returns the end of an attempt whose answer is blocked."""
        self.record(decisions, task)
        block = next(one for one in decisions if one.blocks)
        return CallFailed(TaskError(code=GATE_BLOCKED, message=refusal_text(block), gate=block.rule))

    async def _rule(self, reference: str, task: TaskRef) -> GateRule:
        rule = self._rules.get(reference)
        if rule is None:
            # Written before any task named it; the watch may be late.
            try:
                entry = await self._bucket.get(reference.replace("@", "."))
            except BusError as error:
                log.warning("a gate cannot be read", reference=reference, error=str(error))
                entry = None
            if entry is not None:
                self._learn(entry)
            rule = self._rules.get(reference)
        if rule is None:
            name = reference.partition("@")[0]
            missing = Decision(name, reference, "", "answer", "failed_closed", "there is no such rule here")
            raise self.refused([missing], task)
        return rule

    def _learn(self, entry: Entry) -> None:
        try:
            rule = codec.state.decode(entry.value)
        except ContractError as error:
            log.error("a gate is unreadable", key=entry.key, error=str(error))
            return
        if isinstance(rule, GateRule):
            name, _, version = entry.key.rpartition(".")
            self._rules[f"{name}@{version}"] = rule

    async def _use(self, settings: Settings) -> None:
        self.checking.keys = Registry(settings.gates).keys


class GatedAnswer:
    """One answer on its way: ``stream`` for its text as it comes, ``conclude`` for the whole.

    ``said`` is what the endpoint said, as far as it did to the end; ``asked`` are the rules that want a person to look
    at the whole of it; ``place`` is the call's at its endpoint, which whoever judges the answer may need.
    """

    def __init__(self, gates: AnswerGates, task: TaskRef, rules: Sequence[GateRule], vault: dict[str, str]) -> None:
        self._gates = gates
        self._task = task
        self._rules = applying(rules, "answer")
        # What a tool is called with is said by the model too, though it is no text to be judged as a whole.
        judged = [rule for rule in self._rules if rule.kind not in WHOLE]
        self._tool_rules = [rule for rule in rules if "tool" in rule.on or rule in judged]
        self._knowledge_rules = applying(rules, "knowledge")
        self._judging = Judging(gates.ask_gateway, task)
        self.said: CallResult | None = None
        self.place: Place | None = None
        self._vault = vault
        self._stream: GatedStream | None = None
        self._sent: list[str] = []
        self.asked: list[str] = []

    def stream(self, on_text: OnText) -> OnText:
        """Returns what takes the text as it comes, and passes on what may go."""

        def send(text: str) -> None:
            self._sent.append(text)
            on_text(text)

        by_model = self._judging.decide
        self._stream = stream = GatedStream(self._gates.checking, self._rules, self._vault, send, by_model)

        def feed(text: str) -> None:
            if stream.blocked:
                raise self._blocked(stream)
            stream.feed(text)

        return feed

    def partial(self) -> Answer | None:
        """Returns what was let go of an answer that was not finished, or none."""
        return Answer([Choice("".join(self._sent))]) if self._sent else None

    def close(self) -> None:
        """Lets nothing more go."""
        if self._stream is not None:
            self._stream.close()

    async def knowledge(self, notes: list[str]) -> list[str]:
        """Returns what a prompt may be told besides, as it may be told; a note that a rule blocks is left out.

        Each note is read alone, so that one that is bad takes no other with it.
        """
        if not self._knowledge_rules:
            return notes
        kept: list[str] = []
        for note in notes:
            verdict = await self._gates.checking.check(self._knowledge_rules, [note_unit(note)], "knowledge")
            self._gates.record(verdict.decisions, self._task)
            self.asked += [rule for rule in verdict.asked if rule not in self.asked]
            if verdict.block is None:
                kept.append(deciding.applied(note, verdict.changes.get(0, ())))
        return kept

    async def examples(self, texts: list[str]) -> list[str]:
        """Returns an instruction and examples as they may be told; an example that a rule blocks is left out whole."""
        kept = texts[:1]
        for question, answer in zip(texts[1::2], texts[2::2], strict=True):
            pair = await self.knowledge([question, answer])
            kept += pair if len(pair) == 2 else []
        return kept

    async def conclude(self, answer: Answer) -> Answer:
        """Returns a whole answer as it may be given; raises CallFailed where a rule blocks it."""
        stream = self._stream
        written = await self._written([choice.text or "" for choice in answer.choices])
        if stream is not None:
            # Only now, so that the end of a text whose whole is blocked is not sent.
            await stream.finish()
            if stream.blocked:
                raise self._blocked(stream)
            if written[0] != stream.gated:
                # What was sent is not taken back: the whole is what was sent, read once more.
                written[0] = (await self._written([stream.gated]))[0]
        choices: list[Choice] = []
        for choice, text in zip(answer.choices, written, strict=True):
            given = restored(text, self._vault) if choice.text is not None else None
            calls = await self._tool_calls(choice.tool_calls) if choice.tool_calls else None
            choices.append(Choice(given, choice.finish_reason, calls))
        return Answer(choices)

    async def _written(self, texts: list[str]) -> list[str]:
        read = [answer_unit(text) for text in texts]
        verdict = deciding.Verdict()
        if any(texts):
            verdict = await self._gates.checking.check(self._rules, read, "answer", self._judging.decide)
        if verdict.block is not None:
            self.close()
            raise self._gates.refused(verdict.decisions, self._task)
        self._gates.record(verdict.decisions, self._task)
        self.asked += [rule for rule in verdict.asked if rule not in self.asked]
        return [deciding.applied(text, verdict.changes.get(number, ())) for number, text in enumerate(texts)]

    async def _tool_calls(self, calls: Sequence[msgspec.Raw]) -> list[msgspec.Raw]:
        try:
            decoded: list[Any] = [_decode(call) for call in calls]
        except (msgspec.DecodeError, RecursionError):
            raise CallFailed(TaskError(code="upstream_garbage", message="a tool call is no JSON")) from None
        read = units.of_tool_calls(decoded)
        verdict = await self._gates.checking.check(self._tool_rules, read, "tool")
        if verdict.block is not None:
            raise self._gates.refused(verdict.decisions, self._task)
        self._gates.record(verdict.decisions, self._task)
        self.asked += [rule for rule in verdict.asked if rule not in self.asked]
        deciding.apply(decoded, read, verdict)
        return [msgspec.Raw(_encode(self._with_words(call))) for call in decoded]

    def _with_words(self, call: Any) -> Any:
        match call:
            case {"function": {"arguments": str(arguments)} as function} if self._vault:
                return {**call, "function": {**function, "arguments": restored_json(arguments, self._vault)}}
            case _:
                return call

    def _blocked(self, stream: GatedStream) -> CallFailed:
        assert stream.verdict is not None, "a rule blocked"
        return self._gates.refused(stream.verdict.decisions, self._task)
