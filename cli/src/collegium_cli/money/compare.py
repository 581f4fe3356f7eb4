"""A provider's usage against the books, by model and day. Pure.

One rule: money is compared as exact decimals; what stands on one side only is a difference too.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

Key = tuple[str, str]


class UsageFileError(Exception):
    """A provider's file cannot be read as usage; the text names the line and what was expected."""


class Columns(NamedTuple):
    """The names of a file's columns; an empty one is not compared."""

    model: str = "model"
    day: str = "date"
    input_tokens: str = "input_tokens"
    output_tokens: str = "output_tokens"
    cost: str = "cost_usd"


class Sums(NamedTuple):
    """What one side counted for a model on a day."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)

    def plus(self, other: Sums) -> Sums:
        """Returns the sum of both."""
        return Sums(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cost_usd + other.cost_usd,
        )


class Difference(NamedTuple):
    """One model and day: what the provider counted and what was booked."""

    model: str
    day: str
    provider: Sums
    booked: Sums

    @property
    def is_none(self) -> bool:
        """Whether both sides agree."""
        return self.provider == self.booked

    def row(self) -> dict[str, Any]:
        """Returns the provider's figures and what they have more than the books (less: below zero)."""
        return {
            "model": self.model,
            "day": self.day,
            "input_tokens": self.provider.input_tokens,
            "output_tokens": self.provider.output_tokens,
            "cost_usd": f"{self.provider.cost_usd:f}",
            "input_tokens_more": self.provider.input_tokens - self.booked.input_tokens,
            "output_tokens_more": self.provider.output_tokens - self.booked.output_tokens,
            "cost_usd_more": f"{self.provider.cost_usd - self.booked.cost_usd:f}",
        }


def read_file(lines: Iterable[str], columns: Columns, names: Mapping[str, str]) -> dict[Key, Sums]:
    """Returns a provider's sums by model and day; ``names`` gives our name of a model that it calls otherwise.

    Raises UsageFileError where a column is absent or a value is no count, amount or date.
    """
    reader = csv.DictReader(lines)
    missing = [name for name in columns if name and name not in (reader.fieldnames or ())]
    if missing:
        raise UsageFileError(f"there is no column {missing[0]!r}; there are: {', '.join(reader.fieldnames or ())}")
    sums: dict[Key, Sums] = {}
    for row in reader:
        try:
            model = names.get(row[columns.model], row[columns.model])
            key = (model, _day(row[columns.day]))
            counted = Sums(
                _count(row[columns.input_tokens]) if columns.input_tokens else 0,
                _count(row[columns.output_tokens]) if columns.output_tokens else 0,
                _amount(row[columns.cost]) if columns.cost else Decimal(0),
            )
        except (ValueError, InvalidOperation, TypeError, AttributeError) as error:
            raise UsageFileError(f"line {reader.line_num} is no usage: {error}") from None
        sums[key] = sums.get(key, Sums()).plus(counted)
    return sums


def booked_sums(rows: Iterable[Mapping[str, Any]], columns: Columns) -> dict[Key, Sums]:
    """Returns our sums by model and day from the rows of ``/v1/admin/ledger/calls``; what is not compared is zero."""
    return {
        (row["model"], row["day"]): Sums(
            row["input_tokens"] if columns.input_tokens else 0,
            row["output_tokens"] if columns.output_tokens else 0,
            Decimal(row["cost_usd"]) if columns.cost else Decimal(0),
        )
        for row in rows
    }


def compare(provider: Mapping[Key, Sums], booked: Mapping[Key, Sums]) -> list[Difference]:
    """Returns every model and day of either side, by day and model."""
    keys = sorted({*provider, *booked}, key=lambda key: (key[1], key[0]))
    return [Difference(*key, provider.get(key, Sums()), booked.get(key, Sums())) for key in keys]


def _day(text: str) -> str:
    moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    return (moment.astimezone(UTC) if moment.tzinfo is not None else moment).date().isoformat()


def _count(text: str) -> int:
    count = int(text.strip().replace(",", "") or 0)
    if count < 0:
        raise ValueError(f"{count} is below zero")
    return count


def _amount(text: str) -> Decimal:
    amount = Decimal(text.strip().removeprefix("$") or 0)
    if not amount.is_finite():
        raise ValueError(f"{amount} is no amount")
    return amount
