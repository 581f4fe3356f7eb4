"""Reads plain data (from YAML and the environment) into the settings' types, and notes every problem it meets.

The fields' types are the schema: sections, tuples, mappings, literals, optionals and ``Annotated`` scalars. Not here:
what holds between sections. One rule: reading never stops at the first problem, and no problem shows a secret.
"""

from __future__ import annotations

import builtins
import types
import typing
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin

import msgspec

from collegium_settings.errors import Problem
from collegium_settings.scalars import EnvironmentText, Scalar
from collegium_settings.secret import MASK, mask_text
from collegium_settings.section import Section

S = TypeVar("S", bound=Section)

_SHOWN_CHARACTERS = 60
_SECRET_WORDS = ("api_key", "password", "secret", "token", "creds", "key")
_DEPTH_MAX = 32  # of free-form values; YAML's aliases can make a value that contains itself


class Reader:
    """Reads values and collects problems."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def section(self, cls: type[S], raw: Any, path: str) -> S | None:
        """Reads a mapping into a section; none where it has problems, which are noted. An empty key reads as {}."""
        if raw is None:
            raw = {}
        if not isinstance(raw, Mapping):
            self._refuse(path, raw, f"a mapping with the keys {_names(cls)}")
            return None
        given = cast("Mapping[Any, Any]", raw)
        hints = typing.get_type_hints(cls, include_extras=True)
        known = {field.encode_name: field for field in msgspec.structs.fields(cls)}
        before = len(self.problems)
        for key in given:
            if key not in known:
                self._unknown(path, key, list(known))
        values: dict[str, Any] = {}
        for key, field in known.items():
            if key in given:
                values[field.name] = self.value(hints[field.name], given[key], join(path, key))
            elif field.required:
                self.problems.append(Problem(join(path, key), "nothing", self._accepted(hints[field.name])))
        return cls(**values) if len(self.problems) == before else None

    def value(self, hint: Any, raw: Any, path: str) -> Any:
        """Reads one value of any of the settings' types; none where it has problems, which are noted."""
        arguments = get_args(hint)
        match get_origin(hint):
            case typing.Annotated:
                return self._scalar(next(one for one in arguments if isinstance(one, Scalar)), raw, path)
            case typing.Union | types.UnionType:
                return self._union(arguments, raw, path)
            case typing.Literal:
                return str(raw) if raw in arguments else self._refuse(path, raw, self._accepted(hint))
            case builtins.tuple | builtins.dict as container:
                read = self._sequence if container is tuple else self._mapping
                return read(arguments, raw, path)
            case _:
                return self._free(raw, path, _DEPTH_MAX) if hint is Any else self.section(hint, raw, path)

    def _scalar(self, scalar: Scalar, raw: Any, path: str) -> Any:
        try:
            return scalar.read(raw)
        except (ValueError, OverflowError):
            return self._refuse(path, raw, scalar.accepted, secret=scalar.secret)

    def _union(self, options: tuple[Any, ...], raw: Any, path: str) -> Any:
        if type(None) in options and (raw is None or (isinstance(raw, EnvironmentText) and raw in {"null", "~"})):
            return None
        choices = [one for one in options if one is not type(None)]
        keys: set[Any] = set(cast("Mapping[Any, Any]", raw)) if isinstance(raw, Mapping) else set()
        # Sections of one union share no key, so the keys tell which is meant.
        meant = [one for one in choices if len(choices) > 1 and keys & set(_names(one))]
        return self.value((meant or choices)[0] if meant or choices else Any, raw, path)

    def _sequence(self, hints: tuple[Any, ...], raw: Any, path: str) -> Any:
        if raw is None:
            return ()
        if not isinstance(raw, list):
            return self._refuse(path, raw, "a list")
        items = cast("list[Any]", raw)
        return tuple(self.value(hints[0], one, f"{path}[{number}]") for number, one in enumerate(items))

    def _mapping(self, hints: tuple[Any, ...], raw: Any, path: str) -> Any:
        key_hint, hint = hints
        if raw is None:
            return {}
        if not isinstance(raw, Mapping):
            return self._refuse(path, raw, "a mapping")
        values: dict[str, Any] = {}
        for key, one in cast("Mapping[Any, Any]", raw).items():
            if get_origin(key_hint) is Literal and key not in get_args(key_hint):
                self._unknown(path, key, list(get_args(key_hint)))
            elif not isinstance(key, str) or not key:
                self.problems.append(Problem(join(path, key), "a key that is not text", "keys in quotes"))
            else:
                values[key] = self.value(hint, one, join(path, key))
        return values

    def _free(self, raw: Any, path: str, depth: int) -> Any:
        """Keeps free-form values as they are; their own reader checks them."""
        if depth == 0:
            return self._refuse(path, raw, f"values at most {_DEPTH_MAX} levels deep")
        if isinstance(raw, Mapping):
            given = cast("Mapping[Any, Any]", raw)
            return {str(key): self._free(one, join(path, key), depth - 1) for key, one in given.items()}
        if isinstance(raw, list):
            return [self._free(one, path, depth - 1) for one in cast("list[Any]", raw)]
        return str(raw) if isinstance(raw, str) else raw

    def _unknown(self, path: str, key: Any, known: list[str]) -> None:
        near = get_close_matches(str(key), known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        self.problems.append(Problem(join(path, key), "an unknown key", f"{hint}one of {', '.join(known)}"))

    def _refuse(self, path: str, raw: Any, accepted: str, *, secret: bool = False) -> None:
        self.problems.append(Problem(path, shown(raw, secret=secret or named_secret(path)), accepted))

    def _accepted(self, hint: Any) -> str:
        arguments = get_args(hint)
        if get_origin(hint) is Annotated:
            return next(one.accepted for one in arguments if isinstance(one, Scalar))
        if get_origin(hint) is Literal:
            return "one of " + ", ".join(map(str, arguments))
        return "a mapping"


def shown(raw: Any, *, secret: bool) -> str:
    """Says what was read: scalars as they were written and cut, containers by their kind, secrets masked."""
    if raw is None:
        return "null"
    if isinstance(raw, Mapping):
        return "a mapping"
    if isinstance(raw, list):
        return "a list"
    if isinstance(raw, EnvironmentText) and raw.shown != raw:
        return repr(raw.shown)
    if secret:
        return f"{MASK} ({len(str(raw))} characters)"
    text = repr(mask_text(str(raw))) if isinstance(raw, str) else str(raw)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def named_secret(path: str) -> bool:
    """Tells whether a key's own name says that its value is a secret."""
    name = path.rpartition(".")[2].partition("[")[0]
    return any(name == word or name.endswith("_" + word) for word in _SECRET_WORDS)


def join(path: str, key: Any) -> str:
    """Returns the path of a key below a path."""
    return f"{path}.{key}" if path else str(key)


def _names(hint: Any) -> list[str]:
    if isinstance(hint, type) and issubclass(hint, Section):
        return [field.encode_name for field in msgspec.structs.fields(hint)]
    return []
