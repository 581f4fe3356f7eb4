"""Models that are added while the platform runs: what may be said of one, and the section ``roster``.

One rule: who adds a model names a key that stands in the configuration, and it is sent to no host but those that stand
there beside it, so that nobody who may add models can have a key sent to a place of their own.
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from collegium_contracts.state import ModelRecord
from msgspec import field

from collegium_settings.errors import Problem, SettingsError, UnpricedModelError
from collegium_settings.models import SpokenModel
from collegium_settings.reader import Reader
from collegium_settings.scalars import Flag, HiddenText, HttpUrl, Identifier, Text, whole
from collegium_settings.section import Section

SPEC_BYTES_MAX = 64 * 1024
AUTO = "auto"
# Copies of one model; each is looked after and probed.
ENDPOINTS_MAX = 32
_PORTS = {"http": 80, "https": 443}


class RosterKey(Section, frozen=True, kw_only=True):
    """A key that added models may name, and the hosts that it may be sent to.

    A host may say its port, and ``http://`` where the key may go there in the clear.
    """

    api_key: HiddenText
    hosts: tuple[Text, ...]


class RosterSettings(Section, frozen=True, kw_only=True):
    """What may be added while the platform runs: keys by name, and whether addresses may be private ones.

    ``models_max`` bounds how many; each is looked after, and all stand in one value.
    """

    keys: dict[str, RosterKey] = field(default_factory=dict[str, RosterKey])
    allow_private_addresses: Flag = False
    models_max: Annotated[int, whole(0, 1000)] = 200


class AddedEndpoint(Section, frozen=True, kw_only=True):
    """One more place where an added model is; ``key`` names one of ``roster.keys``."""

    base_url: HttpUrl
    key: Identifier | None = None
    upstream_model: Text | None = None


class AddedModel(SpokenModel, frozen=True, kw_only=True):
    """A model as an operator adds it: as in the file, but with the name of a key (``key``) in the place of one."""

    key: Identifier | None = None
    endpoints: tuple[AddedEndpoint, ...] = ()


def read_added(raw: Any) -> AddedModel:
    """Reads what is said of a model to add; raises SettingsError with every problem, without showing a secret."""
    reader = Reader()
    model = reader.section(AddedModel, raw, "")
    problems = list(reader.problems)
    if model is not None:
        problems += _problems(model)
    if model is None or problems:
        raise SettingsError(problems)
    return model


def read_spec(spec: bytes) -> AddedModel:
    """Reads the JSON of a model to add; raises SettingsError."""
    try:
        raw = msgspec.json.decode(spec)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise SettingsError([Problem("", "no JSON", "a JSON object")]) from None
    return read_added(raw)


def record(model: SpokenModel) -> ModelRecord:
    """Returns a model's roster record, prices in pico-dollars per token; raises UnpricedModelError."""
    tokens = model.limits.tokens
    return ModelRecord(
        name=model.name,
        rank=model.rank,
        pool=model.pool,
        price=model.price_picos(),
        charge=model.charge_picos(),
        max_output_tokens=model.max_output_tokens,
        context_tokens=model.context_tokens,
        domains=list(model.domains),
        capabilities=list(model.capabilities),
        fallbacks=list(model.fallbacks),
        labels=dict(model.labels),
        concurrency=model.limits.concurrency,
        requests_per_minute=model.limits.requests_per_minute,
        tokens_per_window=tokens.max if tokens is not None else None,
        token_window_seconds=tokens.window_seconds if tokens is not None else 0,
    )


def host_of(url: str) -> str:
    """Returns the host of a URL, in small letters and without its port."""
    return (urlsplit(url).hostname or "").lower().removesuffix(".")


def allows(key: RosterKey, url: str) -> bool:
    """Tells whether a key may be sent to an address: to its hosts alone, at the port that is said or https's own.

    A host that is written ``http://…`` may be sent it in the clear, as one on the same machine; all others are https.
    """
    place = _place(url)
    return place is not None and place in {_place(host if "://" in host else f"https://{host}") for host in key.hosts}


def _place(url: str) -> tuple[str, str, int] | None:
    """Returns the scheme, host and port of an address; none where it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    return parts.scheme, host_of(url), port


def _problems(model: AddedModel) -> list[Problem]:
    found: list[Problem] = []
    if model.name == AUTO:
        found.append(Problem("name", repr(AUTO), "a name other than auto, which lets the router decide"))
    if model.max_output_tokens > model.context_tokens:
        accepted = f"at most context_tokens, which is {model.context_tokens}"
        found.append(Problem("max_output_tokens", str(model.max_output_tokens), accepted))
    if len(model.endpoints) >= ENDPOINTS_MAX:
        found.append(Problem("endpoints", f"{len(model.endpoints)} of them", f"fewer than {ENDPOINTS_MAX}"))
    places = [("base_url", model.base_url)]
    places += [(f"endpoints[{place}].base_url", one.base_url) for place, one in enumerate(model.endpoints)]
    found += [
        Problem(path, "a user name or password, a query or a fragment", "an address without them")
        for path, url in places
        if any((urlsplit(url).username, urlsplit(url).password, urlsplit(url).query, urlsplit(url).fragment))
    ]
    try:
        record(model)
    except UnpricedModelError:
        found.append(Problem("price", "nothing", "a price; none is published for this address"))
    return found
