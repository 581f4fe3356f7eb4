"""The verb ``eval``: its kinds and their options. One rule: nothing heavy is imported here."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from collegium_cli.printing import failed

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
    _head(_without_data(add)(kinds, "head", "How often a trained head is right, and how fast.", "head"))
    _domains(_without_data(add)(kinds, "domains", "Whether discovered domains are what people named.", "domains"))
    _router(_without_data(add)(kinds, "router", "How well models are chosen, and what that saves.", "router"))
    _promotions(
        _without_data(add)(kinds, "promotions", "How often promotions are wrong, and how soon right.", "promotions")
    )
    _replay(
        _without_data(add)(kinds, "replay", "What a recorded pool costs and reaches as the platform learns.", "replay")
    )
    _experiments(_without_data(add)(kinds, "experiments", "How often experiments are decided wrongly.", "experiments"))
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
            return failed("collegium eval", error)
        return code

    return run


def _promotions(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--runs", type=int, default=10_000, help="students of each win rate")
    verb.add_argument("--pairs-max", type=int, default=300, help="discordant pairs of a trial")


def _replay(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--data", type=Path, required=True, help="recorded outcomes of a pool's models, by question")
    verb.add_argument("--train", type=Path, help="other such rows: the best model of these is the teacher")
    verb.add_argument("--feedback", type=float, default=0.3, help="the share of rows whose label is told")
    verb.add_argument(
        "--plan", choices=["auto", "cascade"], default="auto", help="one model answers a row, or as many as it takes"
    )
    verb.add_argument(
        "--answer", choices=["text", "number", "choice", "json"], default="", help="the type of the rows' answers"
    )
    verb.add_argument("--requests", type=int, default=0, help="send so many rows, drawn by the seed (default: all)")
    verb.add_argument(
        "--models", type=lambda text: text.split(","), metavar="A,B", help="those of the pool (default: all)"
    )
    verb.add_argument("--prices", type=Path, help="JSON: what each model costs, and its rank where one is wanted")
    verb.add_argument("--interval", type=int, default=50, help="rows between two rounds of learning")
    verb.add_argument("--after", type=int, default=300, help="rows before the marginal figures begin")
    verb.add_argument("--shadow-share", type=float, default=1.0, help="of teachers' answers, asked of a cheaper model")
    verb.add_argument("--audit-share", type=float, default=0.05, help="of others' answers, asked of a teacher")
    verb.add_argument("--budget-share", type=float, default=0.1, help="what probes may cost of what work costs")
    verb.add_argument("--exploration", type=float, default=0.03, help="the share of tasks given away to learn")
    verb.add_argument("--csv", type=Path, help="write the learning curve")
    verb.add_argument("--plot", type=Path, help="write the learning curve as SVG")


def _experiments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--runs", type=int, default=10_000, help="experiments of each pair of qualities")
    verb.add_argument("--units-max", type=int, default=2_000, help="judged units of an experiment")
    verb.add_argument("--level", type=float, default=0.05)


def _retrieval(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--corpus", type=Path, required=True, help="documents to search")
    verb.add_argument("--data", type=Path, required=True, help="questions with what is relevant to them")
    verb.add_argument("--train", type=Path, help="other such questions, to fit the dense side's weight on")


def _head(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--train", type=Path, help="rows to learn from: a text and its class")
    verb.add_argument("--data", type=Path, required=True, help="rows to measure on")
    verb.add_argument(
        "--splits", type=int, default=0, help="instead: learn on three quarters of --data, so often, and measure on one"
    )


def _domains(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--data", type=Path, required=True, help="rows: a text and its class")
    verb.add_argument("--rows", type=int, default=0, help="at most so many of them, drawn at random")


def _router(verb: argparse.ArgumentParser) -> None:
    _learned(verb)
    verb.add_argument("--weak", metavar="MODEL", help="the cheaper of two")
    verb.add_argument("--strong", metavar="MODEL", help="the dearer of two")
    verb.add_argument("--models", choices=["all"], help="instead: choose among all models that the rows have")
    verb.add_argument(
        "--loss-max", type=float, default=0.01, help="with --models all: what may be lost against the best single one"
    )
    verb.add_argument(
        "--splits", type=int, default=0, help="instead: halve --train and --data together so often, at random"
    )


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
