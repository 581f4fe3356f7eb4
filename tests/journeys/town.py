"""A platform for journeys that differ by what their tenants are: who they log in as, their tier, pool, memory.

One rule: a journey has tenants of its own here and changes nothing else that others would notice; one that counts on
the whole platform, kills it or changes its configuration starts its own.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
from collegium_settings.settings import default_tiers
from collegium_testing.platforms import configuration, make_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

_TENANTS = (
    *("acme", "globex"),  # bad input
    "doors",  # revocation
    "hooks",  # webhooks
    *("small", "large"),  # storage
    *("pooled", "general"),  # pools
    *("recalls", "apart", "leaving"),  # memory
    "timed",  # times of the audit trail
)
KEYS = {tenant: make_key(tenant) for tenant in _TENANTS}
# Logs in for acme alone, and for whoever its token names.
ISSUER, ISSUER_FOR_ALL = "https://login.example.org/", "https://all.example.org/"
SIGNING = Ed25519PrivateKey.generate()
# Of the tenant small.
TIGHT = {"queries_per_day": 10_000, "models_max": 3, "concurrency": 50, "storage_bytes": 20_000, "weight": 1}
POOLS = {"dedicated_pools": ["mine", "nobodys"], "serve": ["general", "mine"]}


def town_of(base_url: str) -> dict[str, Any]:
    """Returns its configuration, with models at an address."""
    public = json.loads(OKPAlgorithm.to_jwk(SIGNING.public_key())) | {"kid": "one", "use": "sig", "alg": "EdDSA"}
    issuer = {"issuer": ISSUER_FOR_ALL, "audience": "collegium", "jwks": json.dumps({"keys": [public]})}
    config = configuration(
        base_url,
        tenants=KEYS,
        jwt={"issuers": [issuer, issuer | {"issuer": ISSUER, "tenants": ["acme"]}]},
        tiers=msgspec.to_builtins(default_tiers()) | {"tight": TIGHT},
        webhooks={"allow_private_addresses": True},
        workers=POOLS,
    )
    next(tenant for tenant in config["tenants"] if tenant["id"] == "small")["tier"] = "tight"
    (sim,) = config["models"]
    config["models"] = [
        sim,
        # The window of the second takes few turns, that of the third few memories.
        {**sim, "name": "short", "upstream_model": "sim", "context_tokens": 4096},
        {**sim, "name": "tiny", "upstream_model": "sim", "context_tokens": 320, "max_output_tokens": 64},
    ]
    return config
