"""Options of the verb ``domain``."""

from __future__ import annotations

import argparse

ABOUT = "Lists, shows, renames and merges domains that were discovered in what tenants ask."


def add_domains(domain: argparse.ArgumentParser) -> None:
    """Adds what the verb ``domain`` takes."""
    domain.add_argument("action", choices=["ls", "show", "rename", "merge"])
    domain.add_argument("id", nargs="?", help="the domain, for all but ls")
    domain.add_argument("to", nargs="?", default="", help="for rename: its name; for merge: the other one's id")
    domain.add_argument("--tenant", help="for ls: of one tenant (default: all, or the key's own)")
    domain.add_argument("--all", action="store_true", help="for ls: those that were not found again too")
    domain.add_argument("--dry-run", action="store_true")
