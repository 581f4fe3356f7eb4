"""US dollars as they are written (decimal strings, at most six decimals) and as they are counted (whole pico-dollars).

One rule: no float touches money, so a number that YAML reads as a float is refused and has to be quoted.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Context, Decimal, Inexact

from collegium_contracts.money import PICOS_PER_USD, picos_to_usd

__all__ = ["PICOS_PER_USD", "parse_usd", "picos_per_token", "picos_to_usd", "scale_picos", "usd_to_picos"]

USD_DECIMALS = 6
# A trillion dollars: more is a slip of the keyboard.
_USD_DIGITS = 12
_USD = re.compile(rf"\d{{1,{_USD_DIGITS}}}(?:\.\d{{1,{USD_DECIMALS}}})?", re.ASCII)
_DECIMAL = re.compile(r"(-?)(\d{1,40})(?:\.(\d{1,12}))?", re.ASCII)
_EXACT = Context(prec=60, traps=[Inexact])


def parse_usd(text: str) -> Decimal:
    """Reads an amount of dollars, zero or more, with at most six decimals; raises ValueError for anything else."""
    if _USD.fullmatch(text) is None:
        raise ValueError(text)
    return Decimal(text)


def usd_to_picos(text: str) -> int:
    """Reads a decimal string of dollars with at most twelve decimals as pico-dollars, exactly; the inverse of
    :func:`picos_to_usd`. Raises ValueError for exponents, spaces and everything that is no such number.
    """
    found = _DECIMAL.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no decimal number of dollars with at most 12 decimals")
    sign, dollars, fraction = found.groups()
    picos = int(dollars) * PICOS_PER_USD + int((fraction or "").ljust(12, "0"))
    return -picos if sign else picos


def picos_per_token(usd_per_mtok: Decimal) -> int:
    """Turns a price per million tokens (at most six decimals) into pico-dollars per token, exactly."""
    return int(_EXACT.multiply(usd_per_mtok, Decimal(10**6)))


def scale_picos(picos: int, markup: Decimal) -> int:
    """Multiplies a price by a markup, rounded half up to a whole pico-dollar per token."""
    return int((Decimal(picos) * markup).quantize(Decimal(1), rounding=ROUND_HALF_UP))
