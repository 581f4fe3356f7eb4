"""The broker's configuration file as a pure function of what we want.

Here lives the text of nats.conf. Not here: who may do what (callers bring the allow lists), and running the server.
One rule: an empty allow list denies everything; the server's own reading would allow everything.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Durability = Literal["process", "power"]

FREE_PORT = -1  # the server takes a free one and writes it to its ports file
# Streams reserve the most they may ever take when they are declared, some 16 GiB together. Left to itself the server
# allows three quarters of the free disk, and would refuse them on a laptop that has room for months of them.
FILE_BYTES_MAX = 32 * 1024**3
MAX_PAYLOAD_BYTES = 1024 * 1024  # the broker's default; content over 256 KB goes to the object store before it


@dataclass(frozen=True, slots=True)
class NatsUser:
    """One user by its public NKey (``U…``), with the subjects it may publish and subscribe to.

    ``deny_publish`` takes back what an allowed wildcard covers.

    ``allow_responses`` lets it answer a request whose reply subject it could not otherwise publish to.
    """

    nkey: str
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    allow_responses: bool = False
    deny_publish: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NatsConfig:
    """What the broker should do; without ``users`` anybody who reaches it may do anything.

    The limits of JetStream are bytes; None leaves them to the server (three quarters of memory and free disk).
    """

    store_dir: Path
    host: str = "127.0.0.1"
    port: int = FREE_PORT
    monitor_port: int = FREE_PORT
    durability: Durability = "process"
    max_payload_bytes: int = MAX_PAYLOAD_BYTES
    max_file_bytes: int | None = FILE_BYTES_MAX
    max_memory_bytes: int | None = None
    account: str = "COLLEGIUM"
    users: tuple[NatsUser, ...] = ()


def render_config(config: NatsConfig) -> str:
    """Renders nats.conf; monitoring always listens on loopback alone, as it asks nobody for a key."""
    lines = [
        f"listen: {_quoted(f'{config.host}:{config.port}')}",
        f"http: {_quoted(f'127.0.0.1:{config.monitor_port}')}",
        f"max_payload: {config.max_payload_bytes}",
        *_jetstream(config),
    ]
    if config.users:
        lines += [
            "accounts {",
            f"  {config.account} {{",
            "    jetstream: enabled",
            "    users: [",
            *(f"      {_user(user)}" for user in config.users),
            "    ]",
            "  }",
            "}",
        ]
    return "\n".join(lines) + "\n"


def _jetstream(config: NatsConfig) -> list[str]:
    # Two minutes is the server's own default, written out so that the file says what is promised.
    interval = "always" if config.durability == "power" else '"2m"'
    lines = ["jetstream {", f"  store_dir: {_quoted(str(config.store_dir))}", f"  sync_interval: {interval}"]
    if config.max_file_bytes is not None:
        lines.append(f"  max_file_store: {config.max_file_bytes}")
    if config.max_memory_bytes is not None:
        lines.append(f"  max_memory_store: {config.max_memory_bytes}")
    return [*lines, "}"]


def _user(user: NatsUser) -> str:
    rights = [f"publish: {_list(user.publish, user.deny_publish)}", f"subscribe: {_list(user.subscribe)}"]
    if user.allow_responses:
        rights.append("allow_responses: true")
    return f"{{ nkey: {user.nkey}, permissions: {{ {', '.join(rights)} }} }}"


def _list(subjects: tuple[str, ...], denied: tuple[str, ...] = ()) -> str:
    if not subjects:
        return '{ deny: [">"] }'
    deny = f", deny: [{', '.join(map(_quoted, denied))}]" if denied else ""
    return f"{{ allow: [{', '.join(map(_quoted, subjects))}]{deny} }}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
