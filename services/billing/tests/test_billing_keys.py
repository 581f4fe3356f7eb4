"""Keys: made, read, hashed and described without ever showing a secret."""

import hashlib
import random
import stat
from pathlib import Path

import pytest
from collegium_billing.errors import MalformedKeyError, QuestionError
from collegium_billing.identity import admin_key, keys, tenancy
from collegium_billing.identity.keys import Key, Tenant
from collegium_contracts import codec
from collegium_contracts.ids import API_KEY

TEXT = "sk-clg-abcdefgh1234-" + "s" * 48


def key(number: int, *, revoked_at_ms: int | None = None) -> Key:
    return Key(
        id=f"k{number:07}",
        tenant="acme",
        secret_sha256=f"{number:064x}",
        project="p" * 40,
        scopes=keys.SCOPES,
        name="n",
        created_at_ms=number,
        revoked_at_ms=revoked_at_ms,
    )


def test_a_made_key_has_the_form_of_one_and_reads_back(rng: random.Random) -> None:
    made = keys.make(rng.choice)

    assert API_KEY.match(made.text)
    assert len(made.public_id) == 12
    assert keys.parse(made.text, "a test") == made


def test_the_hash_is_of_the_secret_alone() -> None:
    assert keys.parse(TEXT, "a test").secret_sha256 == hashlib.sha256(b"s" * 48).hexdigest()


@pytest.mark.parametrize("text", ["", "sk-clg-short-" + "s" * 48, TEXT + "x", TEXT + "\n", TEXT.upper()])
def test_what_is_no_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(MalformedKeyError) as refused:
        keys.parse(text, "tenants[acme].api_key")
    assert "tenants[acme].api_key" in str(refused.value)
    assert "s" * 48 not in str(refused.value)


def standing(*some: Key) -> tenancy.Standing:
    return tenancy.Standing(tenant=Tenant(id="acme", tier="pro", created_at_ms=0), keys=some)


def test_a_record_has_all_live_keys_and_the_newest_revoked_and_fits_one_message() -> None:
    live = [key(number) for number in range(keys.LIVE_KEYS_MAX)]
    revoked = [key(1_000 + number, revoked_at_ms=1) for number in range(tenancy.REVOKED_KEYS_SHOWN + 5)]
    record = tenancy.record(standing(*revoked, *live), 0)

    shown = {entry.id: entry.revoked for entry in record.keys}
    assert all(shown[one.id] is False for one in live)
    assert "k0001004" not in shown
    assert shown["k0001005"] is True
    assert len(codec.encode(record)) < tenancy.RECORD_BYTES_MAX


def test_a_record_does_not_depend_on_the_order_of_keys(rng: random.Random) -> None:
    some = [key(number, revoked_at_ms=number % 2 or None) for number in range(20)]
    assert tenancy.record(standing(*rng.sample(some, len(some))), 0) == tenancy.record(standing(*some), 0)


def test_scopes_are_known_and_once_each() -> None:
    assert keys.check_scopes(["usage", "chat", "usage"]) == ("chat", "usage")
    for wrong in ([], ["root"], ["chat", "root"]):
        with pytest.raises(QuestionError) as refused:
            keys.check_scopes(wrong)
        assert (refused.value.code, refused.value.param) == ("invalid_value", "scopes")


@pytest.mark.parametrize("name", ["n" * 101, "two\nlines", "\x00"])
def test_a_name_is_short_and_printable(name: str) -> None:
    with pytest.raises(QuestionError):
        keys.check_name(name)


def test_the_admin_key_is_made_once_and_for_its_owner_alone(tmp_path: Path, rng: random.Random) -> None:
    folder = tmp_path / "data"
    made = admin_key.read_or_make(folder, lambda: keys.make(rng.choice))

    assert admin_key.read_or_make(folder, lambda: keys.make(rng.choice)) == made
    assert stat.S_IMODE((folder / "admin.key").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["admin.key"]


def test_an_admin_key_that_another_process_made_meanwhile_wins(tmp_path: Path, rng: random.Random) -> None:
    def make_late() -> keys.ApiKey:
        (tmp_path / "admin.key").write_text(TEXT + "\n")
        return keys.make(rng.choice)

    assert admin_key.read_or_make(tmp_path, make_late).text == TEXT


def test_a_damaged_admin_key_stops_the_start(tmp_path: Path, rng: random.Random) -> None:
    (tmp_path / "admin.key").write_text("half a k")
    with pytest.raises(MalformedKeyError, match=r"admin\.key"):
        admin_key.read_or_make(tmp_path, lambda: keys.make(rng.choice))
