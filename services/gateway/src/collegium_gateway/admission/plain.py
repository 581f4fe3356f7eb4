"""What no body may hold where it names something: NUL, and numbers that no message can carry. Pure.

PostgreSQL and the broker take no NUL in a text, and messages no integer of more than 64 bits. What people and models
wrote is sealed before it is stored, and so may hold any character. One rule: it is refused at the door, with its path.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from collegium_gateway.errors import ApiError

_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1
_UINT64_MAX: Final = 2**64 - 1
# Sealed, or looked at where they are run.
_TEXTS: Final = frozenset({"text", "content", "comment", "query", "question", "stop", "title", "fields", "tests"})


def may_hold_nul(body: bytes) -> bool:
    """Whether a JSON body has to be looked through for NUL, which is cheap to say."""
    return b"\\u0000" in body or b"\0" in body


def check(value: Any, path: str = "") -> None:
    """Refuses NUL in names and numbers that no message can carry; raises ApiError with the path."""
    _check(value, path, is_text=False, most=_UINT64_MAX)


def _check(value: Any, path: str, *, is_text: bool, most: int) -> None:
    match value:
        case str():
            if not is_text and "\0" in value:
                raise ApiError("invalid_value", f"{path or 'the body'} must not hold NUL", param=path or None)
        case bool():
            pass
        case int():
            if not _INT64_MIN <= value <= most:
                raise ApiError("invalid_value", f"{path or 'the body'} is out of bounds", param=path or None)
        case dict():
            for name, one in value.items():  # pyright: ignore[reportUnknownVariableType]
                _check(name, path, is_text=is_text, most=most)
                # What is free is kept as it is given, and columns and indexes are signed.
                _check(one, f"{path}.{name}" if path else str(name), is_text=is_text, most=_INT64_MAX)  # pyright: ignore[reportUnknownArgumentType]
        case list():
            for place, one in enumerate(value):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
                _check(one, f"{path}[{place}]", is_text=is_text, most=most)
        case msgspec.Struct():
            for name, field in zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True):
                inner = f"{path}.{name}" if path else name
                _check(getattr(value, field), inner, is_text=is_text or name in _TEXTS, most=most)
        case _:
            pass
