"""What every section of the configuration is: a frozen Struct that does not show its secrets.

Keys of the file are the fields' names, except that a duration's key has no unit (``window: 5h`` is read into
``window_seconds``) and that ``from`` is a word of Python. One rule: ``repr`` of a section is masked, so that a settings
object in a log line or a traceback is harmless.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import msgspec

from collegium_settings.secret import MASK, Secret, mask_text

_KEYS = {
    "exact_ttl_seconds": "exact_ttl",
    "stale_ttl_seconds": "stale_ttl",
    "semantic_ttl_seconds": "semantic_ttl",
    "semantic_ttls_seconds": "semantic_ttls",
    "window_seconds": "window",
    "anchor_seconds": "anchor_every",
    "expires_seconds": "expires",
    "claim_seconds": "claim",
    "delay_seconds": "delay",
    "from_time": "from",
    "to_time": "to",
}


def _key(field: str) -> str | None:
    return _KEYS.get(field)


class Section(msgspec.Struct, frozen=True, kw_only=True, rename=_key):
    """Base of all sections."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({masked(self)})"


def masked(value: Any) -> Any:
    """Returns a value of the settings as plain data (dicts, lists, text, numbers) under the file's keys, masked."""
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.fields(value)
        return {field.encode_name: masked(getattr(value, field.name)) for field in fields}
    if isinstance(value, dict):
        return {str(key): masked(one) for key, one in cast("dict[Any, Any]", value).items()}
    if isinstance(value, tuple | list):
        return [masked(one) for one in cast("list[Any]", value)]
    return _masked_scalar(value)


def _masked_scalar(value: Any) -> Any:
    match value:
        case Secret():
            return MASK
        case Decimal():
            return f"{value:f}"
        case Path():
            return str(value)
        case str():
            return mask_text(value)
        case _:
            return value
