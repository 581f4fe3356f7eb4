"""Writes docs/journey.md from the table: ``python -m collegium_contracts.journey_docs [--check] PATH``.

One rule: the page says nothing that the table does not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from collegium_contracts.journey import (
    ASKS,
    BUCKETS,
    CONSUMERS,
    DAY_SECONDS,
    HOPS,
    MB,
    SERVICES,
    STREAMS,
    work_consumer,
)
from collegium_contracts.permissions import permissions

_INTRODUCTION = """# The journey of a task

This page is generated from `libs/contracts/src/collegium_contracts/journey.py` (`just journey-docs`).

A client's request becomes a task. The gateway stores it in INGRESS; the owner of its shard among the routers plans it
and hands its attempts to a worker pool; a worker announces each call before it makes it, calls the model, and stores
the result. A plan of one attempt settles straight from the worker; a panel is settled by consensus. The settled message
is the truth about a task: billing books it, context and evolution remember it, the gateway shows it. What may stand
once is published create-once on a subject of its own, so whoever comes late is refused by the stream itself.
"""

_PICTURE = """```mermaid
sequenceDiagram
    participant C as client
    participant G as gateway
    participant R as router
    participant W as worker-pool
    participant M as model
    participant S as consensus
    participant B as billing, context, evolution
    C->>G: request
    G->>R: 1 TaskSubmitted (INGRESS)
    R->>W: 2 RunAttempt (WORK)
    W-->>B: 3 AttemptStarted (EVENTS)
    W->>M: call
    M-->>W: answer
    W-->>G: 8 TokenChunk (core, while streaming)
    alt one attempt
        W->>B: 6 TaskCompleted (EVENTS)
        W->>G: 7 done (core)
    else a panel
        W->>S: 4 AttemptAnswered (EVENTS)
        S->>B: 6 TaskCompleted (EVENTS)
        S->>G: 7 done (core)
    end
    G->>C: response
```
"""


def page() -> str:
    """Returns the page."""
    parts = [
        _INTRODUCTION,
        _PICTURE,
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
            ("stream", "retention", "when full", "largest", "oldest", "why"),
            (
                (
                    stream.name,
                    stream.retention,
                    f"discard {stream.discard}",
                    f"{stream.max_bytes // MB} MB",
                    f"{stream.max_age_seconds // DAY_SECONDS} days" if stream.max_age_seconds else "-",
                    stream.note,
                )
                for stream in STREAMS
            ),
        ),
        "## Consumers\n",
        _table(
            ("durable", "stream", "service", "filters", "lease"),
            (
                (
                    f"`{consumer.durable}`",
                    consumer.stream,
                    consumer.service,
                    ", ".join(f"`{subject}`" for subject in consumer.filters),
                    f"{consumer.ack_wait_seconds:g} s",
                )
                for consumer in (work_consumer("<pool>"), *CONSUMERS)
            ),
        ),
        "## Shared state\n",
        _table(
            ("bucket", "written by", "read by"),
            ((f"`{bucket.name}`", ", ".join(bucket.writers), ", ".join(bucket.readers)) for bucket in BUCKETS),
        ),
        "## What each service may publish\n",
        "Each service is a broker user of its own; its rights are derived from the tables above. Requests to"
        " JetStream's API, acknowledgements and key–value writes are left out here.\n",
        _table(
            ("service", "subjects"),
            ((service, ", ".join(f"`{subject}`" for subject in _journey_subjects(service))) for service in SERVICES),
        ),
    ]
    return "\n".join(parts)


def _journey_subjects(service: str) -> list[str]:
    rights = permissions(service)  # pyright: ignore[reportArgumentType] - a name out of SERVICES
    return [subject for subject in rights.publish if not subject.startswith(("$", "_"))]


def _all_or(senders: Sequence[str]) -> str:
    return "every service" if len(senders) == len(SERVICES) else ", ".join(senders)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Writes the page, or with ``--check`` tells whether it is up to date; returns the exit code."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--check"]
    path = Path(arguments[0])
    if "--check" in sys.argv:
        return 0 if path.exists() and path.read_text() == page() else 1
    path.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
