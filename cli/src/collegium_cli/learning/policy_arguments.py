"""Options of the verb ``policy``."""

from __future__ import annotations

import argparse


def add_policies(verb: argparse.ArgumentParser) -> None:
    """Adds what the actions of ``policy`` take."""
    verb.add_argument("action", choices=["show", "history", "rollback", "release"])
    verb.add_argument("tenants", nargs="*", metavar="TENANT", help="for show: all without one")
    verb.add_argument("--version", type=int, help="for rollback: which (default: the one before; 0: none at all)")
    verb.add_argument("--limit", type=int, default=20, help="for history")
    verb.add_argument("--dry-run", action="store_true")
