"""The scalar values of the configuration: how each is read and what its error says is accepted.

A :class:`Scalar` stands in an ``Annotated`` type of a settings field. One rule: nothing is coerced by surprise: text
becomes a number only where it came from the environment, which knows nothing but text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

from collegium_contracts.ids import API_KEY, TENANT_ID
from collegium_contracts.webhooks import key_of

from collegium_settings.money import parse_usd
from collegium_settings.secret import Secret


class Scalar(NamedTuple):
    """Reads one scalar: ``read`` raises ValueError for what is not ``accepted``; a secret one is never shown."""

    read: Callable[[Any], Any]
    accepted: str
    secret: bool = False


class EnvironmentText(str):
    """Text that came from the environment, where numbers and booleans are text too.

    ``shown`` is what an error may show instead of it: for an expanded ``${NAME}`` the text before expansion.
    """

    shown: str

    def __new__(cls, value: str, shown: str | None = None) -> EnvironmentText:
        """Keeps the text and how it may be shown."""
        made = super().__new__(cls, value)
        made.shown = value if shown is None else shown
        return made


_SIZES = {
    "": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SIZE = re.compile(r"(\d{1,15})\s?([A-Za-z]{0,3})", re.ASCII)
_DURATION = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d", re.ASCII)
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}", re.ASCII)
_TRUE, _FALSE = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})


def _text(raw: Any) -> str:
    if not isinstance(raw, str) or not raw or "\x00" in raw:
        raise ValueError
    return str(raw)


def _boolean(raw: Any) -> bool:
    if isinstance(raw, EnvironmentText):
        lowered = raw.lower()
        if lowered in _TRUE:
            return True
        if lowered in _FALSE:
            return False
    if not isinstance(raw, bool):
        raise ValueError
    return raw


def _number(raw: Any) -> float:
    if isinstance(raw, EnvironmentText):
        return float(raw)
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise ValueError
    return float(raw)


def _whole(raw: Any) -> int:
    if isinstance(raw, EnvironmentText):
        if not re.fullmatch(r"-?\d{1,18}", raw, re.ASCII):
            raise ValueError
        return int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise ValueError
    return raw


def whole(least: int, most: int) -> Scalar:
    """A whole number between two bounds, both included."""

    def read(raw: Any) -> int:
        value = _whole(raw)
        if not least <= value <= most:
            raise ValueError
        return value

    return Scalar(read, f"a whole number from {least} to {most}")


def number(least: float, most: float) -> Scalar:
    """A number between two bounds, both included; never infinite or not-a-number."""

    def read(raw: Any) -> float:
        value = _number(raw)
        if not least <= value <= most:
            raise ValueError
        return value

    return Scalar(read, f"a number from {least:g} to {most:g}")


def matching(pattern: re.Pattern[str], accepted: str) -> Scalar:
    """Text that a pattern matches as a whole."""

    def read(raw: Any) -> str:
        value = _text(raw)
        if pattern.fullmatch(value) is None:
            raise ValueError
        return value

    return Scalar(read, accepted)


def url(*schemes: str) -> Scalar:
    """A URL with one of the schemes and a host; the text is kept as it was written."""

    def read(raw: Any) -> str:
        value = _text(raw)
        parts = urlsplit(value)
        # Reading the port is what checks it.
        if parts.scheme not in schemes or not parts.netloc or (parts.port is not None and parts.port < 1):
            raise ValueError
        return value

    return Scalar(read, "a URL that starts with " + " or ".join(f"{scheme}://" for scheme in schemes))


def _size(raw: Any) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
        return raw
    found = _SIZE.fullmatch(_text(raw))
    unit = found[2].upper() if found else ""
    if found is None or unit not in _SIZES:
        raise ValueError
    return int(found[1]) * _SIZES[unit]


def _duration(raw: Any) -> int:
    found = _DURATION.fullmatch(_text(raw))
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if seconds < 1:
        raise ValueError
    return seconds


def _duration_or_zero(raw: Any) -> int:
    return 0 if not isinstance(raw, bool) and raw in (0, "0") else _duration(raw)


def _usd(raw: Any) -> Decimal:
    return parse_usd(_text(raw))


def _markup(raw: Any) -> Decimal:
    try:
        value = Decimal(_text(raw))
    except InvalidOperation as error:
        raise ValueError from error
    exponent = value.as_tuple().exponent
    if not value.is_finite() or not 0 <= value <= 100 or not isinstance(exponent, int) or not -4 <= exponent <= 0:
        raise ValueError
    return value


def _nats_urls(raw: Any) -> str:
    value = _text(raw)
    one = url("nats", "tls", "ws", "wss")
    for part in value.split(","):
        one.read(part.strip())
    return value


def _timezone(raw: Any) -> str:
    value = _text(raw)
    if value != "UTC":
        from zoneinfo import ZoneInfo  # noqa: PLC0415 - most configurations never need the database of zones

        try:
            ZoneInfo(value)
        except (OSError, LookupError) as error:
            raise ValueError from error
    return value


def _folder(raw: Any) -> Path:
    return Path(_text(raw)).expanduser()


def _secret(raw: Any) -> Secret:
    return Secret(_text(raw))


def _webhook_secret(raw: Any) -> Secret:
    value = _text(raw)
    if not 24 <= len(key_of(value)) <= 64:
        raise ValueError
    return Secret(value)


def _tenant_key(raw: Any) -> Secret:
    value = _text(raw)
    if API_KEY.fullmatch(value) is None:
        raise ValueError
    return Secret(value)


Text = Annotated[str, Scalar(_text, "text that is not empty (quote what looks like a number)")]
Flag = Annotated[bool, Scalar(_boolean, "true or false")]
Ratio = Annotated[float, number(0, 1)]
Port = Annotated[int, whole(0, 65_535)]
Count = Annotated[int, whole(1, 10**15)]
SizeBytes = Annotated[int, Scalar(_size, "a size such as 10MB or 512KiB, or a whole number of bytes")]
DurationSeconds = Annotated[int, Scalar(_duration, "a duration such as 30s, 5m, 1h or 30d")]
DurationOrZeroSeconds = Annotated[int, Scalar(_duration_or_zero, "0, or a duration such as 30s, 5m, 1h or 30d")]
TimeoutSeconds = Annotated[float, number(0.001, 86_400)]
Usd = Annotated[Decimal, Scalar(_usd, 'a quoted decimal number of dollars with at most 6 decimals, such as "0.02"')]
Markup = Annotated[Decimal, Scalar(_markup, 'a quoted factor from 0 to 100 with at most 4 decimals, such as "1.25"')]
ClockTime = Annotated[str, matching(_CLOCK, 'a quoted time of day such as "22:00"')]
Zone = Annotated[str, Scalar(_timezone, "a time zone such as UTC or Europe/Berlin")]
Identifier = Annotated[str, matching(TENANT_ID, "1 to 40 characters of a-z, 0-9 and -")]
ModelName = Annotated[str, matching(_MODEL_NAME, "1 to 128 characters of A-Z a-z 0-9 . _ : / @ + -")]
HttpUrl = Annotated[str, url("http", "https")]
PostgresUrl = Annotated[str, url("postgresql", "postgres")]
NatsUrl = Annotated[
    str, Scalar(_nats_urls, "a URL that starts with nats://, tls://, ws:// or wss://, or several with commas")
]
Folder = Annotated[Path, Scalar(_folder, "the path of a folder")]
FilePath = Annotated[str, Scalar(_text, "the path of a file")]
HiddenText = Annotated[Secret, Scalar(_secret, "text that is not empty", secret=True)]
TenantKey = Annotated[
    Secret,
    Scalar(_tenant_key, "sk-clg-<8 to 16 of a-z 0-9>-<48 of a-z 0-9>", secret=True),
]
WebhookSecret = Annotated[
    Secret, Scalar(_webhook_secret, "whsec_ and the base64 of 24 to 64 random bytes", secret=True)
]
