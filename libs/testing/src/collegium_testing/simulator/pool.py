"""A recorded pool as a simulated model's answers: rows of what came of each model, and what its calls cost.

    {"id", "input", "domain", "outcomes": {model: {"score", "cost_usd", "answer"}}}      or
    {"id", "input", "domain", "gold", "answers": {model: text}, "correct": {model: 0 or 1}}

Where a pool has no texts, answers are made: all right ones of a question say the same, a wrong one says one of three
wrong things. A recorded cost becomes as many tokens as it buys at the model's price, so that whoever books the call by
its tokens books what was recorded. One rule: pure; equal rows and prices give equal answers in every process.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from collegium_testing.simulator.answers import count_tokens
from collegium_testing.simulator.script import RecordedUsage, Recording, ScriptError

# What an answer is taken to be where nothing was recorded of its length.
ANSWER_TOKENS: Final = 200
# Of prices made of models' sizes: dollars a million tokens for each billion parameters.
USD_PER_BILLION: Final = 0.01
_WRONG_WAYS: Final = 3
_DECIMALS: Final = 6
_SIZE: Final = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)b(?![a-z0-9])", re.IGNORECASE)


class Prices(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model costs (dollars, a million tokens or a call), and its first rank, where a table says one."""

    input_usd_per_mtok: float = 0.0
    output_usd_per_mtok: float = 0.0
    call_usd: float = 0.0
    rank: str | None = None


class Outcome(NamedTuple):
    """What came of a model: its score (0 to 1), its answer, and the tokens that its call is booked with."""

    score: float
    answer: str
    prompt_tokens: int
    completion_tokens: int


class PoolRow(NamedTuple):
    """One question with the outcomes of all models of the pool; a model without one was wrong."""

    id: str
    input: str
    domain: str
    outcomes: Mapping[str, Outcome]


def read_pool(path: Path) -> list[dict[str, Any]]:
    """Reads the rows of a pool (`.gz`: compressed); a question that comes twice counts once. Raises ScriptError."""
    content = path.read_bytes()
    rows: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(
        (gzip.decompress(content) if path.suffix == ".gz" else content).splitlines(), start=1
    ):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError as problem:
            raise ScriptError(f"{path}:{number}: {problem}") from problem
        text = str(row.get("input") or "").strip()
        if not text or not (row.get("outcomes") or row.get("correct")):
            raise ScriptError(f"{path}:{number}: a row of a pool has an input, and outcomes or correct")
        rows.setdefault(text, row)
    if not rows:
        raise ScriptError(f"{path} holds no rows")
    return list(rows.values())


def models_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns the models that rows name."""
    return sorted({name for row in rows for name in (row.get("outcomes") or row["correct"])})


def read_prices(path: Path) -> dict[str, Prices]:
    """Reads a table of prices, a JSON object by model; raises ScriptError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Prices])
    except (msgspec.DecodeError, OSError) as problem:
        raise ScriptError(f"{path}: {problem}") from problem


def stated_prices(rows: Sequence[Mapping[str, Any]], models: Sequence[str]) -> dict[str, Prices]:
    """Returns the prices that a pool states itself: by its recorded costs, else by the sizes in models' names.

    Raises ScriptError for a model of which neither says anything.
    """
    found: dict[str, Prices] = {}
    for model in models:
        costs = [cost for row in rows if (cost := _recorded(row, model).get("cost_usd")) is not None]
        if costs and sum(costs) > 0.0:
            usd = sum(costs) / len(costs) / ANSWER_TOKENS * 1e6
        elif size := _SIZE.search(model):
            usd = float(size[1]) * USD_PER_BILLION
        else:
            raise ScriptError(f"nothing tells what {model!r} costs: give a table of prices")
        found[model] = Prices(output_usd_per_mtok=max(round(usd, _DECIMALS), 10**-_DECIMALS))
    return found


def rows_of(rows: Iterable[Mapping[str, Any]], prices: Mapping[str, Prices]) -> list[PoolRow]:
    """Returns rows as they are served: of the models that have prices."""
    return [_row(row, prices) for row in rows]


def recordings_of(rows: Iterable[PoolRow]) -> list[Recording]:
    """Returns what the simulator replays."""
    return [
        Recording(
            input=row.input,
            answers={model: one.answer for model, one in row.outcomes.items()},
            usage_by_model={
                model: RecordedUsage(prompt_tokens=one.prompt_tokens, completion_tokens=one.completion_tokens)
                for model, one in row.outcomes.items()
            },
        )
        for row in rows
    ]


def cost_usd(outcome: Outcome, price: Prices) -> float:
    """Returns what a call is booked with."""
    tokens = outcome.prompt_tokens * price.input_usd_per_mtok + outcome.completion_tokens * price.output_usd_per_mtok
    return tokens / 1e6 + price.call_usd


def _recorded(row: Mapping[str, Any], model: str) -> Mapping[str, Any]:
    return (row.get("outcomes") or {}).get(model) or {}


def _row(row: Mapping[str, Any], prices: Mapping[str, Prices]) -> PoolRow:
    text = str(row["input"])
    prompt = count_tokens(text)
    outcomes: dict[str, Outcome] = {}
    for model, price in prices.items():
        recorded = _recorded(row, model)
        score = float(recorded.get("score") or (row.get("correct") or {}).get(model) or 0.0)
        said = recorded.get("answer") or (row.get("answers") or {}).get(model)
        answer = str(said) if said else _made(text, model, is_right=score >= 0.5)
        outcomes[model] = Outcome(score, answer, prompt, _tokens(recorded, price, prompt))
    return PoolRow(str(row.get("id") or ""), text, str(row.get("domain") or ""), outcomes)


def _tokens(recorded: Mapping[str, Any], price: Prices, prompt: int) -> int:
    cost = recorded.get("cost_usd")
    if cost is None or price.output_usd_per_mtok <= 0.0:
        return ANSWER_TOKENS
    left = float(cost) - price.call_usd - prompt * price.input_usd_per_mtok / 1e6
    return max(1, round(left / price.output_usd_per_mtok * 1e6))


def _made(text: str, model: str, *, is_right: bool) -> str:
    """Returns a number of the question's own: one for all who are right, one of three for those who are not."""
    way = 0 if is_right else 1 + zlib.crc32(f"{model}\0{text}".encode()) % _WRONG_WAYS
    return str(1_000 + zlib.crc32(f"{way}\0{text}".encode()) % 1_000_000)
