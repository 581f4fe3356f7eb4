"""Which services share a process on this machine.

The three on the hot path have a process each; the four that fold events share one. One rule: whoever shares a process
still has a broker connection and credentials of its own.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Final

import msgspec
from collegium_contracts.journey import SERVICES, Service

_BACK_OFFICE: Final[tuple[Service, ...]] = ("billing", "context", "consensus", "evolution")
_GROUPS: Final[tuple[tuple[str, tuple[Service, ...]], ...]] = (
    ("back-office", _BACK_OFFICE),
    ("router", ("router",)),
    ("worker-pool", ("worker-pool",)),
    ("gateway", ("gateway",)),
)


class Group(msgspec.Struct, frozen=True):
    """One service process: its name and its services, with their admin ports."""

    name: str
    services: tuple[Service, ...]
    admin_ports: dict[str, int]


def groups(only: Iterable[str] | None) -> list[Group]:
    """Returns the processes to run, the gateway's last; ``only`` limits the services, a KeyError names a wrong one."""
    wanted: set[str] = set(SERVICES) if only is None else set(only)
    if unknown := wanted - set(SERVICES):
        raise KeyError(", ".join(sorted(unknown)))
    found: list[Group] = []
    for name, services in _GROUPS:
        chosen: tuple[Service, ...] = tuple(service for service in services if service in wanted)
        if chosen:
            found.append(Group(name, chosen, {service: free_port() for service in chosen}))
    return found


def free_port(host: str = "127.0.0.1") -> int:
    """Returns a port that is free now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
