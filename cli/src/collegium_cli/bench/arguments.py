"""The verb ``bench``: its kinds and their options. One rule: nothing heavy is imported here."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from collegium_cli.printing import failed

Add = Callable[[argparse._SubParsersAction, str, str, Callable[[argparse.Namespace], int]], argparse.ArgumentParser]  # pyright: ignore[reportPrivateUsage, reportMissingTypeArgument]

_ABOUT = "Measures the platform beside a direct call and, where given, peers."


def add_benchmarks(verbs: argparse._SubParsersAction, add: Add) -> None:  # pyright: ignore[reportPrivateUsage, reportMissingTypeArgument, reportUnknownParameterType]
    """Adds ``bench`` with its kinds; ``add`` gives each the options that every verb takes."""
    bench = verbs.add_parser("bench", help=_ABOUT, description=_ABOUT)
    kinds = bench.add_subparsers(title="kinds", metavar="KIND", required=True)
    _gateway(add(kinds, "gateway", "What a chat call costs beside a direct one.", _runs("gateway")))
    _cache(add(kinds, "cache", "What a reused answer costs, and how many a second.", _runs("cache")))
    _tasks(add(kinds, "tasks", "Tasks a second from submit to completed, every guarantee on.", _runs("tasks")))
    _fairness(
        add(kinds, "fairness", "What a tenant waits beside a greedy one, and shares by weight.", _runs("fairness"))
    )
    _holds(add(kinds, "holds", "Holds and captures a second, with budgets that cover them.", _runs("holds")))
    _failover(add(kinds, "failover", "How long a killed process is felt, and what is lost.", _runs("failover")))
    _usage(add(kinds, "usage", "How long usage reports take over many booked rows.", _runs("usage")))
    _gates(add(kinds, "gates", "What gates add to a request, rule by rule and all at once.", _runs("gates")))
    _scoreboards(add(kinds, "scoreboards", "How long evolution takes to fold settled tasks.", _runs("scoreboards")))
    _search(add(kinds, "search", "How long hybrid questions to the embedded vector store take.", _runs("search")))
    _distillation(
        add(kinds, "distillation", "How long a round takes to make a student of samples.", _runs("distillation"))
    )
    _swaps(add(kinds, "swaps", "Whether tasks are dropped or delayed where a policy is swapped.", _runs("swaps")))
    _documents(add(kinds, "documents", "How long many short documents take until they are found.", _runs("documents")))


def _runs(kind: str) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        from collegium_cli.bench.stage import StageError

        try:
            code: int = import_module(f"collegium_cli.bench.{kind}").main(options)
        except StageError as error:
            return failed("collegium bench", error)
        return code

    return run


def _gates(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--requests", type=_count, default=400, help="requests that are measured")
    verb.add_argument("--bytes", type=_count, default=1024, help="length of each")


def _gateway(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--clients", default="1,16,64", help="numbers of clients, by comma")
    verb.add_argument("--seconds", type=float, default=5.0)
    verb.add_argument("--sample-ratio", type=float, default=0.1)
    verb.add_argument("--peer-url", default="", help="base URL of another gateway with the simulator behind it")
    verb.add_argument("--peer-key", default="")
    verb.add_argument("--peer-model", default="sim")
    verb.add_argument("--simulator-port", type=int, default=0)


def _cache(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--clients", default="16,64", help="numbers of clients of exact hits, by comma")
    verb.add_argument("--seconds", type=float, default=5.0)
    verb.add_argument(
        "--alike", type=_count, default=95, help="questions that are asked again in other words, at most 95"
    )
    verb.add_argument("--alike-clients", type=_count, default=4, help="how many of them at a time")


def _tasks(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--tasks", type=_count, default=10_000)
    verb.add_argument("--clients", type=_count, default=64, help="submitters at a time")
    verb.add_argument("--via", choices=["http", "grpc"], default="http")
    verb.add_argument("--wait-seconds", type=int, default=0, help="each submitter waits so long for its task to settle")
    verb.add_argument("--sample-ratio", type=float, default=0.0, help="share of tasks traced")
    verb.add_argument("--memory", action="store_true", help="sample every process's memory along the way")
    verb.add_argument("--profile", action="store_true", help="say where each service's processor time went")
    verb.add_argument("--apart", type=_names, default=(), help="services that get a process of their own, by comma")
    verb.add_argument("--peers", type=_names, default=(), help="celery, taskiq, bare: the same work elsewhere")
    verb.add_argument("--peer-python", type=Path, help="the Python that has the peers installed (benchmarks/peers)")
    verb.add_argument("--redis-server", default="redis-server", help="Redis's program, for celery")


def _fairness(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--part", choices=["neighbour", "weights", "both"], default="both")
    verb.add_argument("--seconds", type=float, default=20.0, help="how long the neighbours submit")
    verb.add_argument("--times", type=float, default=100.0, help="times its share that the greedy tenant submits")
    verb.add_argument("--model-ms", type=float, default=50.0, help="how long the model takes")
    verb.add_argument("--concurrency", type=_count, default=1, help="calls the model takes at a time")
    verb.add_argument("--backlog", type=_count, default=1_000, help="tasks of each tenant, for the weights")


def _holds(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--holds", type=_count, default=20_000)
    verb.add_argument("--askers", type=_count, default=64, help="askers at a time")
    verb.add_argument("--tenants", type=_count, default=100, help="tenants of the first part")


def _failover(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--kill", type=_names, default=(), help="what to kill, by comma (default: each in turn)")
    verb.add_argument("--rate", type=float, default=40.0, help="tasks a second submitted throughout")
    verb.add_argument("--model-ms", type=float, default=200.0, help="how long the model takes")
    verb.add_argument("--before-seconds", type=float, default=4.0, help="load before the kill")
    verb.add_argument("--after-seconds", type=float, default=30.0, help="load after the kill")


def _usage(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--rows", type=_count, default=200_000, help="tasks in the books")
    verb.add_argument("--questions", type=_count, default=200, help="questions of each kind")


def _scoreboards(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--events", type=_count, default=1_000_000, help="settled tasks")


def _search(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--chunks", type=_count, default=50_000, help="chunks of 384 dimensions")
    verb.add_argument("--tenants", type=_count, default=10, help="tenants that share them")
    verb.add_argument("--questions", type=_count, default=1_000)
    verb.add_argument("--quantized", action="store_true", help="vectors of eight bits a number beside the whole ones")


def _documents(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--documents", type=_count, default=10_000)
    verb.add_argument("--words", type=_count, default=16, help="of each")
    verb.add_argument("--clients", type=_count, default=16, help="that add them at a time")
    verb.add_argument("--flood", type=_count, default=0, help="large documents of another tenant, embedded meanwhile")


def _swaps(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--seconds", type=float, default=40.0, help="half of them with swaps")
    verb.add_argument("--clients", type=_count, default=8, help="that ask at a time")
    verb.add_argument("--every", type=float, default=0.5, metavar="SECONDS", help="between two swaps")
    verb.add_argument("--model-ms", type=float, default=20.0, help="how long the model takes")


def _distillation(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--samples", type=_count, default=10_000, help="questions that are taught and judged")
    verb.add_argument("--questions", type=Path, help="rows of a text and its class, one a line (default: made ones)")
    verb.add_argument("--clients", type=_count, default=16, help="that ask at a time")


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _count(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
