"""Free ports for servers that must be told theirs before they start.

One rule: below the range from which the kernel gives ports to outgoing connections, so that none of these takes one.
"""

from __future__ import annotations

import random
import socket

_PORTS = range(12_000, 30_000)


def free_ports(count: int) -> list[int]:
    """Returns ports that are free now, all different."""
    found: dict[int, socket.socket] = {}
    chance = random.SystemRandom()
    try:
        while len(found) < count:
            port = chance.choice(_PORTS)
            probe = socket.socket()
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                probe.close()
                continue
            found[port] = probe
    finally:
        for probe in found.values():
            probe.close()
    return list(found)
