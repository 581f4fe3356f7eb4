"""Tokens of other issuers: which are right, and that every wrong one is refused alike."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from typing import Any

import jwt
import pytest
from collegium_contracts.state import TenantRecord
from collegium_gateway.errors import ApiError
from collegium_gateway.identity import token_keys, tokens
from collegium_gateway.identity.principal import KeyBook
from collegium_gateway.identity.token_keys import KeySetError, KeySource, SetClient, read_set
from collegium_gateway.identity.tokens import Issuer, Tokens
from collegium_gateway.webhooks import client as webhook_client
from collegium_settings.settings import JwtIssuerSettings
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

NOW_MS = 1_767_225_600_000
ISSUER = "https://login.example.org/"
RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
WEAK_RSA = rsa.generate_private_key(65537, 1024)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def public(key: Any, kid: str, alg: str) -> dict[str, Any]:
    algorithm = jwt.get_algorithm_by_name(alg)
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid}


KEYS = [public(RSA, "rsa", "RS256"), public(EC, "ec", "ES256"), public(ED, "ed", "EdDSA")]


def key_set(*keys: dict[str, Any]) -> str:
    return json.dumps({"keys": list(keys or KEYS)})


class Clock:
    """Unix time in ms for the tokens; PyJWT has its own, so tokens end relative to the real one."""

    def __init__(self) -> None:
        import time

        self.ms = time.time_ns() // 1_000_000

    def __call__(self) -> int:
        return self.ms


CLOCK = Clock()


def token(key: Any = RSA, kid: str | None = "rsa", alg: str = "RS256", headers: Any = None, **claims: Any) -> str:
    now = CLOCK.ms // 1000
    content = {
        "iss": ISSUER,
        "aud": "collegium",
        "sub": "ann",
        "exp": now + 600,
        "tenant": "acme",
        "scope": "chat usage",
    }
    content = {name: value for name, value in (content | claims).items() if value is not None}
    return jwt.encode(content, key, algorithm=alg, headers={**({"kid": kid} if kid else {}), **(headers or {})})


def book(clock: Any = CLOCK, source: KeySource | None = None, state: Any = "active", **fields: Any) -> KeyBook:
    settings = JwtIssuerSettings(**({"issuer": ISSUER, "audience": "collegium", "jwks": key_set()} | fields))
    made = KeyBook()
    made.learn(TenantRecord(id="acme", tier="pro", state=state, projects=["default", "web"]))
    made.learn(TenantRecord(id="operator", tier="enterprise", projects=["default"]))
    issuer = Issuer(settings, source or KeySource.fixed(ISSUER, settings.jwks or ""))
    made.tokens = Tokens([issuer], made.record, clock)
    return made


def refusal(keys: KeyBook, text: str) -> ApiError:
    with pytest.raises(ApiError) as raised:
        keys.authenticate(f"Bearer {text}")
    return raised.value


@pytest.mark.parametrize(("key", "kid", "alg"), [(RSA, "rsa", "RS256"), (EC, "ec", "ES256"), (ED, "ed", "EdDSA")])
def test_a_right_token_says_who_asks(key: Any, kid: str, alg: str):
    keys = book(project_claim="project")
    who = keys.authenticate(f"Bearer {token(key, kid, alg, project='web')}")
    assert (who.tenant, who.project, who.tier, who.role) == ("acme", "web", "pro", "member")
    assert who.scopes == {"chat", "usage"}
    assert who.key_id.startswith("jwt-")
    assert "ann" not in who.key_id


def test_a_subject_has_one_key_id_whatever_its_token():
    keys = book()
    ids = {keys.authenticate(f"Bearer {token(jti=str(n))}").key_id for n in range(3)}
    assert len(ids) == 1
    assert keys.authenticate(f"Bearer {token(sub='bob')}").key_id not in ids


def unsigned(alg: str) -> str:
    head, body, _ = token().split(".")
    del head
    made = base64.urlsafe_b64encode(json.dumps({"alg": alg, "typ": "JWT", "kid": "rsa"}).encode()).rstrip(b"=").decode()
    return f"{made}.{body}."


def confused() -> str:
    """Signed by HMAC with the public key as its secret: the old trick."""
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "rsa"}).encode()).rstrip(b"=").decode()
    text = f"{head}.{token().split('.')[1]}"
    mac = hmac.new(pem, text.encode(), "sha256").digest()
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def tampered() -> str:
    head, body, signature = token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    changed = base64.urlsafe_b64encode(json.dumps({**claims, "tenant": "operator"}).encode()).rstrip(b"=").decode()
    return f"{head}.{changed}.{signature}"


WRONG = {
    "alg none": unsigned("none"),
    "alg None": unsigned("None"),
    "no alg": unsigned(""),
    "hmac with the public key": confused(),
    "tampered": tampered(),
    "signed by another": token(OTHER_RSA),
    "another kid's key": token(RSA, "ec"),
    "unknown kid": token(RSA, "unknown"),
    "no kid where there are several": token(RSA, None),
    "another algorithm of the same key": token(RSA, "rsa", "RS512"),
    "pss": token(RSA, "rsa", "PS256"),
    "wrong audience": token(aud="other"),
    "no audience": token(aud=None),
    "wrong issuer": token(iss="https://evil.example.org/"),
    "no issuer": token(iss=None),
    "no end": token(exp=None),
    "not yet": token(nbf=CLOCK.ms // 1000 + 600),
    "an end as text": token(exp=str(CLOCK.ms // 1000 + 600)),
    "an end that is none": token(exp=True),
    "an end beyond any time": token(exp=10**30),
    "no end at all": token(exp=float("inf")),
    "an end that is no number": token(exp=float("nan")),
    "a begin as text": token(nbf="0"),
    "issued later": token(iat=CLOCK.ms // 1000 + tokens.LEEWAY_SECONDS + 5),
    "issued as text": token(iat="0"),
    "issued before any time": token(iat=-(10**30)),
    "unknown tenant": token(tenant="absent"),
    "no tenant": token(tenant=None),
    "the operator's tenant": token(tenant="operator", scope="admin"),
    "a path as tenant": token(tenant="../acme"),
    "a list as tenant": token(tenant=["acme"]),
    "too long": token(filler="x" * 20_000),
    "no token": "a.b.c",
    "empty parts": "..",
    "not ascii": "é.é.é",
    "critical extension": token(headers={"crit": ["exp"], "b64": False}),
}


@pytest.mark.parametrize("name", WRONG)
def test_every_wrong_token_is_refused_alike(name: str):
    error = refusal(book(), WRONG[name])
    assert (error.code, error.kind.http_status, error.param) == ("invalid_token", 401, None)
    assert error.message == refusal(book(), WRONG["tampered"]).message


def test_an_expired_token_is_told_so_only_where_it_was_right():
    late = CLOCK.ms // 1000 - tokens.LEEWAY_SECONDS - 5
    assert refusal(book(), token(exp=late)).code == "expired_token"
    assert refusal(book(), token(OTHER_RSA, exp=late)).code == "invalid_token"
    book().authenticate(f"Bearer {token(exp=CLOCK.ms // 1000 - 5)}")


def test_times_of_a_token_may_have_fractions_and_clocks_may_differ():
    now = CLOCK.ms // 1000
    for times in ({"exp": now + 600.5}, {"iat": now + tokens.LEEWAY_SECONDS - 5}, {"nbf": now + 0.5, "iat": now}):
        book().authenticate(f"Bearer {token(**times)}")


def test_a_known_token_ends_too():
    clock = Clock()
    keys = book(clock)
    text = token(exp=clock.ms // 1000 + 60)
    keys.authenticate(f"Bearer {text}")
    known = keys.tokens._known  # type: ignore[union-attr]
    assert len(known) == 1
    clock.ms += (60 + tokens.LEEWAY_SECONDS) * 1000
    verified = next(iter(known.values()))
    assert clock.ms >= verified.until_ms


def test_a_known_token_costs_no_second_verification(monkeypatch: pytest.MonkeyPatch):
    keys = book()
    text = token()
    first = keys.authenticate(f"Bearer {text}")
    monkeypatch.setattr(jwt, "decode", None)
    assert keys.authenticate(f"Bearer {text}") == first


def test_known_tokens_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokens, "KNOWN_MAX", 3)
    keys = book()
    for number in range(9):
        keys.authenticate(f"Bearer {token(ED, 'ed', 'EdDSA', jti=str(number))}")
    assert len(keys.tokens._known) == 3  # type: ignore[union-attr]


def test_a_suspended_tenant_is_refused_also_with_a_known_token():
    keys = book()
    text = token()
    keys.authenticate(f"Bearer {text}")
    keys.learn(TenantRecord(id="acme", tier="pro", state="suspended"))
    assert refusal(keys, text).code == "tenant_suspended"
    keys.learn(TenantRecord(id="acme", tier="pro", state="deleted"))
    assert refusal(keys, text).code == "invalid_token"


def test_a_withdrawn_key_ends_the_tokens_that_are_known():
    source = KeySource(ISSUER, lambda: None)
    source.learn(key_set().encode())
    keys = book(source=source)
    text = token()
    keys.authenticate(f"Bearer {text}")
    source.learn(key_set(KEYS[1]).encode())
    assert refusal(keys, text).code == "invalid_token"


def test_the_operators_tenant_is_reached_only_by_an_issuer_that_names_it():
    fields = {"tenant": "operator", "scope": "admin", "role": "auditor"}
    assert refusal(book(tenants=("acme",)), token(**fields)).code == "invalid_token"
    who = book(tenants=("operator",), role_claim="role").authenticate(f"Bearer {token(**fields)}")
    assert (who.role, who.reaches_all) == ("auditor", True)
    who = book(tenants=("operator",)).authenticate(f"Bearer {token(**fields)}")
    assert who.role == "member", "without a claim for roles nobody has more than a member's"
    assert book(tenant="acme").authenticate(f"Bearer {token(**fields)}").tenant == "acme"


@pytest.mark.parametrize(
    ("claim", "scopes"),
    [("chat root", {"chat"}), (["chat", "tasks", 3], {"chat", "tasks"}), (None, set()), (7, set()), ({}, set())],
)
def test_scopes_are_words_or_a_list_and_unknown_ones_are_none(claim: Any, scopes: set[str]):
    assert book().authenticate(f"Bearer {token(scope=claim)}").scopes == scopes


def test_an_algorithm_that_the_issuer_may_not_use_is_refused():
    assert refusal(book(algorithms=("ES256",)), token()).code == "invalid_token"


def test_weak_private_and_symmetric_keys_are_not_taken():
    private = jwt.get_algorithm_by_name("RS256").to_jwk(RSA, as_dict=True)
    secret = {"kty": "oct", "k": base64.urlsafe_b64encode(b"s" * 32).decode(), "kid": "s"}
    curve = public(ec.generate_private_key(ec.SECP384R1()), "p384", "ES384")
    for bad in (public(WEAK_RSA, "weak", "RS256"), {**private, "kid": "p"}, secret, curve, {**KEYS[0], "use": "enc"}):
        with pytest.raises(KeySetError):
            read_set(key_set(bad).encode())
        assert set(read_set(key_set(bad, KEYS[1]).encode())) == {"ec"}
    for content in (b"", b"[]", b"{}", b'{"keys": 3}', b'{"keys": [3, null]}', b"\xff"):
        with pytest.raises(KeySetError):
            read_set(content)


class Served:
    """A set that is fetched, counted and may fail."""

    def __init__(self, content: str) -> None:
        self.content: str | None = content
        self.fetches = 0
        self.now = 1_000.0

    async def __call__(self) -> bytes:
        self.fetches += 1
        await asyncio.sleep(0)
        if self.content is None:
            raise OSError("away")
        return self.content.encode()

    def source(self) -> KeySource:
        return KeySource(ISSUER, self, lambda: self.now)


async def asked(keys: KeyBook, text: str) -> str:
    """What a request with this token is answered: its tenant, or the code of its refusal."""
    try:
        await keys.tokens.prepare(f"Bearer {text}")  # type: ignore[union-attr]
        return keys.authenticate(f"Bearer {text}").tenant
    except ApiError as error:
        return error.code


async def test_a_set_is_fetched_once_for_many_and_again_for_a_key_that_it_lacks():
    served = Served(key_set(KEYS[0]))
    keys = book(source=served.source())
    assert await asyncio.gather(*(asked(keys, token(jti=str(n))) for n in range(20))) == ["acme"] * 20
    assert served.fetches == 1
    served.content = key_set()
    assert await asked(keys, token(EC, "ec", "ES256")) == "invalid_token", "the cooldown holds"
    served.now += token_keys.COOLDOWN_SECONDS
    assert await asked(keys, token(EC, "ec", "ES256")) == "acme"
    assert served.fetches == 2


async def test_unknown_keys_never_make_more_than_a_fetch_a_cooldown():
    served = Served(key_set())
    keys = book(source=served.source())
    for number in range(50):
        assert await asked(keys, token(RSA, f"kid{number}")) == "invalid_token"
    assert served.fetches == 1


async def test_a_set_that_cannot_be_read_is_a_503_and_an_old_one_is_trusted_for_a_while():
    served = Served("")
    served.content = None
    keys = book(source=served.source())
    assert await asked(keys, token()) == "token_keys_unavailable"
    assert await asked(keys, token(jti="2")) == "token_keys_unavailable"
    assert served.fetches == 1
    served.now += token_keys.COOLDOWN_SECONDS
    served.content = key_set()
    assert await asked(keys, token()) == "acme"
    served.content = None
    served.now += token_keys.FRESH_SECONDS
    assert await asked(keys, token(jti="3")) == "acme", "a refresh behind the back of requests"
    served.now += token_keys.TRUSTED_SECONDS
    assert await asked(keys, token(jti="4")) == "token_keys_unavailable"


async def test_what_no_configured_issuer_sent_makes_no_fetch():
    served = Served(key_set())
    keys = book(source=served.source())
    for text in ("a.b.c", token(iss="https://evil.example.org/"), "sk-clg-x", "x" * 30_000 + ".."):
        await keys.tokens.prepare(f"Bearer {text}")  # type: ignore[union-attr]
    await keys.tokens.prepare(None)  # type: ignore[union-attr]
    assert served.fetches == 0


@pytest.mark.parametrize("path", ["/keys", "/moved", "/huge", "/gone"])
async def test_a_set_is_fetched_from_public_addresses_without_redirects_and_bounded(path: str):
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        match request.path:
            case "/keys":
                return web.Response(text=key_set())
            case "/moved":
                raise web.HTTPFound("/keys")
            case "/huge":
                return web.Response(body=b" " * (token_keys.SET_BYTES_MAX + 1))
            case _:
                raise web.HTTPNotFound

    app = web.Application()
    app.router.add_get("/{path}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    private, guarded = SetClient(allow_private=True), SetClient(allow_private=False)
    try:
        with pytest.raises(KeySetError):
            await guarded.fetch(f"http://127.0.0.1:{port}{path}")
        with pytest.raises(OSError, match="Cannot connect") as refused:
            await guarded.fetch(f"https://127.0.0.1:{port}{path}")
        assert webhook_client._code_of(refused.value) == "address_refused"
        if path == "/keys":
            assert set(read_set(await private.fetch(f"http://127.0.0.1:{port}{path}"))) == {"rsa", "ec", "ed"}
        else:
            with pytest.raises(KeySetError):
                await private.fetch(f"http://127.0.0.1:{port}{path}")
    finally:
        await private.close()
        await guarded.close()
        await runner.cleanup()
