"""Values that must not be seen: :class:`Secret`, and masking for texts that may hold one.

One rule: a secret leaves its wrapper only through ``reveal()``, so that every place that uses one can be found.
"""

from __future__ import annotations

import re
from typing import Final, final

MASK: Final = "***"

_URL_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]+@")
_API_KEY = re.compile(r"sk-clg-([a-z0-9]{8,16})-[a-z0-9]+")


@final
class Secret:
    """A text whose ``str`` and ``repr`` are masked; false when empty, equal to another with the same text."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Returns the text itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return Secret, (self._value,)


def mask_text(text: str) -> str:
    """Masks passwords in URLs and the secret half of API keys; the rest stays readable."""
    return _API_KEY.sub(rf"sk-clg-\1-{MASK}", _URL_PASSWORD.sub(rf"\1:{MASK}@", text))
