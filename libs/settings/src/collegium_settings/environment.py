"""The environment over the file: ``COLLEGIUM_<SECTION>__<KEY>``, short names, and ``${NAME}`` inside the file.

A variable whose name has no ``__`` is ours only when it is the short name of a key or names a key of the top level;
other programs' and our own other variables (COLLEGIUM_URL, COLLEGIUM_LOG_LEVEL) are left alone. An empty variable
counts as not set. Lists and mappings are JSON; a list's item is reached by its number (``COLLEGIUM_MODELS__0__POOL``).
One rule: what is looked up is named in the problem, what was found is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from collegium_settings.errors import Problem
from collegium_settings.reader import join, named_secret
from collegium_settings.scalars import EnvironmentText
from collegium_settings.settings import Settings

PREFIX: Final = "COLLEGIUM_"
SHORT_NAMES: Final = {
    "COLLEGIUM_DATABASE_URL": ("database", "url"),
    "COLLEGIUM_NATS_URL": ("nats", "url"),
    "COLLEGIUM_QDRANT_URL": ("qdrant", "url"),
}
OTLP_FALLBACK: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_DEPTH_MAX = 64


def expand(raw: Any, environ: Mapping[str, str], problems: list[Problem], path: str = "", depth: int = 0) -> Any:
    """Replaces every ``${NAME}`` in the texts of plain data (``$${`` stands for itself); notes what is missing."""
    if depth > _DEPTH_MAX:
        problems.append(Problem(path, "a value inside itself", f"values at most {_DEPTH_MAX} levels deep"))
        return None
    if isinstance(raw, dict):
        given = cast("dict[Any, Any]", raw)
        return {key: expand(one, environ, problems, join(path, key), depth + 1) for key, one in given.items()}
    if isinstance(raw, list):
        items = cast("list[Any]", raw)
        return [expand(one, environ, problems, f"{path}[{n}]", depth + 1) for n, one in enumerate(items)]
    if isinstance(raw, str) and "${" in raw:
        return _expand_text(raw, environ, problems, path)
    return raw


def _expand_text(raw: str, environ: Mapping[str, str], problems: list[Problem], path: str) -> str:
    def replace(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return "${"
        if not found[0].endswith("}") or _NAME.fullmatch(name) is None:
            problems.append(Problem(path, "a reference that is not ${NAME}", "${NAME} of an environment variable"))
        elif name not in environ:
            problems.append(Problem(path, f"${{{name}}}", f"the environment variable {name} to be set"))
        return environ.get(name, "")

    # Around the reference a secret may stand in plain text.
    visible = "".join(found[0] for found in _REFERENCE.finditer(raw)) if named_secret(path) else raw
    return EnvironmentText(_REFERENCE.sub(replace, raw), visible)


def overlay(raw: dict[str, Any], environ: Mapping[str, str], problems: list[Problem]) -> None:
    """Puts the environment's values over the file's, in place. The long name of a key wins over its short one."""
    top = {field.encode_name for field in msgspec.structs.fields(Settings)}
    for name, keys in SHORT_NAMES.items():
        if environ.get(name):
            _put(raw, list(keys), EnvironmentText(environ[name]), name, problems)
    for name in sorted(environ):
        if not name.startswith(PREFIX) or not environ[name] or name in SHORT_NAMES:
            continue
        keys = name[len(PREFIX) :].lower().split("__")
        if len(keys) == 1 and keys[0] not in top:
            continue
        if keys[0] not in top:
            problems.append(Problem(f"{name} (environment)", "an unknown section", "one of " + ", ".join(sorted(top))))
            continue
        _put(raw, keys, _plain(environ[name], name, problems), name, problems)
    if environ.get(OTLP_FALLBACK) and not _present(raw, "telemetry", "otlp_endpoint"):
        _put(raw, ["telemetry", "otlp_endpoint"], EnvironmentText(environ[OTLP_FALLBACK]), OTLP_FALLBACK, problems)


def _present(raw: dict[str, Any], section: str, key: str) -> bool:
    found = raw.get(section)
    return isinstance(found, dict) and cast("dict[str, Any]", found).get(key) is not None


def _plain(value: str, name: str, problems: list[Problem]) -> Any:
    """Reads JSON for lists and mappings; everything else stays text."""
    if value[0] not in "[{":
        return EnvironmentText(value)
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        problems.append(Problem(f"{name} (environment)", "text that is no JSON", "a list or mapping as JSON"))
        return None


def _put(raw: dict[str, Any], keys: list[str], value: Any, name: str, problems: list[Problem]) -> None:
    place: Any = raw
    for depth, key in enumerate(keys):
        slot = _slot(place, key, name, problems)
        if slot is None:
            return
        if depth == len(keys) - 1:
            place[slot] = value
        elif isinstance(slot, str) and place.get(slot) is None:
            # A number below nothing means an item of a list that is not there.
            place[slot] = place = list[Any]() if keys[depth + 1].isdecimal() else dict[str, Any]()
        else:
            place = place[slot]


def _slot(place: Any, key: str, name: str, problems: list[Problem]) -> str | int | None:
    """Returns the key of a mapping or the number in a list that a part of a variable's name means."""
    if isinstance(place, dict):
        return key
    accepted = "a key below a mapping or a list"
    if isinstance(place, list):
        count = len(cast("list[Any]", place))
        if key.isascii() and key.isdecimal() and int(key) < count:
            return int(key)
        accepted = f"the number of an item, 0 to {count - 1}" if count else "the whole list as JSON"
    problems.append(Problem(f"{name} (environment)", repr(key), accepted))
    return None
