"""Keys: who is let in, and that every refusal looks the same."""

import hashlib

import pytest
from collegium_contracts.state import KeyRecord, TenantRecord
from collegium_gateway.errors import ApiError
from collegium_gateway.identity import principal as principal_module
from collegium_gateway.identity.principal import KeyBook, Principal

RIGHT, WRONG = "r" * 48, "w" * 48
KEY = f"sk-clg-acmekey1-{RIGHT}"


def key(id_: str = "acmekey1", secret: str = RIGHT, **fields) -> KeyRecord:
    return KeyRecord(id=id_, secret_sha256=hashlib.sha256(secret.encode()).hexdigest(), **fields)


def book_of(*keys: KeyRecord) -> KeyBook:
    book = KeyBook()
    book.learn(TenantRecord(id="acme", tier="pro", keys=list(keys)))
    return book


def refusal(book: KeyBook, authorization: str | None) -> ApiError:
    with pytest.raises(ApiError) as raised:
        book.authenticate(authorization)
    return raised.value


def test_the_right_key_says_who_asks():
    book = book_of(key(project="blue", scopes=["chat", "usage"]))
    expected = Principal("acme", "blue", "acmekey1", frozenset(("chat", "usage")), "pro", projects=("blue",))
    for written in (f"Bearer {KEY}", f"bearer {KEY}", f"BEARER   {KEY} "):
        assert book.authenticate(written) == expected


@pytest.mark.parametrize("authorization", [None, ""])
def test_no_key_is_told_what_to_send(authorization):
    error = refusal(book_of(key()), authorization)
    assert (error.code, error.kind.http_status) == ("missing_api_key", 401)
    assert "Bearer" in error.message


FORGED = [
    f"Bearer sk-clg-acmekey1-{WRONG}",
    f"Bearer sk-clg-unknown1-{RIGHT}",
    f"Bearer sk-clg-revoked1-{RIGHT}",
    f"Basic {KEY}",
    KEY,
    "Bearer",
    "Bearer ",
    f"Bearer {KEY}x",
    f"Bearer {KEY[:-1]}",
    f"Bearer {KEY.upper()}",
    f"Bearer {KEY}\n{KEY}",
    f"Bearer sk-clg--{RIGHT}",
    f"Bearer sk-clg-short-{RIGHT}",
    f"Bearer sk-clg-{'a' * 17}-{RIGHT}",
    "Bearer sk-clg-acmekey1-" + "\u0660" * 48,
    f"Bearer sk-oai-acmekey1-{RIGHT}",
    "Bearer " + "x" * 10_000,
]


@pytest.mark.parametrize("authorization", FORGED)
def test_every_refusal_of_a_key_looks_the_same(authorization):
    book = book_of(key(), key("revoked1", revoked=True))
    error = refusal(book, authorization)
    assert (error.code, error.kind.http_status, error.param) == ("invalid_api_key", 401, None)
    assert error.message == refusal(book, FORGED[0]).message
    for secret in (RIGHT, WRONG, "acmekey1", "unknown1", "revoked1"):
        assert secret not in error.message


@pytest.mark.parametrize("authorization", FORGED)
def test_every_refusal_of_a_key_takes_the_same_path(authorization, monkeypatch: pytest.MonkeyPatch):
    """One hash and one comparison in constant time, whether the id is known or not."""
    compared: list[tuple[str, str]] = []
    compare = principal_module.hmac.compare_digest

    def watched(first: str, second: str) -> bool:
        compared.append((first, second))
        return compare(first, second)

    monkeypatch.setattr(principal_module.hmac, "compare_digest", watched)
    refusal(book_of(key(), key("revoked1", revoked=True)), authorization)
    ((first, second),) = compared
    assert len(first) == len(second) == 64


def test_learning_replaces_everything_that_was_known_of_a_tenant():
    book = book_of(key(), key("acmekey2", WRONG))
    book.learn(TenantRecord(id="other", tier="free", keys=[key("otherkey", RIGHT)]))
    book.learn(TenantRecord(id="acme", tier="pro", keys=[key("acmekey2", WRONG, scopes=["tasks"])]))
    assert refusal(book, f"Bearer {KEY}").code == "invalid_api_key"
    assert book.authenticate(f"Bearer sk-clg-acmekey2-{WRONG}").scopes == {"tasks"}
    assert book.authenticate(f"Bearer sk-clg-otherkey-{RIGHT}").tenant == "other"
    assert set(book.tenants()) == {"acme", "other"}


def test_a_revocation_is_learned():
    book = book_of(key())
    book.authenticate(f"Bearer {KEY}")
    book.learn(TenantRecord(id="acme", tier="pro", keys=[key(revoked=True)]))
    assert refusal(book, f"Bearer {KEY}").code == "invalid_api_key"


def test_a_scope_that_is_lacking_is_named_with_the_key():
    who = Principal("acme", "default", "acmekey1", frozenset(("chat",)))
    who.need("chat")
    with pytest.raises(ApiError, match="'admin'") as raised:
        who.need("admin")
    assert (raised.value.code, raised.value.kind.http_status) == ("insufficient_scope", 403)
    assert "acmekey1" in raised.value.message


NOW_MS = 1_767_225_600_000


def test_a_key_ends_at_its_time_and_its_refusal_tells_nothing():
    now = [NOW_MS]
    book = KeyBook(lambda: now[0])
    book.learn(TenantRecord(id="acme", tier="pro", keys=[key(expires_at_ms=NOW_MS + 1)]))
    book.authenticate(f"Bearer {KEY}")
    now[0] += 1
    assert refusal(book, f"Bearer {KEY}").code == "invalid_api_key"
    assert refusal(book, f"Bearer {KEY}").message == refusal(book, FORGED[0]).message


def test_a_suspended_tenant_is_told_so_and_only_to_whoever_has_the_key():
    book = KeyBook()
    book.learn(TenantRecord(id="acme", tier="pro", keys=[key()], state="suspended"))
    error = refusal(book, f"Bearer {KEY}")
    assert (error.code, error.kind.http_status) == ("tenant_suspended", 403)
    assert refusal(book, FORGED[0]).code == "invalid_api_key"
    book.learn(TenantRecord(id="acme", tier="pro", keys=[key()]))
    assert book.authenticate(f"Bearer {KEY}").tenant == "acme"


def test_the_keys_that_were_let_in_are_remembered_and_refused_ones_are_not():
    book = book_of(key(), key("acmekey2", WRONG, revoked=True))
    book.authenticate(f"Bearer {KEY}")
    refusal(book, f"Bearer sk-clg-acmekey2-{WRONG}")
    assert book.used == {"acmekey1"}


def test_a_tenant_that_is_none_unknown_or_deleted_is_not_known():
    book = book_of(key())
    book.learn(TenantRecord(id="idle", tier="pro", state="suspended"))
    book.learn(TenantRecord(id="gone", tier="pro", state="deleted"))
    assert (book.known("acme"), book.known("idle")) == ("acme", "idle")
    for named, code in (
        *((one, "not_found") for one in ("gone", "absent", "-5", "1e999", "sk-clg-x")),
        *((one, "invalid_value") for one in ("", "*", ">", "a.b", "x y", "_platform", "acme\n")),
    ):
        with pytest.raises(ApiError) as refused:
            book.known(named)
        assert (refused.value.code, refused.value.param) == (code, "tenant"), named
