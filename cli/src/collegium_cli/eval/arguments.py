"""The verb ``eval``: its kinds and their options. One rule: nothing heavy is imported here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

Add = Callable[[argparse._SubParsersAction, str, str, Callable[[argparse.Namespace], int]], argparse.ArgumentParser]  # pyright: ignore[reportPrivateUsage, reportMissingTypeArgument]

_ABOUT = "Replays recorded outcomes through what the platform decides by."


def add_evaluations(verbs: argparse._SubParsersAction, add: Add) -> None:  # pyright: ignore[reportPrivateUsage, reportMissingTypeArgument, reportUnknownParameterType]
    """Adds ``eval`` with its kinds; ``add`` gives each the options that every verb takes."""
    evaluate = verbs.add_parser("eval", help=_ABOUT, description=_ABOUT)
    kinds = evaluate.add_subparsers(title="kinds", metavar="KIND", required=True)
    _cache(_without_data(add)(kinds, "cache", "What the semantic cache would serve, and how often wrongly.", "cache"))
    _consensus(
        _without_data(add)(kinds, "consensus", "How often a panel's verdict is right, and says so.", "consensus")
    )
    _cascade(_without_data(add)(kinds, "cascade", "What a cascade saves of the strong model's calls.", "cascade"))
    _retrieval(_without_data(add)(kinds, "retrieval", "How well documents are found, by which signal.", "retrieval"))


def _without_data(add: Add) -> Callable[..., argparse.ArgumentParser]:
    def kind(kinds: argparse._SubParsersAction, name: str, about: str, module: str) -> argparse.ArgumentParser:  # pyright: ignore[reportPrivateUsage, reportMissingTypeArgument, reportUnknownParameterType]
        verb: argparse.ArgumentParser = kinds.add_parser(name, help=about, description=about)
        verb.set_defaults(run=_runs(module))
        verb.add_argument("--seed", type=int, default=1, help="of everything drawn at random")
        return verb

    return kind


def _runs(module: str) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        from collegium_cli.eval.reading import EvaluationError

        try:
            code: int = import_module(f"collegium_cli.eval.{module}").main(options)
        except EvaluationError as error:
            print(f"collegium eval: {error}", file=sys.stderr)
            return 1
        return code

    return run


def _retrieval(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--corpus", type=Path, required=True, help="documents to search")
    verb.add_argument("--data", type=Path, required=True, help="questions with what is relevant to them")
    verb.add_argument("--train", type=Path, help="other such questions, to fit the dense side's weight on")


def _cache(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--train", type=Path, help="rows to learn from (default: what the platform ships)")
    verb.add_argument("--data", type=Path, required=True, help="rows to measure on")
    verb.add_argument("--wrong-max", type=float, default=0.02, help="the share of wrong answers that is tolerated")
    verb.add_argument(
        "--splits", type=int, default=0, help="instead: halve --data so often, learn on one half, measure on the other"
    )
    verb.add_argument("--write", type=Path, help="write what was learned as a calibration file")


def _consensus(verb: argparse.ArgumentParser) -> None:
    _learned(verb)
    verb.add_argument("--models", required=True, metavar="A,B,C", help="the members of the panel, by name")


def _cascade(verb: argparse.ArgumentParser) -> None:
    _learned(verb)
    verb.add_argument("--weak", required=True, metavar="MODEL", help="who is asked first")
    verb.add_argument("--strong", required=True, metavar="MODEL", help="who is asked where that is not enough")
    verb.add_argument(
        "--loss-max", type=float, default=0.02, help="the accuracy that may be lost against the strong one"
    )
    verb.add_argument(
        "--splits", type=int, default=0, help="instead: halve --train and --data together so often, at random"
    )


def _learned(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--train", type=Path, required=True, help="rows to learn from")
    verb.add_argument("--data", type=Path, required=True, help="rows to measure on")
