"""The keyring: what it seals opens for its tenant, its key and its place, and for nothing else."""

from __future__ import annotations

import os

import pytest
from collegium_contracts.envelope import Envelope, IdentityKeyring, UnknownKeyError, held
from collegium_contracts.state import DataKeysRecord, WrappedKey
from collegium_runtime import keyring
from collegium_runtime.keyring import ACTIVE_AFTER_MS, OPENERS_MAX, TenantKeyring

NOW_MS = 1_800_000_000_000
FIRST = WrappedKey(id="dk1", wrapped_by="e", nonce=b"", wrapped=bytes(32), created_at_ms=NOW_MS)
SECOND = WrappedKey(id="dk2", wrapped_by="e", nonce=b"", wrapped=bytes(range(32)), created_at_ms=NOW_MS)


class Clock:
    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


def ring(*records: DataKeysRecord, clock: Clock | None = None) -> TenantKeyring:
    async def learn(_tenant: str) -> None: ...

    made = TenantKeyring(lambda _tenant, key: key.wrapped, learn, clock or Clock())
    for record in records:
        made.take(record)
    return made


ACME = DataKeysRecord(tenant="acme", keys=[FIRST])
GLOBEX = DataKeysRecord(tenant="globex", keys=[FIRST])


def test_what_is_sealed_opens_in_another_process_and_shows_nothing():
    sealed = ring(ACME).seal("acme", b"canary")
    assert b"canary" not in sealed.body
    assert (sealed.key_id.partition(".")[0], len(sealed.nonce)) == ("dk1", 12)
    assert ring(ACME).open("acme", sealed) == b"canary"


def test_nonces_and_processes_differ():
    one, other = ring(ACME), ring(ACME)
    sealed = [one.seal("acme", b"x"), one.seal("acme", b"x"), other.seal("acme", b"x")]
    assert len({envelope.nonce for envelope in sealed}) == 3
    assert sealed[0].key_id == sealed[1].key_id != sealed[2].key_id


def test_nothing_opens_elsewhere():
    """The same data key under two tenants: only what is bound to the envelope keeps them apart."""
    both = ring(ACME, GLOBEX)
    sealed = both.seal("acme", b"x", "place")
    key_id, nonce, body = sealed.key_id, sealed.nonce, sealed.body
    altered = Envelope(key_id, nonce, body[:-1] + bytes([body[-1] ^ 1]))
    for tenant, envelope, purpose in (
        ("globex", sealed, "place"),
        ("acme", sealed, ""),
        ("acme", sealed, "elsewhere"),
        ("acme", altered, "place"),
        ("acme", Envelope(key_id, b"", body), "place"),
        ("acme", Envelope("dk9.AAAA", nonce, body), "place"),
        ("acme", Envelope("dk1.!", nonce, body), "place"),
        ("acme", Envelope("dk1", nonce, body), "place"),
        ("nobody", sealed, "place"),
    ):
        with pytest.raises(UnknownKeyError):
            both.open(tenant, envelope, purpose)
    assert both.open("acme", sealed, "place") == b"x"


def test_what_was_written_before_there_were_keys_still_opens():
    assert ring().open("acme", IdentityKeyring().seal("acme", b"x")) == b"x"


def test_a_rotated_key_seals_once_everybody_knows_it_and_the_old_one_still_opens():
    clock = Clock()
    of_acme = ring(ACME, clock=clock)
    before = of_acme.seal("acme", b"before")
    of_acme.take(DataKeysRecord(tenant="acme", keys=[FIRST, SECOND]))
    assert of_acme.seal("acme", b"meanwhile").key_id.startswith("dk1.")
    clock.now_ms += ACTIVE_AFTER_MS
    of_acme.renew("acme")
    after = of_acme.seal("acme", b"after")
    assert after.key_id.startswith("dk2.")
    assert (of_acme.open("acme", before), of_acme.open("acme", after)) == (b"before", b"after")


def test_a_destroyed_key_opens_and_seals_nothing():
    of_acme = ring(ACME)
    sealed = of_acme.seal("acme", b"x")
    of_acme.take(DataKeysRecord(tenant="acme", erased_at_ms=NOW_MS))
    assert not of_acme.holds("acme")
    with pytest.raises(UnknownKeyError):
        of_acme.open("acme", sealed)
    with pytest.raises(UnknownKeyError, match="acme"):
        of_acme.seal("acme", b"x")


def test_a_key_seals_a_bounded_number_of_messages(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keyring, "MESSAGES_PER_KEY", 3)
    of_acme = ring(ACME)
    ids = [of_acme.seal("acme", b"x").key_id for _ in range(7)]
    assert [ids.count(key_id) for key_id in dict.fromkeys(ids)] == [3, 3, 1]


def test_derived_keys_are_bounded_and_come_back():
    of_acme = ring(ACME)
    written = [ring(ACME).seal("acme", os.urandom(8)) for _ in range(OPENERS_MAX + 10)]
    for _ in range(2):
        assert all(of_acme.open("acme", envelope) for envelope in written)
    assert len(of_acme._tenants["acme"].openers) == OPENERS_MAX


async def test_content_that_came_faster_than_its_key_asks_for_it_once():
    asked: list[str] = []

    async def learn(tenant: str) -> None:
        asked.append(tenant)
        late.take(ACME)

    late = TenantKeyring(lambda _tenant, key: key.wrapped, learn, Clock())
    sealed = ring(ACME).seal("acme", b"x")
    await held(late, "acme", None, sealed, sealed)
    await held(late, "acme", sealed)
    assert (late.open("acme", sealed), asked) == (b"x", ["acme"])
