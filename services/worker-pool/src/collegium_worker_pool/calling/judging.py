"""Rules that a model decides about answers: asked of the gateway, which makes a task of it as of rules about requests.

An answer is read once as a whole for its stream and once for its end, and asked about once. One rule: whatever keeps a
model from deciding is the rule's failure, so that a required one blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from collegium_bus.ask import ask
from collegium_bus.connection import Connection
from collegium_bus.errors import BusError
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Keyring
from collegium_contracts.errors import ContractError
from collegium_contracts.gate_requests import TEXTS_BYTES_MAX, TextsJudge, TextsJudged
from collegium_contracts.gates import GateRule
from collegium_contracts.messages import TaskRef
from collegium_gates.errors import RuleFailedError
from collegium_gates.finding import NOTHING, Findings
from collegium_gates.units import Unit

_encode = msgspec.json.Encoder().encode


class AskGateway:
    """Asks whichever gateway answers."""

    def __init__(self, connection: Connection, keyring: Keyring) -> None:
        self._connection = connection
        self._keyring = keyring

    async def decide(self, task: TaskRef, rule: GateRule, texts: Sequence[str]) -> Findings:
        """Returns what a rule's model decides about an answer's texts; raises RuleFailedError."""
        encoded = _encode(texts)
        if len(encoded) > TEXTS_BYTES_MAX:
            raise RuleFailedError(f"the answer has more than {TEXTS_BYTES_MAX} bytes, which no model is shown")
        question = TextsJudge(task=task, rule=rule, texts=self._keyring.seal(task.tenant, encoded))
        try:
            judged = await ask(
                self._connection,
                s.SVC_GATEWAY_JUDGE,
                question,
                TextsJudged,
                timeout_seconds=rule.timeout_ms / 1000,
            )
        except (BusError, ContractError) as error:
            raise RuleFailedError(f"no gateway can ask its model: {type(error).__name__}") from None
        if judged.failure:
            raise RuleFailedError(judged.failure)
        return Findings(judged.reason, is_whole=True) if judged.reason else NOTHING


class Judging:
    """What models decided about one answer, so that the same texts are asked about once."""

    def __init__(self, gateway: AskGateway, task: TaskRef) -> None:
        self._gateway = gateway
        self._task = task
        self._decided: dict[tuple[str, ...], Findings | RuleFailedError] = {}

    async def decide(self, rule: GateRule, units: Sequence[Unit]) -> Findings:
        """Returns what a rule's model decides; raises RuleFailedError."""
        texts = [unit.text for unit in units]
        known = (rule.name, *texts)
        if known not in self._decided:
            try:
                self._decided[known] = await self._gateway.decide(self._task, rule, texts)
            except RuleFailedError as error:
                # It may have been paid for, and failed for good: what asks at the end is told the same.
                self._decided[known] = error
        decided = self._decided[known]
        if isinstance(decided, RuleFailedError):
            raise RuleFailedError(str(decided))
        return decided
