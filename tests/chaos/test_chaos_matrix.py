"""Every fault of the matrix: what was accepted ends once, is charged once, and all is well again in time.

``COLLEGIUM_CHAOS=full`` plays all of it, else the short form; ``COLLEGIUM_CHAOS_SEED`` chooses what is chosen by
chance; ``COLLEGIUM_CHAOS_RESULTS`` names a file that gets one line of JSON a fault.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from collegium_testing.faults.results import Result, append, today

from tests.chaos.matrix import FAULTS, Fault
from tests.chaos.stage import ChaosError, Stage

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

FULL = os.environ.get("COLLEGIUM_CHAOS") == "full"
SEED = int(os.environ.get("COLLEGIUM_CHAOS_SEED", "1"))
RESULTS = os.environ.get("COLLEGIUM_CHAOS_RESULTS")
CHOSEN = [fault for fault in FAULTS if FULL or fault.short]


@pytest.mark.parametrize("fault", CHOSEN, ids=[fault.name.replace(" ", "-") for fault in CHOSEN])
async def test_fault(fault: Fault, tmp_path: Path):
    stage = Stage(tmp_path, SEED)
    began = time.monotonic()
    outcome = "failed"
    try:
        async with stage:
            await fault.scenario(stage)
            _in_time(fault, stage)
        outcome = "held"
    finally:
        if RESULTS:
            took = round(time.monotonic() - began, 1)
            recovery = None if stage.recovery_seconds is None else round(stage.recovery_seconds, 1)
            result = Result(
                fault=fault.name,
                about=fault.about,
                outcome=outcome,
                remark=stage.remark,
                seed=SEED,
                tasks=len(stage.load.accepted),
                recovery_seconds=recovery,
                recovers_seconds_max=fault.recovers_seconds,
                took_seconds=took,
                date=today(),
            )
            append(Path(RESULTS), result)


def _in_time(fault: Fault, stage: Stage) -> None:
    if fault.recovers_seconds is None:
        return
    assert stage.recovery_seconds is not None, "a scenario measures its recovery"
    if stage.recovery_seconds > fault.recovers_seconds:
        took = f"recovery took {stage.recovery_seconds:.1f} s, and {fault.recovers_seconds:g} are allowed"
        raise ChaosError(f"{fault.name}: {took}")
