"""The fault matrix as data: each fault, the scenario that plays it, and how soon all must be well again.

``short`` marks those that run with every change; the others take longer, or tell less. One rule: a fault of the list
that the project promises to survive is a row here, or it is not promised.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NamedTuple

from collegium_contracts.consumers import work_consumer
from collegium_runtime.failpoints import NAMES

from tests.chaos import hostile, kills, learning, networks, people, second_opinions
from tests.chaos.stage import Stage

Scenario = Callable[[Stage], Awaitable[None]]

ACK_WAIT_SECONDS: Final = work_consumer("general").ack_wait_seconds
# A killed worker's work comes again when its lease ends; two seconds more for finishing it are what is promised.
WORKER_SECONDS: Final = ACK_WAIT_SECONDS + 2
LEADER_SECONDS: Final = 10
ALWAYS_SECONDS: Final = 30
# Failpoints that only tasks come by which people are asked about.
PEOPLES: Final = ("-pause", "-input")
# Failpoints that only settled work comes by which is asked again, and those by which judges of a panel do.
PROBES: Final = ("-draw", "-compare")
# Failpoints that only a round of learning comes by.
LEARNED: Final = ("-fit", "-keep", "-publish", "-rank", "-note")
ROUNDS: Final = tuple(name for name in NAMES if name.startswith("evolution.") and name.endswith(LEARNED))
# And those that only answers with tests come by (test_chaos_code_tests.py).
TESTED: Final = ("-tested",)
# And those that only documents come by which are taken in (test_context_documents.py, test_context_reembedding.py).
INGESTED: Final = tuple(name for name in NAMES if name.startswith("context.") and not name.endswith("-commit"))
JUDGED: Final = (
    "consensus.before-ask",
    "consensus.after-note",
    "consensus.after-ask",
    "router.after-again",
    "worker-pool.after-result",
    "consensus.before-settle",
)
CLOCKS: Final = ("gateway", "router", "worker-pool", "billing")


class Fault(NamedTuple):
    """One row: its name, what happens in words, the scenario, the longest recovery, whether it is in the short form.

    ``recovers_seconds`` counts from the fault until every accepted task is terminal and every probe is true, on an
    otherwise idle machine; none where the scenario itself decides how long the fault lasts.
    """

    name: str
    about: str
    scenario: Scenario
    recovers_seconds: float | None = ALWAYS_SECONDS
    short: bool = False


def _at(name: str) -> Fault:
    # The router and the workers share a process on one machine, so what kills one loses calls of the other.
    in_flight = name.startswith(("router.", "worker-pool."))
    expected = kills.IN_FLIGHT if in_flight else kills.NOTHING_IN_FLIGHT
    return Fault(
        f"kill at {name}",
        f"`kill -9` of the process at the failpoint `{name}`, and a restart by the supervisor",
        partial(kills.at_a_failpoint, name=name, expected=expected),
        short=name == "worker-pool.during-call",
    )


def _asked(name: str) -> Fault:
    return Fault(
        f"kill at {name}",
        f"`kill -9` of the process at the failpoint `{name}` while tasks wait for people, and a restart",
        partial(people.at_a_failpoint, name=name),
    )


def _judged(name: str) -> Fault:
    return Fault(
        f"kill at {name}, judges asked",
        f"`kill -9` of the process at the failpoint `{name}` while undecided panels are judged, and a restart",
        partial(second_opinions.judges, name=name),
    )


def _probed(name: str) -> Fault:
    return Fault(
        f"kill at {name}, settled work asked again",
        f"`kill -9` of the process at the failpoint `{name}` while settled work is asked again, and a restart",
        partial(second_opinions.probes, name=name),
    )


def _learned(name: str) -> Fault:
    return Fault(
        f"kill at {name}, in a round of learning",
        f"`kill -9` of evolution at the failpoint `{name}` of a round that promotes and makes a policy, and a restart",
        partial(learning.a_round, name=name),
    )


def _clock(service: str, seconds: int) -> Fault:
    return Fault(
        f"clock of {service} {seconds:+d} s",
        f"the clock of {service} is {abs(seconds) // 60} minutes {'ahead' if seconds > 0 else 'behind'}",
        partial(hostile.wrong_clock, service=service, seconds=seconds),
    )


FAULTS: Final[tuple[Fault, ...]] = (
    *(
        _at(name)
        for name in NAMES
        if not name.endswith((*PEOPLES, *PROBES, *TESTED)) and name not in (*ROUNDS, *INGESTED)
    ),
    *(_judged(name) for name in JUDGED),
    *(_probed(name) for name in (*(name for name in NAMES if name.endswith(PROBES)), "router.after-dispatch")),
    *(_learned(name) for name in ROUNDS),
    *(_asked(name) for name in NAMES if name.endswith(PEOPLES)),
    Fault(
        "everything killed while people are asked",
        "`kill -9` of the supervisor and all its processes while every task waits for somebody, and a new start",
        people.while_waiting,
    ),
    Fault(
        "worker killed",
        "`kill -9` of one of two workers with eight calls in hand",
        kills.worker,
        recovers_seconds=WORKER_SECONDS,
    ),
    Fault("router killed", "`kill -9` of one of two routers with a full queue", kills.router),
    Fault(
        "router with a wrong clock killed",
        "`kill -9` of one of two routers, whose clock is ten minutes ahead",
        partial(kills.router, ahead_seconds=600),
    ),
    Fault("gateway killed", "`kill -9` of the gateway while chats wait in it", kills.gateway),
    Fault(
        "zombie worker",
        "a worker stopped (SIGSTOP) after a result for two ack waits, then continued",
        kills.zombie,
        recovers_seconds=None,
    ),
    Fault(
        "everything killed",
        "`kill -9` of the supervisor and all its processes at once, and a new start on the same folder",
        kills.everything,
        short=True,
    ),
    Fault("broker and database killed", "`kill -9` of NATS and PostgreSQL", kills.broker_and_database),
    Fault(
        "broker restarted",
        "the broker stopped as an operator would, away for fifteen seconds, started again",
        partial(networks.broker_away, graceful=True),
        recovers_seconds=None,
    ),
    Fault(
        "broker killed and away",
        "`kill -9` of the broker, away for fifteen seconds, started again",
        partial(networks.broker_away, graceful=False),
        recovers_seconds=None,
    ),
    Fault(
        "stream leader killed",
        "`kill -9` of the server that leads a stream, in a cluster of three, under load; recovery is that of what is"
        " submitted afterwards, and what was on its way to a worker has its lease more",
        networks.leader,
        recovers_seconds=LEADER_SECONDS,
    ),
    Fault(
        "partition, worker unheard",
        "what a worker sends does not reach the broker, for longer than its leases",
        partial(networks.partition, way="up"),
        recovers_seconds=None,
    ),
    Fault(
        "partition, worker deaf",
        "what the broker sends does not reach a worker, for longer than its leases",
        partial(networks.partition, way="down"),
        recovers_seconds=None,
    ),
    Fault("connection reset", "a worker's connection reset five times in a row", networks.cut_connection),
    Fault(
        "slow network",
        "500 ms of latency, 100 ms of jitter and 2 % loss between the worker and the broker",
        networks.slow_network,
    ),
    Fault(
        "200 clients reconnect",
        "200 event streams reset at once, resumed with Last-Event-ID",
        networks.many_reconnect,
    ),
    Fault(
        "disk full",
        "no byte left on the broker's file system of 48 MB, then room and a restart of the broker",
        hostile.full_disk,
        recovers_seconds=None,
    ),
    Fault("stream at its limit", "a tenant's share of INGRESS is full, and no router", hostile.stream_at_its_limit),
    Fault("poison message", "attempts that no worker can carry out", hostile.poison),
    Fault(
        "malformed bytes",
        "bytes that are no message, and the wrong messages, on every subject of the journey",
        hostile.malformed_bytes,
        short=True,
    ),
    Fault(
        "late duplicates",
        "every task submitted four times, each beyond the duplicate window",
        hostile.late_duplicates,
    ),
    *(_clock(service, seconds) for service in CLOCKS for seconds in (600, -600)),
    Fault(
        "endpoint fails for a while",
        "429, 500, 503, silence, half a stream, garbage and an HTML page, twice each; the breaker opens for 30 s",
        partial(hostile.bad_upstream, times=2),
        recovers_seconds=2 * ALWAYS_SECONDS,
    ),
    Fault(
        "endpoint fails for ever",
        "429, 500, 503, silence, half a stream, garbage and an HTML page, always",
        partial(hostile.bad_upstream, times=None),
        recovers_seconds=None,
    ),
)  # fmt: skip
