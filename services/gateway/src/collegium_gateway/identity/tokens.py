"""JWT bearer tokens of other issuers: verified once, then known by their hash until they end.

Here: which tokens are right, and whose they are. Not here: where an issuer's keys come from (token_keys). A key's own
type decides its algorithm, and only asymmetric ones are known, so a token's header never chooses how it is checked.
One rule: whatever is wrong with a token, its sender learns no more than that it is not valid, or that it has expired.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final, cast

import jwt
import msgspec
import structlog
from collegium_contracts.identity import OPERATOR_TENANT, role_of
from collegium_contracts.ids import PROJECT_ID, TENANT_ID
from collegium_contracts.state import TenantRecord
from collegium_settings.settings import JwtIssuerSettings

from collegium_gateway.errors import ApiError
from collegium_gateway.identity.principal import Principal, projects_of, suspended
from collegium_gateway.identity.token_keys import KeySource

log = structlog.get_logger(__name__)

SCOPES: Final = frozenset({"admin", "chat", "knowledge", "tasks", "usage"})
LEEWAY_SECONDS: Final = 30
TOKEN_BYTES_MAX: Final = 16_384
# The end of the year 9999.
LAST_SECONDS: Final = 253_402_300_799
# A verified token costs about a kilobyte; beyond this the oldest is verified again.
KNOWN_MAX: Final = 20_000
# A change of an issuer's keys is seen within this time even by tokens that are known.
KNOWN_SECONDS_MAX: Final = 300
# Of what a token says besides: enough for an age, not for a biography.
CLAIMS_MAX: Final = 32
CLAIM_CHARACTERS_MAX: Final = 64


class Verified(msgspec.Struct, frozen=True):
    """What a right token says: whose it is, what it may do, until when it is known (Unix ms)."""

    tenant: str
    project: str
    key_id: str
    scopes: frozenset[str]
    role: str
    until_ms: int
    source: KeySource
    generation: int
    claims: dict[str, Any] = {}


class Issuer:
    """One issuer: its keys and how its claims are read."""

    def __init__(self, settings: JwtIssuerSettings, source: KeySource) -> None:
        self.settings = settings
        self.source = source

    def verify(self, token: str, kid: str, alg: str, now_ms: int) -> Verified:
        """Returns what a token says; raises jwt.InvalidTokenError, LookupError or ValueError."""
        key = self.source.key(kid)
        if key is None:
            raise LookupError("no key of this id")
        algorithm = str(key.algorithm_name)
        if alg != algorithm or algorithm not in self.settings.algorithms:
            raise ValueError("not this key's algorithm")
        claims = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=self.settings.audience,
            issuer=self.settings.issuer,
            # A library looks at the machine's clock; the service's is the one that counts.
            options={
                "require": ["exp", "iss", "aud"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_sub": False,
            },
        )
        _check_times(claims, now_ms)
        return self._read(claims, now_ms)

    def _read(self, claims: dict[str, Any], now_ms: int) -> Verified:
        settings = self.settings
        tenant = settings.tenant or claims.get(settings.tenant_claim)
        if not isinstance(tenant, str) or TENANT_ID.match(tenant) is None:
            raise ValueError("no tenant")
        if settings.tenant is None and (
            tenant not in settings.tenants if settings.tenants else tenant == OPERATOR_TENANT
        ):
            raise ValueError("not this issuer's tenant")
        project = claims.get(settings.project_claim, "default") if settings.project_claim else "default"
        if not isinstance(project, str) or PROJECT_ID.match(project) is None:
            raise ValueError("no project")
        role = claims.get(settings.role_claim, "") if settings.role_claim else ""
        exp = _date(claims["exp"])
        return Verified(
            tenant=tenant,
            project=project,
            key_id=_key_id(settings.issuer, claims.get("sub")),
            scopes=_scopes(claims.get(settings.scope_claim)),
            # Without a claim of its own a token is a member's, also in the operator's tenant.
            role=role if isinstance(role, str) and role else "member",
            until_ms=min((exp + LEEWAY_SECONDS) * 1000, now_ms + KNOWN_SECONDS_MAX * 1000),
            source=self.source,
            generation=self.source.generation,
            claims=_told(claims),
        )


def _check_times(claims: dict[str, Any], now_ms: int) -> None:
    """Compares a token's times with the service's own clock; raises jwt.InvalidTokenError."""
    now = now_ms // 1000
    ends, begins, issued = _date(claims["exp"]), _date(claims.get("nbf", 0)), _date(claims.get("iat", 0))
    if ends <= now - LEEWAY_SECONDS:
        raise jwt.ExpiredSignatureError("expired")
    if max(begins, issued) > now + LEEWAY_SECONDS:
        raise jwt.ImmatureSignatureError("not yet")


def _date(claim: object) -> int:
    """Reads a NumericDate (RFC 7519, section 2); raises jwt.DecodeError for what is no number or no time there is."""
    if isinstance(claim, bool) or not isinstance(claim, int | float) or not abs(claim) <= LAST_SECONDS:
        raise jwt.DecodeError("exp, nbf and iat must be numbers of seconds")
    return int(claim)


class Tokens:
    """The tokens of all configured issuers."""

    def __init__(
        self,
        issuers: Sequence[Issuer],
        record: Callable[[str], TenantRecord | None],
        now_ms: Callable[[], int],
    ) -> None:
        self._issuers = {one.settings.issuer: one for one in issuers}
        self._record = record
        self._now_ms = now_ms
        self._known: dict[bytes, Verified] = {}

    async def prepare(self, authorization: str | None) -> None:
        """Looks after the issuer's keys where a token comes for which they are not at hand.

        A key that is not known makes one more fetch of the set, at most one in a while. Raises ApiError
        ``token_keys_unavailable`` where an issuer's keys were never read and cannot be now.
        """
        if authorization is None or authorization[:7].lower() != "bearer ":
            return
        token = authorization[7:].strip()
        if token.count(".") != 2 or _hash(token) in self._known:
            return
        try:
            issuer, kid, _ = self._about(token)
        except (ValueError, LookupError, jwt.InvalidTokenError):
            return
        await issuer.source.look_for(kid)

    def authenticate(self, token: str) -> Principal:
        """Returns who holds a token; raises ApiError ``invalid_token``, ``expired_token`` or ``tenant_suspended``."""
        digest = _hash(token)
        now_ms = self._now_ms()
        known = self._known.get(digest)
        if known is None or now_ms >= known.until_ms or known.generation != known.source.generation:
            self._known.pop(digest, None)
            known = self._verify(token, now_ms)
            while len(self._known) >= KNOWN_MAX:
                del self._known[next(iter(self._known))]
            self._known[digest] = known
        return self._principal(known)

    def _verify(self, token: str, now_ms: int) -> Verified:
        try:
            issuer, kid, alg = self._about(token)
            return issuer.verify(token, kid, alg, now_ms)
        except jwt.ExpiredSignatureError:
            raise ApiError("expired_token", "this token has expired; ask its issuer for a new one") from None
        except (jwt.InvalidTokenError, ValueError, LookupError, TypeError, OverflowError) as error:
            # The log says what the sender is not told; neither shows the token.
            log.info("token refused", reason=type(error).__name__)
            raise _invalid() from None

    def _about(self, token: str) -> tuple[Issuer, str, str]:
        """Reads issuer, key id and algorithm of a token that nothing vouches for yet."""
        if len(token) > TOKEN_BYTES_MAX:
            raise ValueError("too long")
        unverified = jwt.decode_complete(token, options={"verify_signature": False})
        header = cast("dict[str, Any]", unverified["header"])
        issuer = self._issuers.get(str(unverified["payload"].get("iss")))
        if issuer is None:
            raise LookupError("no such issuer")
        return issuer, str(header.get("kid") or ""), str(header.get("alg") or "")

    def _principal(self, known: Verified) -> Principal:
        tenant = self._record(known.tenant)
        if tenant is None or tenant.state == "deleted" or known.project not in (*tenant.projects, "default"):
            raise _invalid()
        if tenant.state != "active":
            raise suspended(tenant.id)
        role = role_of(tenant.id, known.role)
        return Principal(
            tenant.id,
            known.project,
            known.key_id,
            known.scopes,
            tenant.tier,
            role,
            stale_answers=tenant.stale_answers,
            pool=tenant.pool,
            gates=tuple(tenant.gates),
            verified=tenant.verified,
            claims=known.claims,
            projects=projects_of(tenant),
            collects_since_ms=tenant.collects_since_ms,
        )


def _invalid() -> ApiError:
    return ApiError("invalid_token", "this token is not valid; ask its issuer for a new one")


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _key_id(issuer: str, subject: object) -> str:
    """Returns what stands for a key: equal for all tokens of one subject, and nothing that tells who it is."""
    return "jwt-" + hashlib.sha256(f"{issuer}\x00{subject}".encode()).hexdigest()[:16]


def _told(claims: dict[str, Any]) -> dict[str, Any]:
    """Returns the short claims, which a gate may ask for: an age, a date of birth."""
    short = {name: value for name, value in claims.items() if isinstance(value, int | float | str)}
    kept = ((name, value) for name, value in short.items() if len(str(value)) <= CLAIM_CHARACTERS_MAX)
    return dict(islice(kept, CLAIMS_MAX))


def _scopes(claim: object) -> frozenset[str]:
    words: list[object] = (
        list(claim.split())
        if isinstance(claim, str)
        else cast("list[object]", claim)
        if isinstance(claim, list)
        else []
    )
    return frozenset(word for word in words if isinstance(word, str)) & SCOPES
