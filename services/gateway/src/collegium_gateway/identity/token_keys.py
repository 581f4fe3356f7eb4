"""Where the keys of an issuer's tokens come from: a set in the configuration, or one that is fetched and followed.

A set is fetched when the first token comes, again when it has grown old, and once more for a key that it lacks, never
more often than the cooldown says. It is read over https from public addresses only, unless the issuer may be private;
no redirect is followed. One rule: a fetch that fails leaves the last good set, until that is too old to be trusted.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any, Final, cast

import aiohttp
import jwt
import msgspec
import structlog
from collegium_contracts.addresses import is_refused
from collegium_runtime.guarded import GuardedResolver, guarded_socket
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from yarl import URL

from collegium_gateway.errors import ApiError

log = structlog.get_logger(__name__)

FRESH_SECONDS: Final = 600.0
# A set that could not be read again for so long is trusted no more: its issuer may have withdrawn a key.
TRUSTED_SECONDS: Final = 6 * 3600.0
COOLDOWN_SECONDS: Final = 30.0
FETCH_SECONDS: Final = 5.0
SET_BYTES_MAX: Final = 262_144
KEYS_MAX: Final = 100
RSA_BITS_MIN: Final = 2048

Fetch = Callable[[], Any]


class KeySetError(ValueError):
    """A key set that cannot be read."""


class KeySource:
    """The keys of one issuer by key id; ``generation`` counts the sets that differed."""

    def __init__(self, issuer: str, fetch: Fetch | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._content = b""
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._fetching: asyncio.Task[None] | None = None
        self.generation = 0

    @classmethod
    def fixed(cls, issuer: str, content: str) -> KeySource:
        """Returns a source that never changes; raises KeySetError for what is no key set."""
        source = cls(issuer, None)
        source.learn(content.encode())
        return source

    def learn(self, content: bytes) -> None:
        """Takes a set; raises KeySetError, and keeps what stood, for what is none or holds no usable key."""
        keys = read_set(content)
        if content != self._content:
            self._keys, self._content = keys, content
            self.generation += 1
        self._read_at = self._clock()

    def key(self, kid: str) -> jwt.PyJWK | None:
        """Returns a key by its id (without one: the only key), or none, also where the set is too old."""
        if self._fetch is not None and (self._read_at is None or self._age() > TRUSTED_SECONDS):
            return None
        if not kid:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    async def look_for(self, kid: str) -> None:
        """Sees to it that the set is as new as this key needs; raises ApiError where there is no set at all."""
        if self._fetch is None:
            return
        lacking = self.key(kid) is None
        if not lacking and self._age() < FRESH_SECONDS:
            return
        if self._fetching is None and self._may_fetch():
            self._tried_at = self._clock()
            self._fetching = asyncio.create_task(self._refresh(), name="jwks")
        if lacking and self._fetching is not None:
            # Shielded: many requests wait for one fetch, and a client that leaves must not end it.
            await asyncio.shield(self._fetching)
        if self._read_at is None or self._age() > TRUSTED_SECONDS:
            raise ApiError("token_keys_unavailable", "the keys of this token's issuer cannot be read; try again later")

    async def close(self) -> None:
        """Ends a fetch under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _age(self) -> float:
        return float("inf") if self._read_at is None else self._clock() - self._read_at

    def _may_fetch(self) -> bool:
        return self._tried_at is None or self._clock() - self._tried_at >= COOLDOWN_SECONDS

    async def _refresh(self) -> None:
        assert self._fetch is not None, "fixed sets are never fetched"
        try:
            self.learn(await self._fetch())
        except Exception as error:  # whatever an issuer sends, the last good set stays
            log.warning("key set not read", issuer=self._issuer, error=type(error).__name__)
        finally:
            self._fetching = None


def read_set(content: bytes) -> dict[str, jwt.PyJWK]:
    """Returns the usable keys of a set: public, for signatures, of a known kind and strong enough.

    Raises KeySetError where it is no set or has none of them.
    """
    try:
        entries = msgspec.json.decode(content)["keys"]
    except (msgspec.DecodeError, TypeError, KeyError) as error:
        raise KeySetError("not a JSON object with keys") from error
    if not isinstance(entries, list) or len(cast("list[Any]", entries)) > KEYS_MAX:
        raise KeySetError(f"not a list of at most {KEYS_MAX} keys")
    found: dict[str, jwt.PyJWK] = {}
    for entry in cast("list[Any]", entries):
        key = _read_key(entry)
        if key is not None:
            found[str(entry.get("kid") or "")] = key
    if not found:
        raise KeySetError("no key that can be used")
    return found


def _read_key(entry: Any) -> jwt.PyJWK | None:
    if not isinstance(entry, dict):
        return None
    fields = cast("dict[str, Any]", entry)
    if fields.get("use", "sig") != "sig" or "d" in fields:
        return None
    algorithm = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}.get(str(fields.get("kty")))
    if algorithm is None or fields.get("alg", algorithm) != algorithm:
        return None
    try:
        key = jwt.PyJWK(fields, algorithm=algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    match key.key:
        case rsa.RSAPublicKey() as public:
            return key if public.key_size >= RSA_BITS_MIN else None
        case ec.EllipticCurvePublicKey() as public:
            return key if isinstance(public.curve, ec.SECP256R1) else None
        case ed25519.Ed25519PublicKey():
            return key
        case _:
            return None


class SetClient:
    """Fetches key sets; one for all issuers that may be private or all that may not."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, url: str) -> bytes:
        """Returns a set's bytes; raises OSError, TimeoutError, aiohttp.ClientError or KeySetError."""
        if URL(url).scheme != "https" and not self._allow_private:
            raise KeySetError("not https")
        session = self._session = self._session or self._open()
        async with session.get(URL(url), allow_redirects=False) as response:
            if response.status != 200:
                raise KeySetError(f"answered {response.status}")
            content = bytearray()
            async for piece in response.content.iter_any():
                content += piece
                if len(content) > SET_BYTES_MAX:
                    raise KeySetError("too large")
            return bytes(content)

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=8, resolver=GuardedResolver(self._passes), socket_factory=self._socket, force_close=True
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=FETCH_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"user-agent": "collegium-keys", "accept": "application/json"},
            trust_env=False,
        )

    def _passes(self, address: str) -> bool:
        return self._allow_private or not is_refused(address)

    def _socket(self, address_info: tuple[Any, ...]) -> socket.socket:
        return guarded_socket(self._passes, address_info)
