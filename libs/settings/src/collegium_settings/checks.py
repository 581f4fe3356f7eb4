"""What holds between the values of a configuration: names are unique, references exist.

One rule: a check reads settings that are valid each by itself, and only notes problems.
"""

from __future__ import annotations

from collections.abc import Iterable

from collegium_contracts.identity import OPERATOR_TENANT as OPERATOR
from collegium_contracts.ids import TENANT_ID

from collegium_settings.embeddings import BUNDLED_EMBEDDER
from collegium_settings.errors import Problem, UnpricedModelError
from collegium_settings.gate_checks import check_gates
from collegium_settings.models import ModelSettings
from collegium_settings.people_checks import check_people
from collegium_settings.pools import GENERAL, all_pools
from collegium_settings.secret import Secret
from collegium_settings.settings import Settings, TenantSettings

EMBEDDED_MODEL_NAME = "smollm2-135m"
AUTO = "auto"
_SHARES_SLACK = 1e-9


def check(settings: Settings) -> list[Problem]:
    """Returns what does not fit together."""
    return [
        *_doors(settings),
        *_models(settings),
        *_embeddings(settings),
        *_search(settings),
        *_tenants(settings),
        *_shares(settings),
        *_novel(settings),
        *_credentials(settings),
        *_alerts(settings),
        *_workers(settings),
        *_issuers(settings),
        *check_gates(settings),
        *check_people(settings),
    ]


def _doors(settings: Settings) -> Iterable[Problem]:
    http, grpc = settings.http, settings.grpc
    if http.port == grpc.port != 0 and http.host == grpc.host:
        yield Problem("grpc.port", str(grpc.port), "a port other than http.port")


def _alerts(settings: Settings) -> Iterable[Problem]:
    if settings.alerts.webhook_url is not None and settings.alerts.webhook_secret is None:
        yield Problem("alerts.webhook_secret", "nothing", "a key, by which the receiver knows who calls")


def _workers(settings: Settings) -> Iterable[Problem]:
    workers = settings.workers
    yield from _duplicates("workers.dedicated_pools[{}]", list(workers.dedicated_pools))
    of_models = {model.pool for model in settings.models} | {GENERAL}
    for number, pool in enumerate(workers.dedicated_pools):
        if pool in of_models:
            yield Problem(f"workers.dedicated_pools[{number}]", repr(pool), "a pool that is no model's")
    for number, pool in enumerate(workers.serve or ()):
        if pool not in all_pools(settings):
            yield Problem(f"workers.serve[{number}]", repr(pool), "one of " + ", ".join(all_pools(settings)))


def _own_pool(settings: Settings, tenant: TenantSettings, path: str) -> Iterable[Problem]:
    if tenant.pool is None:
        return
    if tenant.pool not in settings.workers.dedicated_pools:
        accepted = ", ".join(settings.workers.dedicated_pools) or "nothing: there are none"
        yield Problem(path, repr(tenant.pool), f"one of workers.dedicated_pools: {accepted}")
    tier = settings.tiers.get(tenant.tier)
    if tier is not None and "dedicated_pool" not in tier.features:
        yield Problem(path, repr(tenant.pool), f"nothing: tier {tenant.tier} lacks the feature dedicated_pool")


def _models(settings: Settings) -> Iterable[Problem]:
    names = [model.name for model in settings.models]
    yield from _duplicates("models[{}].name", names)
    known = {*names, EMBEDDED_MODEL_NAME} if settings.embedded_model else set(names)
    for number, model in enumerate(settings.models):
        if model.name == AUTO:
            yield Problem(f"models[{number}].name", repr(AUTO), "a name other than auto, which lets the router decide")
        if model.max_output_tokens > model.context_tokens:
            yield Problem(
                f"models[{number}].max_output_tokens",
                str(model.max_output_tokens),
                f"at most context_tokens, which is {model.context_tokens}",
            )
        yield from _price(model, number)
        for place, fallback in enumerate(model.fallbacks):
            if fallback not in known or fallback == model.name:
                others = sorted(known - {model.name})
                accepted = (
                    "the name of another model: " + ", ".join(others) if others else "no fallback: no other model"
                )
                yield Problem(f"models[{number}].fallbacks[{place}]", repr(fallback), accepted)


def _search(settings: Settings) -> Iterable[Problem]:
    rerank = settings.search.rerank
    if rerank.base_url is not None and rerank.model is None:
        yield Problem("search.rerank.model", "nothing", "the name of the endpoint's model")


def _embeddings(settings: Settings) -> Iterable[Problem]:
    embeddings = settings.embeddings
    if embeddings.base_url is None:
        for field in ("upstream_model", "api_key", "dimensions"):
            if getattr(embeddings, field) is not None:
                yield Problem(f"embeddings.{field}", "a value", "null while embeddings.base_url is null")
        if embeddings.model not in (None, BUNDLED_EMBEDDER):
            yield Problem("embeddings.model", repr(embeddings.model), f"{BUNDLED_EMBEDDER}, or a base_url beside it")
    elif embeddings.model is None:
        yield Problem("embeddings.model", "nothing", "the name of the endpoint's model")
    taken = {AUTO, *(model.name for model in settings.models), *((EMBEDDED_MODEL_NAME,) * settings.embedded_model)}
    if embeddings.name in taken:
        yield Problem("embeddings.model", repr(embeddings.name), "a name that no other model has")
    try:
        embeddings.price_picos()
    except UnpricedModelError:
        yield Problem(
            "embeddings.price",
            "nothing, and none is published for its address",
            'a price, for instance {input_usd_per_mtok: "0.02"}; {} is zero',
        )


def _price(model: ModelSettings, number: int) -> Iterable[Problem]:
    try:
        model.price_picos()
    except UnpricedModelError:
        yield Problem(
            f"models[{number}].price",
            "nothing, and no flat price is published for its address",
            'a price, for instance {input_usd_per_mtok: "0.15", output_usd_per_mtok: "0.60"}; {} is zero',
        )


def _tenants(settings: Settings) -> Iterable[Problem]:
    yield from _duplicates("tenants[{}].id", [tenant.id for tenant in settings.tenants])
    seen: dict[str, str] = {}
    for number, tenant in enumerate(settings.tenants):
        if tenant.tier not in settings.tiers:
            yield Problem(f"tenants[{number}].tier", repr(tenant.tier), "one of " + ", ".join(settings.tiers))
        yield from _own_pool(settings, tenant, f"tenants[{number}].pool")
        for path, api_key in _keys_of(tenant, f"tenants[{number}]"):
            public_id = api_key.reveal().split("-")[2]
            if public_id in seen:
                yield Problem(path, f"the public id of {seen[public_id]}", "a key of its own")
            seen.setdefault(public_id, path)
        projects = [project.id for project in tenant.projects]
        yield from _duplicates(f"tenants[{number}].projects[{{}}].id", projects)
        for place, key in enumerate(tenant.keys):
            if key.role is not None and "admin" not in key.scopes:
                yield Problem(f"tenants[{number}].keys[{place}].role", repr(key.role), "a role beside the scope admin")
            if key.role not in (None, "member") and tenant.id != OPERATOR:
                yield Problem(f"tenants[{number}].keys[{place}].role", repr(key.role), "member, but for the operator")


def _keys_of(tenant: TenantSettings, path: str) -> Iterable[tuple[str, Secret]]:
    if tenant.api_key is not None:
        yield f"{path}.api_key", tenant.api_key
    for number, key in enumerate(tenant.keys):
        yield f"{path}.keys[{number}].api_key", key.api_key


def _issuers(settings: Settings) -> Iterable[Problem]:
    yield from _duplicates("jwt.issuers[{}].issuer", [one.issuer for one in settings.jwt.issuers])
    for number, one in enumerate(settings.jwt.issuers):
        path = f"jwt.issuers[{number}]"
        if (one.jwks_url is None) == (one.jwks is None):
            yield Problem(path, "both or none of jwks_url and jwks", "either jwks_url or jwks")
        if one.jwks_url is not None and not one.jwks_url.startswith("https://") and not one.allow_private:
            yield Problem(f"{path}.jwks_url", repr(one.jwks_url), "a URL that starts with https://, or allow_private")
        if not one.algorithms:
            yield Problem(f"{path}.algorithms", "[]", "at least one of RS256, ES256 and EdDSA")
        if one.tenant is not None and one.tenants:
            yield Problem(f"{path}.tenants", "a list beside tenant", "either tenant or tenants")


def _shares(settings: Settings) -> Iterable[Problem]:
    total = sum(settings.routing.shares.values())
    if total > 1 + _SHARES_SLACK:
        yield Problem("routing.shares", f"a sum of {total:g}", "shares whose sum is at most 1")


def _novel(settings: Settings) -> Iterable[Problem]:
    for name in settings.routing.novel_tenants:
        if TENANT_ID.match(name) is None:
            yield Problem(f"routing.novel_tenants.{name}", repr(name), "a tenant: 1 to 40 characters of a-z, 0-9 and -")


def _credentials(settings: Settings) -> Iterable[Problem]:
    tls = settings.nats.tls
    if tls is not None and (tls.cert is None) != (tls.key is None):
        yield Problem("nats.tls", "one of cert and key", "both cert and key, or neither")
    if settings.database.read_url is not None and settings.database.url is None:
        yield Problem("database.read_url", "a replica of the bundled server", "null while database.url is null")


def _duplicates(path: str, names: list[str]) -> Iterable[Problem]:
    for number, name in enumerate(names):
        first = names.index(name)
        if first != number:
            yield Problem(path.format(number), f"{name!r}, which {path.format(first)} is too", "a name of its own")
