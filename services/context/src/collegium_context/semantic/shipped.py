"""The calibration that the platform ships: numbers in a file beside this one, with what they were fitted on.

One rule: it holds coefficients and counts, and no text that they were fitted on.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

from collegium_context.semantic.policy import Calibration

FILE = Path(__file__).parent / "calibration.json"


@cache
def shipped() -> Calibration:
    """Returns the shipped calibration."""
    return msgspec.json.decode(FILE.read_bytes(), type=Calibration)


def write_calibration(path: Path, calibration: Calibration, fitted_on: str) -> None:
    """Writes a calibration, with the name of what it was fitted on added."""
    named = msgspec.structs.replace(calibration, fitted_on=", ".join(filter(None, [calibration.fitted_on, fitted_on])))
    path.write_bytes(msgspec.json.format(msgspec.json.encode(named), indent=1) + b"\n")
