"""Options of ``doc``."""

from __future__ import annotations

import argparse


def add_documents(verb: argparse.ArgumentParser) -> None:
    """Adds what the actions of ``doc`` take."""
    verb.add_argument("action", choices=["add", "ls", "rm", "search"])
    verb.add_argument("what", nargs="*", metavar="FILE | ID | QUESTION", help="files to add, ids to remove, a question")
    verb.add_argument("--id", default="", help="of one added file (default: named by its content)")
    verb.add_argument("--type", choices=["text", "markdown", "html", "pdf"], help="default: by the file's ending")
    verb.add_argument("--title", default="")
    verb.add_argument("--tag", action="append", default=[], help="of added files; for search: results must have it")
    verb.add_argument("--fields", default="", metavar="JSON", help="of added files: what filters may ask for")
    verb.add_argument("--replace", action="store_true", help="with --id: put another content in its place")
    verb.add_argument("--wait", type=int, default=60, help="seconds to wait until an added file is searchable")
    verb.add_argument("--state", choices=["accepted", "indexed", "failed"], help="for ls")
    verb.add_argument("--limit", type=int, default=10)
    verb.add_argument("--mode", choices=["hybrid", "dense", "words"], default="hybrid", help="for search")
    verb.add_argument("--filter", default="", metavar="JSON", help="for search: filters, as POST /v1/search takes them")
    verb.add_argument("--rewrite", action="store_true", help="for search: have a model put the question better, too")
    verb.add_argument("--expand", type=int, default=0, metavar="N", help="for search: N more wordings by a model")
    verb.add_argument("--model", default="", help="for --rewrite and --expand (default: search.rewrite_model)")
    verb.add_argument("--rerank", action="store_true", help="for search: rank the first results again")
    verb.add_argument("--explain", action="store_true", help="for search: what each signal said")
    verb.add_argument("--dry-run", action="store_true")
