"""Options of the verbs ``memory``, ``context`` and ``conversation``."""

from __future__ import annotations

import argparse

ACTIONS = ("add", "recall", "ls", "show", "explain", "correct", "forget", "path", "paths", "grant", "grants", "revoke")

_PROJECT = "another project's than the key's own (the key needs the scope admin)"


def add_memory(memory: argparse.ArgumentParser) -> None:
    """Adds what the actions of ``memory`` take."""
    memory.add_argument("action", choices=ACTIONS)
    memory.add_argument(
        "what",
        nargs="*",
        metavar="TEXT | QUESTION | ID",
        help="a text for add, a question for recall, else ids; for correct an id and the new text",
    )
    memory.add_argument(
        "--path", help="where, for instance web/ada (default for add, recall and ls: the key's project's, or /)"
    )
    memory.add_argument("--kind", default="", help="of what is added")
    memory.add_argument("--valid-from", metavar="TIME", help="since when it is true (default: now)")
    memory.add_argument("--valid-to", metavar="TIME", help="until before when (default: for good)")
    memory.add_argument("--as-of", metavar="TIME", help="recall what is true at a time")
    memory.add_argument("--known-at", metavar="TIME", help="recall what was known at a time")
    memory.add_argument("--question", help="explain whether this recalls it")
    memory.add_argument("--task", help="explain whether this task was told it")
    memory.add_argument("--limit", type=int, default=10)
    memory.add_argument("--all", action="store_true", help="ls: also superseded and forgotten ones")
    memory.add_argument("--off", choices=["yes", "no"], help="path: switch memory off there and below")
    memory.add_argument("--inherits", choices=["yes", "no"], help="path: whether it sees what lies above it")
    memory.add_argument("--reader", help="grant: the path that may read")
    memory.add_argument("--source", help="grant: what it may read, with all below")
    memory.add_argument("--dry-run", action="store_true")


def add_context(context: argparse.ArgumentParser) -> None:
    """Adds what the actions of ``context`` take."""
    context.add_argument("action", choices=["ls", "get", "put", "rm"])
    context.add_argument("what", nargs="*", metavar="ID [FIELDS]", help="ids; for put an id and a JSON object")
    context.add_argument("--file", help="put: read the fields from a file")
    context.add_argument("--merge", action="store_true", help="put: over the fields that stand; null removes one")
    context.add_argument(
        "--expect", type=int, metavar="VERSION", help="put, rm: only where this version stands (0: none does)"
    )
    context.add_argument("--version", type=int, help="get: an earlier version")
    context.add_argument("--versions", action="store_true", help="get: which versions there are")
    context.add_argument(
        "--project", metavar="ID", help="whose they are (with an administrator's key; default: the key's own)"
    )
    context.add_argument("--limit", type=int, default=100)
    context.add_argument("--dry-run", action="store_true")


def add_conversation(conversation: argparse.ArgumentParser) -> None:
    """Adds what the actions of ``conversation`` take."""
    conversation.add_argument("action", choices=["ls", "show", "rm"])
    conversation.add_argument("id", nargs="*", help="ids of conversations")
    conversation.add_argument("--turn", metavar="TASK", help="rm: this task's turn alone")
    conversation.add_argument(
        "--project", metavar="ID", help="whose they are (with an administrator's key; default: the key's own)"
    )
    conversation.add_argument("--limit", type=int, default=100, help="conversations, or the newest turns of one")
    conversation.add_argument("--dry-run", action="store_true")
