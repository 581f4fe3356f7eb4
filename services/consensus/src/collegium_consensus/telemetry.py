"""Names of consensus' spans."""

from __future__ import annotations

from typing import Final

from collegium_contracts import subjects as s
from collegium_contracts.journey import HOPS

SPAN_DECIDE: Final = "consensus decide"
SPAN_INPUT: Final = "consensus take input"
SPAN_TEST: Final = "consensus test answer"
# The hop by which ended attempts come here, as the journey names it.
DESTINATION: Final = next(hop.subject for hop in HOPS if hop.filter == s.ATTEMPT_ENDED_ALL)
INPUT_DESTINATION: Final = next(hop.subject for hop in HOPS if hop.filter == s.TASK_INPUT_ALL)
