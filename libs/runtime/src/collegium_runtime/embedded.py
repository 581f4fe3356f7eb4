"""The embedded model as the roster knows it.

Its price is nominal (it runs on the operator's own processor), so that budgets and ledgers show something to look at.
"""

from __future__ import annotations

from collegium_contracts.money import Price
from collegium_contracts.state import ModelRecord

CONTEXT_TOKENS = 2048
MAX_OUTPUT_TOKENS = 256
# 0.01 and 0.03 dollars per million tokens.
NOMINAL_PRICE = Price(input_picos=10_000, output_picos=30_000)


def embedded_record(name: str) -> ModelRecord:
    """Returns the roster record of the bundled model."""
    return ModelRecord(
        name=name,
        rank="student",
        pool="general",
        price=NOMINAL_PRICE,
        charge=NOMINAL_PRICE,
        max_output_tokens=MAX_OUTPUT_TOKENS,
        context_tokens=CONTEXT_TOKENS,
    )
