"""Options of what learning shows and takes: ranks of models, scoreboards, gaps, policies, rounds."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from collegium_cli.learning.domain_arguments import ABOUT, add_domains
from collegium_cli.learning.policy_arguments import add_policies

ACTIONS = ("rank", "drain", "resume", "health")


def add_ranks(model: argparse.ArgumentParser) -> None:
    """Adds what ``model rank`` takes beside the model's name."""
    model.add_argument("rank", nargs="?", choices=["student", "ta", "teacher"], help="for rank: give it this one")
    model.add_argument("--domain", help="for rank: in this domain alone (empty: where none is stated)")
    model.add_argument("--tenant", help="for rank: for this tenant alone")
    model.add_argument("--reason", default="", help="for rank: why, for the history")
    model.add_argument("--rollback", action="store_true", help="for rank: take the newest change back")


def add_evolution(verbs: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the verbs ``scoreboard``, ``gap`` and ``evolution``; ``add`` gives each what every verb takes."""
    board = add(verbs, "scoreboard", "Shows what models did of late, and what has changed.", _scoreboard)
    board.add_argument("--tenant", help="of one tenant (default: all together, or the key's own)")
    board.add_argument("--model")
    board.add_argument("--domain")
    board.add_argument("--half-life", type=float, metavar="DAYS", help="after how long the past counts half")
    gap = add(verbs, "gap", "Lists and shows domains whose answers are not good enough.", _gap)
    gap.add_argument("action", choices=["ls", "show"])
    gap.add_argument("id", nargs="?", default="", help="for show: the gap's id, which begins with its tenant or *")
    gap.add_argument("--tenant", help="of one tenant (default: all together, or the key's own)")
    gap.add_argument("--limit", type=int, default=50)
    add_domains(add(verbs, "domain", ABOUT, _domain))
    add_policies(add(verbs, "policy", "Shows which policies choose models, and takes one back.", _policy))
    rounds = add(verbs, "evolution", "Lists, shows and begins rounds of learning.", _evolution)
    rounds.add_argument("action", choices=["ls", "show", "run"])
    rounds.add_argument("id", nargs="?", help="for show: the round (default: the newest)")
    rounds.add_argument("--limit", type=int, default=20)
    rounds.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="for run: until it has ended")
    rounds.add_argument("--dry-run", action="store_true")


def _scoreboard(options: argparse.Namespace) -> int:
    from collegium_cli.learning.evolution import scoreboard

    return scoreboard(options)


def _gap(options: argparse.Namespace) -> int:
    from collegium_cli.learning.evolution import gaps

    return gaps(options)


def _domain(options: argparse.Namespace) -> int:
    from collegium_cli.learning.domains import run

    return run(options)


def _policy(options: argparse.Namespace) -> int:
    from collegium_cli.learning.policies import run

    return run(options)


def _evolution(options: argparse.Namespace) -> int:
    from collegium_cli.learning.evolution import rounds

    return rounds(options)
