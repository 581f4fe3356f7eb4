"""The guarded client: names that lead inside, redirects, receivers that are slow, rude or endless."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from collegium_gateway.webhooks import client as webhook_client
from collegium_gateway.webhooks.client import Answer, DeliveryError, WebhookClient
from collegium_testing.webhooks import Reply, WebhookReceiver


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver() as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[WebhookClient]:
    client = WebhookClient(allow_private=True, timeout_seconds=1)
    await client.open()
    yield client
    await client.close()


@pytest.fixture
async def guarded() -> AsyncIterator[WebhookClient]:
    client = WebhookClient(allow_private=False, timeout_seconds=1)
    await client.open()
    yield client
    await client.close()


async def refusal(client: WebhookClient, url: str) -> str:
    with pytest.raises(DeliveryError) as refused:
        await client.post(url, b"{}", {})
    return refused.value.code


def names(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
    """Stands in for the name server: one answer a question, the last for all that follow."""
    left = list(answers)

    def look_up(_host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        found = left.pop(0) if len(left) > 1 else left[0]
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (one, port, 0, 0))
            if ":" in one
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port))
            for one in found
        ]

    monkeypatch.setattr(webhook_client.socket, "getaddrinfo", look_up)


async def test_a_message_arrives_with_its_headers(client: WebhookClient, receiver: WebhookReceiver):
    answer = await client.post(f"{receiver.url}?a=%2B", b'{"a":1}', {"webhook-id": "msg_1"})
    (got,) = receiver.received
    assert (answer.status, got.id, got.body, got.path) == (200, "msg_1", b'{"a":1}', "/hook?a=%2B")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]", "10.0.0.1"])
async def test_an_address_that_is_not_public_is_never_connected_to(
    guarded: WebhookClient, receiver: WebhookReceiver, host: str
):
    port = receiver.url.rpartition(":")[2]
    assert await refusal(guarded, f"http://{host}:{port}") == "address_refused"
    assert not receiver.received


@pytest.mark.parametrize("host", ["127.0.0.1.", "127.1", "2130706433", "0x7f000001"])
async def test_a_spelling_that_the_door_refuses_leads_nowhere_either(
    guarded: WebhookClient, receiver: WebhookReceiver, host: str
):
    port = receiver.url.rpartition(":")[2]
    assert await refusal(guarded, f"http://{host}:{port}") in ("unreachable", "address_refused")
    assert not receiver.received


async def test_a_name_that_leads_inside_is_refused(
    guarded: WebhookClient, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
):
    port = receiver.url.rpartition(":")[2]
    names(monkeypatch, ["127.0.0.1", "fd00::1", "::ffff:127.0.0.1"])
    assert await refusal(guarded, f"http://hooks.example.org:{port}") == "address_refused"
    assert not receiver.received


async def test_a_name_that_changes_its_mind_is_refused(
    guarded: WebhookClient, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
):
    """What was checked is what is connected to: the second answer is never asked for by the connection."""
    connected: list[str] = []
    client = WebhookClient(allow_private=False, timeout_seconds=1)
    make = client._socket

    def note(info: Any) -> socket.socket:
        connected.append(info[4][0])
        make(info).close()
        raise ConnectionRefusedError

    monkeypatch.setattr(client, "_socket", note)
    await client.open()
    port = receiver.url.rpartition(":")[2]
    names(monkeypatch, ["8.8.8.8", "127.0.0.1"], ["127.0.0.1"])
    assert await refusal(client, f"http://hooks.example.org:{port}") == "unreachable"
    await client.close()
    assert connected == ["8.8.8.8"]
    assert not receiver.received


async def test_the_last_gate_makes_no_socket_for_a_private_address(guarded: WebhookClient):
    with pytest.raises(webhook_client.AddressRefusedError):
        guarded._socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80)))


async def test_the_configuration_is_followed_on_open_connections_too(client: WebhookClient, receiver: WebhookReceiver):
    assert (await client.post(receiver.url, b"{}", {})).status == 200
    await client.use(allow_private=False)
    assert await refusal(client, receiver.url) == "address_refused"
    await client.use(allow_private=True)
    assert (await client.post(receiver.url, b"{}", {})).status == 200


async def test_a_redirect_is_an_answer_and_is_not_followed(client: WebhookClient, receiver: WebhookReceiver):
    receiver.script(Reply(307, headers=b"location: http://127.0.0.1:9/\r\n"))
    assert (await client.post(receiver.url, b"{}", {})).status == 307
    assert len(receiver.received) == 1


async def test_proxies_of_the_environment_are_not_used(
    client: WebhookClient, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await client.post(receiver.url, b"{}", {})).status == 200


async def test_a_receiver_may_ask_for_time(client: WebhookClient, receiver: WebhookReceiver):
    receiver.script(Reply(429, headers=b"retry-after: 120\r\n"), Reply(503, headers=b"retry-after: soon\r\n"))
    assert await client.post(receiver.url, b"{}", {}) == Answer(429, 120)
    assert await client.post(receiver.url, b"{}", {}) == Answer(503, 0)


async def test_who_does_not_answer_is_given_up(client: WebhookClient, receiver: WebhookReceiver):
    receiver.script(Reply(200, delay_ms=60_000))
    assert await refusal(client, receiver.url) == "timeout"


async def test_who_is_not_there_is_unreachable(client: WebhookClient, receiver: WebhookReceiver):
    url = receiver.url
    await receiver.__aexit__(None, None, None)
    assert await refusal(client, url) == "unreachable"
    assert await refusal(client, "http://no-such-name.invalid/") == "unreachable"


async def serve(*parts: bytes) -> asyncio.Server:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
        while parts[-1:] == (b"",):
            writer.write(b"x" * 65536)
            try:
                await writer.drain()
            except ConnectionError:
                break
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("parts", "result"),
    [
        ((b"garbage\r\n\r\n",), "bad_answer"),
        ((b"HTTP/1.1 200 OK\r\n" + b"x-y: z\r\n" * 20_000 + b"\r\n",), "bad_answer"),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this",), 200),
        ((b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",), 200),
        ((b"HTTP/1.1 200 OK\r\n\r\n", b""), 200),
    ],
    ids=["garbage", "headers", "cut", "not-gzip", "endless"],
)
async def test_a_rude_answer_is_read_no_further_than_needed(
    client: WebhookClient, parts: tuple[bytes, ...], result: Any
):
    server = await serve(*parts)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        answered = (await client.post(url, b"{}", {})).status
    except DeliveryError as error:
        answered = error.code
    server.close()
    assert answered == result
