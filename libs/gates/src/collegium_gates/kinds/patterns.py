"""Regular expressions of an operator, by RE2: matching takes time that grows with the text alone.

RE2 knows no back references and no looking around. Letters match in either case unless the pattern says ``(?-i)``. One
rule: a pattern that RE2 does not take is refused when the configuration is read.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import re2  # pyright: ignore[reportMissingTypeStubs] - it has none
from collegium_contracts.gates import GateRule

from collegium_gates.errors import RuleUnusableError
from collegium_gates.finding import Findings, Found, Reading, found, told

_MEMORY_BYTES: Final = 8 << 20


# A literal i or l is any sign that looks like one; what stands in brackets, after a backslash, as a flag or a count is
# left as it is.
_LITERALS: Final = re.compile(
    r"(\\[pPxQ](?:\{[^}]*\}|.)|\\.|\[\^?\]?(?:\\.|\[:\w+:\]|[^\]\\])*\]|\(\?P?<\w+>|\(\?[a-zA-Z\-]*[:)]|\{\d*,?\d*\})|([ilIL])"
)


def tolerant(pattern: str) -> str:
    """Returns a pattern for plainly written texts, in which ``i`` and ``l`` may stand for one another."""
    if "\\Q" in pattern:
        return pattern
    return _LITERALS.sub(lambda found: "[il1|!]" if found[2] else found[1], pattern)


@lru_cache(maxsize=512)
def compiled(pattern: str) -> Any:
    """Returns a pattern made ready; raises RuleUnusableError."""
    options = re2.Options()
    options.case_sensitive = False
    options.max_mem = _MEMORY_BYTES
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        why = error.args[0] if error.args else error
        text = why.decode(errors="replace") if isinstance(why, bytes) else str(why)
        raise RuleUnusableError(f"RE2 does not take the pattern: {text}") from None


def evaluate(rule: GateRule, read: list[Reading]) -> Findings:
    """Finds what any of the rule's patterns matches."""
    places: list[Found] = []
    for number, pattern in enumerate(rule.patterns, 1):
        as_written, in_plain = compiled(pattern), compiled(tolerant(pattern)) if rule.normalise else None
        for reading in read:
            for place, view in enumerate(reading.views(normalise=rule.normalise)):
                expression = in_plain if place and in_plain is not None else as_written
                for match in expression.finditer(view.text):
                    if match.end() > match.start():
                        places.append(found(reading, view, match.start(), match.end(), f"pattern {number}"))
    return told(places, "matched")
