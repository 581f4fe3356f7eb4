"""Options of the verb ``gate``."""

from __future__ import annotations

import argparse


def add_gates(verb: argparse.ArgumentParser) -> None:
    """Adds what the actions of ``gate`` take."""
    verb.add_argument("action", choices=["ls", "test", "show", "set", "clear", "report"])
    verb.add_argument("what", nargs="*", metavar="TEXT | TENANT", help="the text for test, the tenant for show and set")
    verb.add_argument("--gate", action="append", default=[], metavar="NAME", help="a rule, for test and set")
    verb.add_argument("--on", choices=["request", "answer", "tool"], default="request", help="for test")
    verb.add_argument("--age", type=int, help="the age that is vouched for, for test and set")
    verb.add_argument("--tenant", help="for report")
    verb.add_argument("--from", dest="since", metavar="TIME", help="for report: since then")
    verb.add_argument("--to", dest="until", metavar="TIME", help="for report: before then")
    verb.add_argument("--details", action="store_true", help="report: each decision, not their sums")
    verb.add_argument("--csv", action="store_true", help="report: as CSV")
    verb.add_argument("--dry-run", action="store_true")
