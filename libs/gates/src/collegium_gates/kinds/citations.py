"""Answers that must name their sources: at least so many citations. Pure.

A citation is a bracketed number ``[1]``, a footnote ``[^1]``, an author and year in brackets, a DOI, or a web address;
with ``sources`` an address counts only on one of these hosts. One rule: whether a source says what it is
cited for is not judged.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from collegium_contracts.gates import GateRule

from collegium_gates.finding import NOTHING, Findings, Reading

_MARK: Final = re.compile(r"\[\^?\d{1,3}\]|\([A-Z][\w'’.&\- ]{1,60},? (?:19|20)\d{2}[a-z]?\)|\b10\.\d{4,9}/\S{2,80}")
_URL: Final = re.compile(r"https?://[^\s<>()\[\]\"']{3,300}")


def evaluate(rule: GateRule, read: list[Reading]) -> Findings:
    """Says so where there are fewer citations than asked for."""
    least = max(1, rule.minimum)
    cited: set[str] = set()
    for reading in read:
        text = reading.unit.text
        addresses = [found.group() for found in _URL.finditer(text)]
        cited.update(one for one in addresses if not rule.sources or _is_of(one, rule.sources))
        if not rule.sources:
            cited.update(found.group() for found in _MARK.finditer(text))
    if len(cited) >= least:
        return NOTHING
    return Findings(f"{len(cited)} of at least {least} citations", is_whole=True)


def _is_of(address: str, hosts: list[str]) -> bool:
    try:
        host = (urlsplit(address).hostname or "").lower()
    except ValueError:
        return False
    return any(host == one.lower() or host.endswith("." + one.lower()) for one in hosts)
