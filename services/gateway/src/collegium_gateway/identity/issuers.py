"""The configured issuers of tokens, with the clients that fetch their keys. Wiring only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from collegium_contracts.state import TenantRecord
from collegium_settings.settings import JwtSettings

from collegium_gateway.identity.token_keys import KeySource, SetClient
from collegium_gateway.identity.tokens import Issuer, Tokens


class Issuers:
    """All issuers; ``close`` ends what fetches."""

    def __init__(self, issuers: Sequence[Issuer], clients: Sequence[SetClient]) -> None:
        self._issuers = issuers
        self._clients = clients

    @classmethod
    def configured(cls, settings: JwtSettings) -> Issuers:
        """Returns the issuers of the configuration; raises KeySetError where a set in it cannot be read."""
        clients = {private: SetClient(allow_private=private) for private in (False, True)}
        issuers: list[Issuer] = []
        for one in settings.issuers:
            if one.jwks is not None:
                source = KeySource.fixed(one.issuer, one.jwks)
            else:
                assert one.jwks_url is not None, "checked with the configuration"
                source = KeySource(one.issuer, partial(clients[one.allow_private].fetch, one.jwks_url))
            issuers.append(Issuer(one, source))
        return cls(issuers, list(clients.values()))

    def tokens(self, record: Callable[[str], TenantRecord | None], now_ms: Callable[[], int]) -> Tokens | None:
        """Returns what lets their tokens in, or none where there is no issuer."""
        return Tokens(self._issuers, record, now_ms) if self._issuers else None

    async def close(self) -> None:
        """Ends fetches and connections."""
        for issuer in self._issuers:
            await issuer.source.close()
        for client in self._clients:
            await client.close()
