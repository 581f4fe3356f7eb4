"""Writes docs/journey.md from the table: ``python -m collegium_contracts.journey_docs [--check] PATH``.

One rule: the page says nothing that the table does not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from collegium_contracts.consumers import CONSUMERS, work_consumer
from collegium_contracts.journey import ASKS, BUCKETS, DAY_SECONDS, HOPS, MB, SERVICES, STREAMS, Service
from collegium_contracts.permissions import ORDERED_READERS, permissions

_INTRODUCTION = """# The journey of a task

This page is generated from `libs/contracts/src/collegium_contracts/journey.py` (`just journey-docs`).

A client's request becomes a task. The gateway stores it in INGRESS; the owner of its shard among the routers plans it
and hands its attempts to a worker pool; a worker announces each call before it makes it, calls the model, and stores
the result. A plan of one attempt settles straight from the worker; a cascade or a panel is settled by
consensus, which asks the router for its next attempt as long as it is not. The settled message
is the truth about a task: billing books it, context and evolution remember it, the gateway shows it. What may stand
once is published create-once on a subject of its own, so whoever comes late is refused by the stream itself.
"""

# The lanes of the picture, by their letter.
_LANES: dict[str, tuple[Service, ...]] = {
    "G": ("gateway",),
    "R": ("router",),
    "W": ("worker-pool",),
    "S": ("consensus",),
    "B": ("billing", "context", "evolution"),
}
# Between whom a message goes, and whether it is kept; lines as they are stand for what is not a hop.
_STEPS: tuple[str | tuple[str, str, str, bool], ...] = (
    "C->>G: request",
    ("G", "R", "TaskSubmitted", True),
    ("R", "W", "RunAttempt", True),
    ("W", "B", "AttemptStarted", True),
    "W->>M: call",
    "M-->>W: answer",
    ("W", "G", "TokenChunk", False),
    "alt one attempt",
    ("W", "B", "TaskCompleted", True),
    ("W", "G", "TaskCompleted", False),
    "else a cascade or a panel",
    ("W", "S", "AttemptAnswered", True),
    "opt not settled yet",
    ("S", "R", "AttemptRequested", True),
    ("R", "W", "RunAttempt", True),
    ("W", "S", "AttemptAnswered", True),
    "end",
    ("S", "B", "TaskCompleted", True),
    ("S", "G", "TaskCompleted", False),
    "end",
    "G->>C: response",
)


def page() -> str:
    """Returns the page."""
    parts = [
        _INTRODUCTION,
        _picture(),
        "## Hops\n",
        _table(
            ("hop", "subject", "message", "from → to", "stream", "note"),
            (
                (
                    str(hop.number),
                    f"`{hop.subject}`",
                    ", ".join(hop.messages),
                    f"{_all_or(hop.senders)} → {', '.join(hop.receivers) or 'the operator'}",
                    hop.stream or "none (core NATS)",
                    hop.note + ("; create-once" if hop.create_once else ""),
                )
                for hop in HOPS
            ),
        ),
        "## Questions\n",
        _table(
            ("subject", "asked by", "answered by"),
            ((f"`{ask.subject}`", ", ".join(ask.asker), ask.answerer) for ask in ASKS),
        ),
        "## Streams\n",
        _table(
            ("stream", "subjects", "retention", "when full", "largest", "a subject's share", "oldest", "why"),
            (
                (
                    stream.name,
                    ", ".join(f"`{subject}`" for subject in stream.subjects),
                    stream.retention,
                    f"discard {stream.discard}",
                    f"{stream.max_bytes // MB} MB",
                    f"{stream.max_messages_per_subject:,} messages" if stream.max_messages_per_subject > 0 else "-",
                    f"{stream.max_age_seconds // DAY_SECONDS} days" if stream.max_age_seconds else "-",
                    stream.note,
                )
                for stream in STREAMS
            ),
        ),
        "## Consumers\n",
        _table(
            ("durable", "stream", "service", "filters", "lease", "deliveries"),
            (
                (
                    f"`{consumer.durable}`",
                    consumer.stream,
                    consumer.service,
                    ", ".join(f"`{subject}`" for subject in consumer.filters),
                    f"{consumer.ack_wait_seconds:g} s",
                    str(consumer.max_deliver) if consumer.max_deliver > 0 else "until acknowledged",
                )
                for consumer in (work_consumer("<pool>"), *CONSUMERS)
            ),
        ),
        "## Shared state\n",
        _table(
            ("bucket", "written by", "read by"),
            ((f"`{bucket.name}`", ", ".join(bucket.writers), ", ".join(bucket.readers)) for bucket in BUCKETS),
        ),
        "## What each service may do\n",
        "Each service is a broker user of its own; its rights are derived from the tables above. Its own inbox,"
        " requests to JetStream's API, acknowledgements and key–value writes are left out here. No service may create,"
        " change or delete a stream, or make, change or delete a consumer that others share, or pull another's.\n",
        _table(
            ("service", "publishes", "hears (core NATS)", "pulls", "reads in order"),
            (
                (
                    service,
                    _subjects(permissions(service).publish),
                    _subjects(permissions(service).subscribe),
                    _subjects(one.durable for one in (work_consumer("<pool>"), *CONSUMERS) if one.service == service),
                    ", ".join(ORDERED_READERS.get(service, ())) or "-",
                )
                for service in SERVICES
            ),
        ),
    ]
    return "\n".join(parts)


def _picture() -> str:
    lines = ["participant C as client"]
    lines += [f"participant {lane} as {', '.join(services)}" for lane, services in _LANES.items()]
    lines.append("participant M as model")
    depth = 0
    for step in _STEPS:
        line = step if isinstance(step, str) else _arrow(*step)
        closes = line == "end" or line.startswith("else")
        depth -= closes
        lines.append("    " * depth + line)
        depth += line.startswith(("alt", "else"))
    return "```mermaid\nsequenceDiagram\n" + "".join(f"    {line}\n" for line in lines) + "```\n"


def _arrow(sender: str, receiver: str, message: str, stored: bool) -> str:
    """Draws one hop; a KeyError names an arrow that the table does not have."""
    for hop in HOPS:
        if message not in hop.messages or (hop.stream is not None) != stored:
            continue
        if set(_LANES[sender]) & set(hop.senders) and set(_LANES[receiver]) & set(hop.receivers):
            return f"{sender}->>{receiver}: {hop.number} {message} ({hop.stream or 'core NATS'})"
    raise KeyError(f"no hop takes {message} from {_LANES[sender]} to {_LANES[receiver]}")


def _subjects(subjects: Iterable[str]) -> str:
    return ", ".join(f"`{subject}`" for subject in subjects if not subject.startswith(("$", "_"))) or "-"


def _all_or(senders: Sequence[str]) -> str:
    """Names the senders; where there are none, the broker itself stores the message."""
    return "every service" if len(senders) == len(SERVICES) else ", ".join(senders) or "the broker"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Writes the page, or with ``--check`` tells whether it is up to date; returns the exit code."""
    reader = argparse.ArgumentParser(prog="collegium_contracts.journey_docs", description=main.__doc__)
    reader.add_argument("path", type=Path, metavar="PATH")
    reader.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the page is out of date")
    given = reader.parse_args(arguments)
    path: Path = given.path
    if not given.check:
        path.write_text(page(), encoding="utf-8")
        return 0
    if path.exists() and path.read_text(encoding="utf-8") == page():
        return 0
    sys.stderr.write(f"{path} is not what the journey's table says; run `just journey-docs`\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
