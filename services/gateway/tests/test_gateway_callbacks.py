"""Where a callback may go: URLs and addresses that pass, and the many spellings of those that do not."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from collegium_contracts.addresses import is_refused
from collegium_gateway.errors import ApiError
from collegium_gateway.webhooks.callbacks import MAX_URL_CHARS, check_url, receiver_of
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

PRIVATE_V4 = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.0.9", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
]  # fmt: skip
PRIVATE_V6 = [
    "::", "::1", "::7f00:1", "::ffff:0:7f00:1", "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "fec0::1",
    "ff02::1", "100::1", "2001::1", "2001:db8::1", "3fff::1", "5f00::1", "64:ff9b:1::7f00:1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "2001:4860:4860::8888"]


@pytest.mark.parametrize("address", PRIVATE_V4 + PRIVATE_V6)
def test_an_address_that_is_not_public_is_refused(address):
    assert is_refused(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_passes(address):
    assert not is_refused(address)


@pytest.mark.parametrize("inner", [*PRIVATE_V4, "8.8.8.8"])
def test_an_ipv6_address_is_judged_by_the_ipv4_address_inside(inner):
    number = int(IPv4Address(inner))
    outer = {
        "mapped": IPv6Address((0xFFFF << 32) | number),
        "6to4": IPv6Address((0x2002 << 112) | (number << 80) | 1),
        "nat64": IPv6Address((0x64FF9B << 96) | number),
    }
    assert {name: is_refused(str(address)) for name, address in outer.items()} == dict.fromkeys(
        outer, is_refused(inner)
    )


@given(st.integers(0, 2**128 - 1))
def test_nothing_outside_global_unicast_passes_but_what_leads_to_ipv4(number):
    address = IPv6Address(number)
    if not is_refused(str(address)):
        assert number >> 125 == 1 or address.ipv4_mapped or number >> 32 == 0x64FF9B << 64


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/hook?token=a%2Bb",
        "http://example.org:8080",
        "https://xn--bcher-kva.example/",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]:444/x",
        "https://localhost.example.org/",
    ],
)
def test_a_callback_to_a_public_place_is_taken(url):
    assert check_url(url, allow_private=False) == URL(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org/hook",
        "//example.org/hook",
        "ftp://example.org/",
        "file:///etc/passwd",
        "http://",
        "http:///hook",
        "http://:80/",
        "http://example.org:0/",
        "http://example.org:65536/",
        "http://user@example.org/",
        "http://user:secret@example.org/",
        "http://:secret@example.org/",
        "http://example.org/#part",
        "http://exa mple.org/",
        "http://example.org/\r\nHost: x",
        "http://[fe80::1",
        "http://127.1/",
        "http://127.0.0.1./",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://1.2.3.256/",
        "http://[::1%25eth0]x/",
        "https://example.org/" + "x" * MAX_URL_CHARS,
    ],
)
@pytest.mark.parametrize("allow_private", [False, True])
def test_what_is_no_callback_is_refused_whatever_is_allowed(url, allow_private):
    with pytest.raises(ApiError) as refused:
        check_url(url, allow_private=allow_private)
    assert (refused.value.code, refused.value.param) == ("invalid_value", "callback_url")
    assert "secret" not in refused.value.message


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "①②⑦.0.0.1", "10.1.2.3", "169.254.169.254",
        "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[2002:7f00:1::]", "[64:ff9b::a00:1]", "[fd00::1]",
        "[fe80::1%25eth0]",
    ],
)  # fmt: skip
def test_a_private_place_is_refused_unless_it_is_allowed(host):
    url = f"http://{host}:8080/hook"
    with pytest.raises(ApiError) as refused:
        check_url(url, allow_private=False)
    assert (refused.value.code, refused.value.kind.http_status) == ("callback_address_refused", 400)
    assert check_url(url, allow_private=True) == URL(url)


@given(st.text(max_size=40))
def test_any_text_is_taken_or_refused(text):
    for url in (text, f"http://{text}", f"https://{text}/x", f"http://[{text}]/"):
        try:
            check_url(url, allow_private=False)
        except ApiError:
            continue


def test_a_receiver_is_a_tenants_host_and_port_and_tells_neither():
    one = receiver_of("acme", URL("https://hooks.example.org/a?x=1"))
    assert one == receiver_of("acme", URL("https://HOOKS.example.org:443/b"))
    others = [("globex", "https://hooks.example.org/"), ("acme", "http://hooks.example.org/")]
    assert len({one, *(receiver_of(tenant, URL(url)) for tenant, url in others)}) == 3
    assert "hooks" not in one
