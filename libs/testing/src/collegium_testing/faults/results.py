"""The results of a run of the fault matrix: a line of JSON a fault, and the page that is made of them.

Run as ``python -m collegium_testing.faults.results RESULTS PAGE``; a fault that was played several times is shown as
it was last. One rule: the page says what the file says, and nothing that was not run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from collegium_testing.faults.checker import LAWS

COMMAND = "just chaos"

_HEAD = """# Faults

Made by `{command}`; do not edit.

Each fault is made on real processes under load: seven services, NATS, PostgreSQL, and a simulated model that counts its
calls. Tasks are single calls, panels of three whose members differ, and turns of a conversation. After each fault one
checker looks from outside (HTTP, the stream of events, the books, the simulator's own count) until every law holds:

{laws}

Recovery counts from the fault until every accepted task is terminal and every probe is true. Where it shows no limit,
the scenario itself decides how long the fault lasts.

To play one again: `COLLEGIUM_CHAOS=full COLLEGIUM_CHAOS_SEED=<seed> ./collegium test tests/chaos -k <fault>`, the
fault's name with hyphens. A failure prints the seed, the schedule and the journeys of the tasks concerned.

{count} faults, {held} held; last run {date}.

| fault | what happens | tasks | result | recovery | allowed |
|---|---|---|---|---|---|
"""
_LAWS = {
    "_nothing_is_missing": "no accepted task is missing, and each ends in a state that the fault allows",
    "_one_terminal_state": "each task has exactly one terminal message, and is shown as that says",
    "_one_charge": "each task has exactly one charge, the one that its terminal message names",
    "_charged_at_most_booked": "a task is charged for no more than is booked for it",
    "_booked_was_called": "what is booked was called, at no more than the endpoint's own count",
    "_called_is_accounted_for": "what was called is booked or listed as possible spend; booked to the last token where"
    " nothing was killed in flight",
    "_queues_are_empty": "queues drain to zero",
    "_permits_match": "permits in use are as many as attempts that run",
    "_failures_are_dead_letters": "every terminal failure has its dead letter",
    "_probes_tell_the_truth": "probes are true again (and were false while the broker was away)",
}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How one fault ended: ``outcome`` is ``held`` or ``failed``; ``remark`` says what was played in its place."""

    fault: str
    about: str
    outcome: str
    seed: int
    tasks: int
    recovery_seconds: float | None
    recovers_seconds_max: float | None
    took_seconds: float
    date: str
    remark: str = ""


def today() -> str:
    """Returns the date, in UTC."""
    return datetime.now(UTC).date().isoformat()


def append(path: Path, result: Result) -> None:
    """Adds a line to a results file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(msgspec.json.encode(result) + b"\n")


def read(path: Path) -> list[Result]:
    """Returns each fault's last result, in the order of the file."""
    lines = [line for line in path.read_bytes().splitlines() if line]
    results = [msgspec.json.decode(line, type=Result) for line in lines]
    return list({result.fault: result for result in results}.values())


def page(results: Sequence[Result]) -> str:
    """Returns the page."""
    head = _HEAD.format(
        command=COMMAND,
        laws="\n".join(f"- {_LAWS[law.__name__]};" for law in LAWS)[:-1] + ".",
        count=len(results),
        held=sum(result.outcome == "held" for result in results),
        date=max((result.date for result in results), default="never"),
    )
    return head + "".join(map(_row, results))


def _row(result: Result) -> str:
    recovery = "" if result.recovery_seconds is None else f"{result.recovery_seconds:.1f} s"
    allowed = "" if result.recovers_seconds_max is None else f"{result.recovers_seconds_max:g} s"
    about = f"{result.about} ({result.remark})" if result.remark else result.about
    cells = (result.fault, about, str(result.tasks), f"{result.outcome} (seed {result.seed})", recovery, allowed)
    return f"| {' | '.join(cells)} |\n"


def main() -> None:
    """Makes the page from the command line."""
    parser = argparse.ArgumentParser(prog="python -m collegium_testing.faults.results", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("page", type=Path)
    options = parser.parse_args()
    options.page.write_text(page(read(options.results)))


if __name__ == "__main__":
    main()
