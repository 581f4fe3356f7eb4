"""What gates did, summed up from the audit trail. Pure.

One rule: a row names who, by which rule and version, with which result; what was read stands nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from collegium_contracts.audit import AuditRecord

from collegium_gateway.tasks.views import rfc3339

SUMS: Final = (
    "tenant",
    "project",
    "actor",
    "rule",
    "version",
    "kind",
    "point",
    "result",
    "count",
    "first_at",
    "last_at",
)
DECISIONS: Final = (
    "at", "tenant", "project", "actor", "task", "rule", "version", "kind", "point", "result", "reason", "places",
)  # fmt: skip
_KEY: Final = SUMS[:8]


class Report:
    """Sums over records as they are fed: who, what, which rule, which result; and each decision where asked for."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], list[int]] = {}
        self.decisions: list[dict[str, Any]] = []
        self.totals: dict[str, int] = {}

    def feed(self, records: Iterable[AuditRecord], *, details: bool) -> None:
        """Counts records; ``details`` keeps each as a row."""
        for record in records:
            said = {**record.details, "result": record.action.partition(".")[2], "actor": record.actor}
            said["tenant"] = record.tenant
            key = tuple(said.get(name, "") for name in _KEY)
            sums = self._sums.setdefault(key, [0, record.at_ms, record.at_ms])
            sums[0] += record.count
            sums[1], sums[2] = min(sums[1], record.at_ms), max(sums[2], record.at_ms)
            self.totals[said["result"]] = self.totals.get(said["result"], 0) + record.count
            if details:
                about = {"at": rfc3339(record.at_ms), "task": record.object, "reason": record.reason}
                row = {**said, **about}
                self.decisions.append({name: row.get(name, "") for name in DECISIONS})

    def sums(self) -> list[dict[str, Any]]:
        """Returns the rows, in the order of their names."""
        return [
            {
                **dict(zip(_KEY, key, strict=True)),
                "count": count,
                "first_at": rfc3339(first),
                "last_at": rfc3339(last),
            }
            for key, (count, first, last) in sorted(self._sums.items())
        ]


class GatesRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``PUT /v1/admin/tenants/{id}/gates``: the rules that its requests pass beside those for everyone, and what its
    operator vouches for of all its users (``{"age": 21}``)."""

    gates: list[str]
    verified: dict[str, int] = {}


class GateTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/gates/test``: a text, and the rules to try on it as a request or an answer."""

    text: str
    gates: list[str]
    point: str = "request"
    verified: dict[str, Any] = {}


decode_gates = msgspec.json.Decoder(GatesRequest)
decode_test = msgspec.json.Decoder(GateTest)
