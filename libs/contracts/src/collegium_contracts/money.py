"""Prices and what a call costs, in whole pico-dollars (10⁻¹² USD).

A price of at most six decimals per million tokens is a whole number of pico-dollars per token, so cost is a sum of
integer products and never rounded. One rule: no float touches money.
"""

from __future__ import annotations

import msgspec

PICOS_PER_USD = 10**12


class Price(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model costs, in pico-dollars per token by class, and per call.

    ``None`` for a class means the class above it applies: cached input and cache writes cost as input, reasoning as
    output.
    """

    input_picos: int = 0
    output_picos: int = 0
    cached_input_picos: int | None = None
    cache_write_picos: int | None = None
    reasoning_picos: int | None = None
    call_picos: int = 0


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens of one call or of a whole task, and their money.

    ``input_tokens`` includes ``cached_input_tokens`` (read from the endpoint's cache) and ``cache_write_tokens``
    (written to it); ``output_tokens`` includes ``reasoning_tokens``. ``estimated`` is true where the endpoint gave no
    counts and they were derived from the text.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    cost_usd_picos: int = 0
    charge_usd_picos: int = 0
    cache_write_tokens: int = 0


def by_class(price: Price) -> dict[str, int]:
    """Returns pico-dollars per token of every class, and per ``call``; nothing is left to another class."""

    def given(picos: int | None, otherwise: int) -> int:
        return otherwise if picos is None else picos

    return {
        "input": price.input_picos,
        "cached_input": given(price.cached_input_picos, price.input_picos),
        "cache_write": given(price.cache_write_picos, price.input_picos),
        "output": price.output_picos,
        "reasoning": given(price.reasoning_picos, price.output_picos),
        "call": price.call_picos,
    }


def cost_usd_picos(price: Price, usage: Usage) -> int:
    """Returns the cost of one call in pico-dollars: input by its three classes, output by its two, and the call."""
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens - cached)
    reasoning = min(usage.reasoning_tokens, usage.output_tokens)
    cached_picos = price.input_picos if price.cached_input_picos is None else price.cached_input_picos
    write_picos = price.input_picos if price.cache_write_picos is None else price.cache_write_picos
    reasoning_picos = price.output_picos if price.reasoning_picos is None else price.reasoning_picos
    return (
        (usage.input_tokens - cached - written) * price.input_picos
        + cached * cached_picos
        + written * write_picos
        + (usage.output_tokens - reasoning) * price.output_picos
        + reasoning * reasoning_picos
        + price.call_picos
    )


def add_usage(first: Usage, second: Usage) -> Usage:
    """Returns the sum of two usages; the sum is estimated when either part is."""
    return Usage(
        input_tokens=first.input_tokens + second.input_tokens,
        output_tokens=first.output_tokens + second.output_tokens,
        cached_input_tokens=first.cached_input_tokens + second.cached_input_tokens,
        reasoning_tokens=first.reasoning_tokens + second.reasoning_tokens,
        estimated=first.estimated or second.estimated,
        cost_usd_picos=first.cost_usd_picos + second.cost_usd_picos,
        charge_usd_picos=first.charge_usd_picos + second.charge_usd_picos,
        cache_write_tokens=first.cache_write_tokens + second.cache_write_tokens,
    )


def picos_to_usd(picos: int) -> str:
    """Writes pico-dollars as a decimal string of dollars, exact, without an exponent and without trailing zeros."""
    sign, whole = ("-", -picos) if picos < 0 else ("", picos)
    dollars, rest = divmod(whole, PICOS_PER_USD)
    fraction = f"{rest:012d}".rstrip("0")
    return f"{sign}{dollars}.{fraction}" if fraction else f"{sign}{dollars}"
