"""Checking texts against rules, for a service: light rules here, heavy ones in processes, others by their endpoint.

All kinds go at the same time. One rule: a rule that throws, hangs or is not there has a failure for its outcome, and
what follows from that is decided like everything else.
"""

from __future__ import annotations

import asyncio
import secrets
import string
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import structlog
from collegium_contracts.gates import GateRule, Point

from collegium_gates.asking import Asker
from collegium_gates.configured import version_of
from collegium_gates.deciding import Outcome, Verdict, decide
from collegium_gates.errors import GateError
from collegium_gates.evaluating import LIGHT, evaluate, is_light
from collegium_gates.finding import Findings, readings
from collegium_gates.pool import Pool
from collegium_gates.units import Unit

log = structlog.get_logger(__name__)

_SALT: Final = string.ascii_lowercase + string.digits
NO_VERDICT: Final = Verdict()
AskModel = Callable[[GateRule, Sequence[Unit]], Awaitable[Findings]]


class Checking:
    """Checks for one service. ``keys`` are those of endpoints by rule. ``close`` ends what it started."""

    def __init__(self, pool: Pool | None = None, asker: Asker | None = None) -> None:
        self._pool = pool or Pool()
        self._asker = asker or Asker()
        self._warming: asyncio.Task[Any] | None = None
        self.keys: Mapping[str, str] = {}

    def warm(self, rules: Sequence[GateRule]) -> None:
        """Begins to load what rules need, so that the first request need not wait for it."""
        heavy = [rule for rule in rules if rule.kind not in LIGHT and rule.kind not in ("age", "http", "llm")]
        if heavy and self._warming is None:
            self._warming = asyncio.create_task(self._pool.evaluate(heavy, []), name="warm-gates")

    async def close(self) -> None:
        """Ends processes and connections."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        await self._pool.close()
        await self._asker.close()

    async def check(
        self, rules: Sequence[GateRule], units: Sequence[Unit], point: Point, by_model: AskModel | None = None
    ) -> Verdict:
        """Returns what follows for units from rules, in their order; rules of the kind age are not for texts.

        ``by_model`` asks a model for rules of the kind llm; without it they cannot be evaluated.
        """
        if not rules or not units:
            return NO_VERDICT
        outcomes = await self._outcomes(rules, units, point, by_model)
        return decide(outcomes, units, point, "".join(secrets.choice(_SALT) for _ in range(4)))

    async def _outcomes(
        self, rules: Sequence[GateRule], units: Sequence[Unit], point: Point, by_model: AskModel | None
    ) -> list[Outcome]:
        characters = sum(len(unit.text) for unit in units)
        light = [rule for rule in rules if is_light(rule, characters)]
        asked = [rule for rule in rules if rule.kind == "http"]
        models = [rule for rule in rules if rule.kind == "llm"]
        heavy = [rule for rule in rules if rule not in (*light, *asked, *models)]
        waiting: list[asyncio.Task[list[Outcome]]] = []
        if heavy:
            waiting.append(asyncio.create_task(self._heavy(heavy, units)))
        waiting += [asyncio.create_task(self._ask(rule, units, point)) for rule in asked]
        waiting += [asyncio.create_task(_ask_model(rule, units, by_model)) for rule in models]
        if waiting:
            # Whatever can be sent off is, before time is spent here.
            await asyncio.sleep(0)
        try:
            found = _light(light, units)
            for task in waiting:
                found += await task
        finally:
            for task in waiting:
                task.cancel()
        by_name = {outcome.rule.name: outcome for outcome in found}
        return [by_name[rule.name] for rule in rules]

    async def _heavy(self, rules: Sequence[GateRule], units: Sequence[Unit]) -> list[Outcome]:
        results = await self._pool.evaluate(rules, units)
        return [
            Outcome(rule, result) if isinstance(result, Findings) else Outcome(rule, failure=result)
            for rule, result in zip(rules, results, strict=True)
        ]

    async def _ask(self, rule: GateRule, units: Sequence[Unit], point: Point) -> list[Outcome]:
        try:
            return [Outcome(rule, await self._asker.ask(rule, version_of(rule), point, units, self.keys))]
        except GateError as error:
            return [Outcome(rule, failure=str(error))]


async def _ask_model(rule: GateRule, units: Sequence[Unit], by_model: AskModel | None) -> list[Outcome]:
    if by_model is None:
        return [Outcome(rule, failure="no model can be asked here")]
    try:
        async with asyncio.timeout(rule.timeout_ms / 1000):
            return [Outcome(rule, await by_model(rule, units))]
    except TimeoutError:
        return [Outcome(rule, failure=f"its model took longer than {rule.timeout_ms / 1000:g} s")]
    except GateError as error:
        return [Outcome(rule, failure=str(error))]


def _light(rules: Sequence[GateRule], units: Sequence[Unit]) -> list[Outcome]:
    read = readings(units)
    found: list[Outcome] = []
    for rule in rules:
        try:
            found.append(Outcome(rule, evaluate(rule, read)))
        except GateError as error:
            found.append(Outcome(rule, failure=str(error)))
        except Exception as error:  # a defect of a rule must not be one of the service
            log.exception("a gate threw", rule=rule.name)
            found.append(Outcome(rule, failure=f"it threw {type(error).__name__}"))
    return found
