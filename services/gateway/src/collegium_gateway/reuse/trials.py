"""Experiments and flags as the gateway knows them: which answers may be given again to whom, and what they add to cost.

An answer of one arm is never given to another: the arm that a request will be given is part of the key of its answer,
and an answer is kept only where the router told the same arm, so that a change on its way keeps nothing wrong. One
rule: nothing is decided here; routers draw the same and say so.
"""

from __future__ import annotations

import structlog
from collegium_bus.connection import Connection
from collegium_bus.kv import Bucket, Entry
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.experiments import KEY, ExperimentSet, Trial
from collegium_contracts.messages import SettledMessage, TaskRef
from collegium_contracts.parts import Plan
from collegium_contracts.trials import assigned, instruction_bytes, plans_of

log = structlog.get_logger(__name__)


class KnownTrials:
    """The sets that stand, followed; ``start`` and ``stop`` bracket its life."""

    def __init__(self, connection: Connection) -> None:
        self._sets: dict[str, ExperimentSet] = {}
        self._watch = Bucket(connection, s.KV_POLICY).watch(self._learn, self._forget)

    async def start(self) -> None:
        """Reads what stands, then follows."""
        await self._watch.start()

    async def stop(self) -> None:
        """Stops following."""
        await self._watch.stop()

    def arm_of(self, task: TaskRef) -> str:
        """Returns what tells a task's answers from those of other arms; empty where nothing applies to it."""
        if not self._sets:
            return ""
        found = assigned(task, self._sets)
        return named(found.trial) if found is not None else ""

    def added_bytes(self, task: TaskRef) -> int:
        """Returns the most (bytes) that an arm may put before a task's messages."""
        return instruction_bytes(task, self._sets) if self._sets else 0

    def plans(self, task: TaskRef) -> tuple[list[Plan], int]:
        """Returns the plans of several that are tried on tasks like one that names none, and a panel's members."""
        return plans_of(task, self._sets) if self._sets else ([], 0)

    def use(self, key: str, value: bytes) -> None:
        """Learns the value of a key of the bucket; what cannot be read leaves the last good one."""
        if key != KEY and not key.startswith(f"{KEY}."):
            return
        try:
            known = codec.state.decode(value)
        except ContractError as error:
            log.error("experiments unreadable, keeping the last good ones", key=key, error=str(error))
            return
        if isinstance(known, ExperimentSet):
            self._sets.pop(known.tenant, None)
            if known.experiments or known.flags or known.killed or known.holdout:
                self._sets[known.tenant] = known

    def _learn(self, entry: Entry) -> None:
        self.use(entry.key, entry.value)

    def _forget(self, entry: Entry) -> None:
        if entry.key == KEY or entry.key.startswith(f"{KEY}."):
            self._sets.pop(entry.key.removeprefix(KEY).removeprefix("."), None)


def named(trial: Trial) -> str:
    """Returns what answers of an arm are kept under: another change of the same experiment is another one."""
    # Whoever is held out is answered as if nothing ran.
    return "" if trial.arm == "holdout" else f"{trial.id}/{trial.revision}/{trial.arm}"


def told(settled: SettledMessage) -> str:
    """Returns the arm that an answer was made in, as the router told it."""
    trial = settled.route.trial if settled.route is not None else None
    return named(trial) if trial is not None else ""
