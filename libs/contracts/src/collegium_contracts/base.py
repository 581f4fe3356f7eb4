"""What every message is: a frozen struct that is tagged with its name and carries the schema's major version.

Here because messages of several files share it; the messages themselves stand elsewhere.
"""

from __future__ import annotations

import msgspec

MAJOR_VERSION = 1


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag=True):
    """Base of all messages; ``v`` is the major version of the schema."""

    v: int = MAJOR_VERSION
