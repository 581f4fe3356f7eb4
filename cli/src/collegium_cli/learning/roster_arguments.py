"""Options of ``model add``, ``set``, ``show`` and ``remove``."""

from __future__ import annotations

import argparse
from pathlib import Path

ACTIONS = ("add", "set", "show", "remove")
LISTS = ("domains", "capabilities", "fallbacks")


def add_roster(model: argparse.ArgumentParser) -> None:
    """Adds what ``model add``, ``set``, ``show`` and ``remove`` take beside the model's name, rank and prices."""
    model.add_argument("--spec", type=Path, metavar="FILE", help="for add, set: an entry of models: as YAML or JSON")
    model.add_argument("--base-url", help="for add, set: where the model is")
    model.add_argument("--key", help="for add, set: the name of its key under roster.keys of the configuration")
    model.add_argument("--upstream-model", help="for add, set: what the endpoint calls it (default: its name)")
    model.add_argument("--pool", help="for add, set: the worker pool that calls it")
    model.add_argument("--endpoint", action="append", metavar="URL", help="for add, set: one more endpoint of it")
    for name in LISTS:
        model.add_argument(f"--{name}", metavar="A,B", help=f"for add, set: its {name}")
    model.add_argument("--context-tokens", type=int, help="for add, set: how long its context is")
    model.add_argument("--max-output-tokens", type=int, help="for add, set: how long its answers are at most")
    model.add_argument("--label", action="append", metavar="NAME=VALUE", help="for add, set")
    model.add_argument("--force", action="store_true", help="for add, set: whatever the probes say")
