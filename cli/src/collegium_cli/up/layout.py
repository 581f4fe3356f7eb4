"""Which services share a process on this machine.

The gateway has a process to itself; the router and the worker pool share one, because a hop within a process that is
awake is quicker than one that wakes another (docs/decisions/0008); the four that fold events share one. One rule:
whoever shares a process still has a broker connection and credentials of its own.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Iterable
from typing import Final

import msgspec
from collegium_contracts.journey import SERVICES, Service

_BACK_OFFICE: Final[tuple[Service, ...]] = ("billing", "context", "consensus", "evolution")
_GROUPS: Final[tuple[tuple[str, tuple[Service, ...]], ...]] = (
    ("back-office", _BACK_OFFICE),
    ("work", ("router", "worker-pool")),
    ("gateway", ("gateway",)),
)
# On a folder where these have never run, a gateway knows no tenants and keys, or no model, and lets nobody in.
_GATEWAY_HEARS: Final[tuple[Service, ...]] = ("billing", "router")

_PORTS: Final = range(12_000, 30_000)
_PORT_TRIES: Final = 200
# Descriptors of the sockets that hold the ports; a crash frees them.
_reserved: Final[list[int]] = []


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


def left_out(chosen: Iterable[Group]) -> list[Service]:
    """Returns the services without which a gateway among the chosen may never become ready; none without a gateway."""
    wanted = {service for group in chosen for service in group.services}
    return [service for service in _GATEWAY_HEARS if service not in wanted] if "gateway" in wanted else []


def free_port(host: str = "127.0.0.1") -> int:
    """Returns a port that is free, below the range from which the kernel gives ports to outgoing connections.

    It stays reserved for this process and its children until this process ends: the bound socket that is kept refuses
    the port to whoever asks as this function does, and lets a server listen on it that sets SO_REUSEADDR, as ours do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(_PORT_TRIES):
        port = secrets.choice(_PORTS)
        with socket.socket(family) as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _reserved.append(probe.detach())
            return port
    raise OSError(f"no free port between {_PORTS.start} and {_PORTS.stop} on {host}")
