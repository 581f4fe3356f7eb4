"""Options of the verb ``approval``, and of ``task input``."""

from __future__ import annotations

import argparse


def add_input(verb: argparse.ArgumentParser) -> None:
    """Adds what an answer is made of."""
    deciding = verb.add_mutually_exclusive_group()
    deciding.add_argument("--approve", dest="decision", action="store_const", const="approve", help="answer: go on")
    deciding.add_argument("--deny", dest="decision", action="store_const", const="deny", help="answer: no")
    verb.add_argument("--text", help="an answer of one's own, where one is wanted")
    verb.add_argument("--question", help="which question, where a task has several")


def add_approvals(verb: argparse.ArgumentParser) -> None:
    """Adds what the actions of ``approval`` take."""
    verb.add_argument("action", choices=["ls", "show", "claim", "return", "move", "answer"])
    verb.add_argument("id", nargs="*", help="questions, as ls shows them; claim without one takes the next")
    verb.add_argument("--state", choices=["open", "answered", "expired", "closed"], default=None)
    verb.add_argument(
        "--queue", action="append", default=[], help="of these, for ls and claim; into this one, for move"
    )
    verb.add_argument("--label", action="append", default=[], help="with one of these labels, for ls and claim")
    verb.add_argument("--tenant")
    verb.add_argument("--limit", type=int, default=50)
    verb.add_argument("--comment", default="", help="answer, move: why")
    verb.add_argument("--dry-run", action="store_true")
    add_input(verb)
