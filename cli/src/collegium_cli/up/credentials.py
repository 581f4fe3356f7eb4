"""Broker users of a platform on this machine: one NKey a service, and one for the operator.

Seeds are made once, kept in the data folder with mode 0600, and never shown. One rule: the broker is given public keys
only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from collegium_contracts.journey import SERVICES
from collegium_contracts.permissions import permissions
from collegium_servers.nats_config import NatsUser

OPERATOR: Final = "operator"
_EVERYTHING: Final = (">",)


def make_credentials(folder: Path) -> dict[str, Path]:
    """Returns the seed file of every broker user, making what is missing."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = {user: folder / f"{user}.nk" for user in (*SERVICES, OPERATOR)}
    for path in files.values():
        if not path.exists():
            _write_seed(path)
    return files


def broker_users(files: dict[str, Path]) -> tuple[NatsUser, ...]:
    """Returns the broker's users: services with the rights that the journey gives them, the operator with all."""
    users = [NatsUser(_public_key(files[OPERATOR]), _EVERYTHING, _EVERYTHING)]
    for service in SERVICES:
        rights = permissions(service)
        users.append(
            NatsUser(_public_key(files[service]), rights.publish, rights.subscribe, deny_publish=rights.deny_publish)
        )
    return tuple(users)


def _write_seed(path: Path) -> None:
    import nkeys

    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(bytes(seed))
    draft.replace(path)


def _public_key(path: Path) -> str:
    import nkeys

    pair = nkeys.from_seed(bytearray(path.read_bytes().strip()))
    # Encoded bytes, whatever its annotation says.
    key = bytes(pair.public_key)
    pair.wipe()
    return key.decode()
