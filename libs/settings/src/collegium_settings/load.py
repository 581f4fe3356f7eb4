"""From a file and the environment to settings.

One rule: everything is read and checked before anything connects, and all problems are reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from collegium_settings.checks import check
from collegium_settings.environment import expand, overlay
from collegium_settings.errors import Problem, SettingsError
from collegium_settings.reader import Reader
from collegium_settings.section import masked
from collegium_settings.settings import Settings, default_tiers

# Configurations are some kilobytes; a larger file is a mistake, and YAML's parser would take long over it.
FILE_BYTES_MAX = 4 * 1024 * 1024


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Reads the file (none: defaults), puts the environment over it and checks all of it.

    Raises SettingsError with every problem found.
    """
    problems: list[Problem] = []
    raw = {} if path is None else _mapping(path)
    raw = cast("dict[str, Any]", expand(raw, environ, problems))
    overlay(raw, environ, problems)
    _complete_tiers(raw)
    reader = Reader()
    # A missing variable reads as an empty text, which would be a second problem with the same key.
    missing = {problem.path for problem in problems}
    settings = reader.section(Settings, raw, "")
    problems += [problem for problem in reader.problems if problem.path not in missing]
    if settings is not None and not problems:
        problems += check(settings)
    if settings is None or problems:
        raise SettingsError(problems)
    return settings


def effective(settings: Settings) -> dict[str, Any]:
    """Returns the whole configuration as plain data under the file's keys, secrets masked."""
    return cast("dict[str, Any]", masked(settings))


def _complete_tiers(raw: dict[str, Any]) -> None:
    """Fills what the file leaves out of a default tier, and keeps the default tiers that it does not name."""
    tiers = raw.get("tiers")
    if not isinstance(tiers, dict):
        return
    given = cast("dict[str, Any]", tiers)
    for name, tier in default_tiers().items():
        own = given.get(name)
        if own is None:
            given[name] = masked(tier)
        elif isinstance(own, dict):
            given[name] = {**masked(tier), **cast("dict[str, Any]", own)}


def _mapping(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError([Problem(str(path), error.strerror or "no file", "a readable YAML file")]) from error
    if len(data) > FILE_BYTES_MAX:
        raise SettingsError([Problem(str(path), f"{len(data)} bytes", f"a file of at most {FILE_BYTES_MAX} bytes")])
    raw = _parse(path, data)
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise SettingsError([Problem(str(path), "no mapping at the top", "a YAML mapping of sections")])
    return cast("dict[str, Any]", raw)


def _parse(path: Path, data: bytes) -> Any:
    from collegium_settings.yaml_file import YamlError, parse  # noqa: PLC0415 - costs time, and only a file needs it

    try:
        return parse(data)
    except YamlError as error:
        raise SettingsError([Problem(f"{path}, {error.place}", error.read, "one YAML document")]) from None
