"""Added models as endpoints: which addresses and keys may be used, and how probes judge."""

import json
from typing import Any

import msgspec
import pytest
from collegium_bus.errors import RequestRefusedError
from collegium_contracts.content import Answer, Choice
from collegium_settings import Secret
from collegium_settings.roster import RosterKey, RosterSettings, read_added
from collegium_worker_pool.added import checks
from collegium_worker_pool.added.book import endpoint_of

KEYS = {"zed": RosterKey(api_key=Secret("the-secret"), hosts=("api.example.org",))}


def model(**fields: Any):
    said = {"name": "m", "base_url": "https://api.example.org/v1", "price": {"input_usd_per_mtok": "1"}, **fields}
    return read_added(said)


def refused(roster: RosterSettings, **fields: Any) -> tuple[str, str | None]:
    with pytest.raises(RequestRefusedError) as error:
        endpoint_of(model(**fields), roster)
    assert "the-secret" not in str(error.value)
    return error.value.code, error.value.param


def test_an_added_model_is_called_with_the_key_that_it_names():
    endpoint = endpoint_of(model(key="zed", upstream_model="up"), RosterSettings(keys=KEYS))
    assert endpoint.url == "https://api.example.org/v1/chat/completions"
    assert (endpoint.headers["Authorization"], endpoint.upstream_model) == ("Bearer the-secret", "up")
    assert (endpoint.is_guarded, endpoint.replicas) == (True, ())


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:9/v1", "http://localhost/v1", "http://[::1]/v1", "http://169.254.169.254/v1", "http://10.1.2.3/",
     "http://0x7f000001/v1", "http://127.1/v1"],
)  # fmt: skip
def test_an_address_that_is_not_public_is_refused_unless_it_is_allowed(address: str):
    assert refused(RosterSettings(), base_url=address) == ("model_address_refused", "base_url")
    assert refused(RosterSettings(), endpoints=[{"base_url": address}]) == (
        "model_address_refused", "endpoints[0].base_url",
    )  # fmt: skip
    plain = not address.startswith(("http://0x", "http://127.1/"))
    if plain:
        assert endpoint_of(model(base_url=address), RosterSettings(allow_private_addresses=True)).url


def test_a_key_is_sent_to_no_host_but_its_own():
    roster = RosterSettings(keys=KEYS)
    assert refused(roster, key="zed", base_url="https://evil.example.net/v1") == ("invalid_value", "key")
    assert refused(roster, key="zed", base_url="https://api.example.org.evil.net/v1") == ("invalid_value", "key")
    for elsewhere in ("http://api.example.org/v1", "https://api.example.org:8443/v1", "http://api.example.org:443/v1"):
        assert refused(roster, key="zed", base_url=elsewhere) == ("invalid_value", "key"), elsewhere
    assert refused(roster, key="other") == ("invalid_value", "key")
    assert refused(roster, key="zed", endpoints=[{"base_url": "https://evil.example.net/v1", "key": "zed"}]) == (
        "invalid_value", "endpoints[0].key",
    )  # fmt: skip


def test_a_host_may_say_its_port_and_that_it_is_spoken_to_in_the_clear():
    hosts = ("HTTP://127.0.0.1:9000/", "b.example.org:8443", "https://c.example.org.", "[::1]:9")
    keys = {"zed": RosterKey(api_key=Secret("the-secret"), hosts=hosts)}
    roster = RosterSettings(keys=keys, allow_private_addresses=True)
    for address in (
        "http://127.0.0.1:9000/v1", "https://B.example.org:8443/v1", "https://c.example.org:443/v1", "https://[::1]:9/",
    ):  # fmt: skip
        assert endpoint_of(model(key="zed", base_url=address), roster).headers["Authorization"]
    for address in ("https://127.0.0.1:9000/v1", "http://127.0.0.1:9001/v1", "https://b.example.org/v1"):
        assert refused(roster, key="zed", base_url=address) == ("invalid_value", "key")


def test_a_model_with_several_endpoints_has_them_all_in_order():
    roster = RosterSettings(keys=KEYS)
    endpoint = endpoint_of(model(key="zed", endpoints=[{"base_url": "https://b.example.org/v1"}]), roster)
    assert [one.url for one in endpoint.replicas] == [
        "https://api.example.org/v1/chat/completions", "https://b.example.org/v1/chat/completions",
    ]  # fmt: skip
    assert "Authorization" not in endpoint.replicas[1].headers


def call(name: str, arguments: str) -> msgspec.Raw:
    return msgspec.Raw(json.dumps({"id": "1", "function": {"name": name, "arguments": arguments}}).encode())


@pytest.mark.parametrize(
    ("name", "choice", "logprob", "is_well"),
    [
        ("chat", Choice("yes"), None, True),
        ("chat", Choice(""), None, False),
        ("chat", Choice("", "length"), None, True),
        ("tools", Choice(None, "tool_calls", [call("report", '{"number": 7}')]), None, True),
        ("tools", Choice(None, "tool_calls", [call("report", "seven")]), None, False),
        ("tools", Choice(None, "tool_calls", [call("other", "{}")]), None, False),
        ("tools", Choice("7"), None, False),
        ("json", Choice('{"ok": true}'), None, True),
        ("json", Choice("```json\n{}\n```"), None, False),
        ("logprobs", Choice("yes"), -0.1, True),
        ("logprobs", Choice("yes"), None, False),
    ],
)
def test_a_probe_judges_the_form_of_an_answer(name: Any, choice: Choice, logprob: float | None, is_well: bool):
    assert (checks.amiss(name, Answer([choice]), logprob) == "") == is_well


@pytest.mark.parametrize(("listed", "state"), [(0, "skipped"), (8_000, "passed"), (4_000, "failed")])
def test_a_context_that_is_shorter_than_told_fails(listed: int, state: str):
    assert checks.context_found(8_000, listed).state == state
