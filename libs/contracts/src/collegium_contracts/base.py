"""What every message is made of: a tagged struct with the major version of its schema."""

from __future__ import annotations

import msgspec

MAJOR_VERSION = 1


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag=True):
    """Base of all messages; ``v`` is the major version of the schema."""

    v: int = MAJOR_VERSION
