"""Options of ``billing`` and of a model's prices."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_prices(model: argparse.ArgumentParser) -> None:
    """Adds what ``model price``, ``prices`` and ``withdraw`` take."""
    model.add_argument("name", nargs="?", help="the model to show prices of, or to price")
    for prefix, of in (("", "dollars per million tokens that we pay"), ("charge-", "the same, that tenants pay")):
        for name in ("input", "cached-input", "cache-write", "output", "reasoning"):
            model.add_argument(f"--{prefix}{name}", metavar="USD", help=of)
        model.add_argument(f"--{prefix}call", metavar="USD", help="dollars per call")
    model.add_argument("--charge-markup", metavar="FACTOR", help="tenants pay the cost times this")
    model.add_argument("--from", dest="since", metavar="TIME", help="they apply from this time on (RFC 3339), not now")
    model.add_argument("--version", type=int, help="the scheduled version that `withdraw` takes back")
    model.add_argument("--dry-run", action="store_true")


def add_billing(billing: argparse.ArgumentParser) -> None:
    """Adds what the actions of ``billing`` take."""
    billing.add_argument("action", choices=["audit", "correct", "compare"])
    billing.add_argument("--from", dest="since", help="audit from this time (default: the first transaction)")
    billing.add_argument("--to", dest="until", help="audit up to this time (default: now)")
    billing.add_argument("--id", help="of a correction: made once, however often it is asked for")
    billing.add_argument("--tenant")
    billing.add_argument("--usd", help="what the tenant owes more; less with a minus: --usd=-1.50")
    billing.add_argument("--reason")
    billing.add_argument("--csv", type=Path, help="a provider's usage, to compare with")
    billing.add_argument("--model-column", default="model")
    billing.add_argument("--day-column", default="date")
    billing.add_argument("--input-column", default="input_tokens", help="empty: not compared (likewise below)")
    billing.add_argument("--output-column", default="output_tokens")
    billing.add_argument("--cost-column", default="cost_usd")
    billing.add_argument("--name", action="append", default=[], metavar="THEIRS=OURS", help="a model's other name")
    billing.add_argument("--all", action="store_true", help="also show what does not differ")
    billing.add_argument("--dry-run", action="store_true")
