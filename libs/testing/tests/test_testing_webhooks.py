"""The webhook receiver: scripted answers, signatures, and the program that users run."""

import asyncio
import signal
import sys
import time

import msgspec
import pytest
from aiohttp import ClientSession
from collegium_testing import WebhookReceiver
from collegium_testing.webhooks import Reply, verify

# The example that the standard's reference libraries are tested with.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
NOW = 1614265330
RIGHT = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
HEADERS = {"webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": str(NOW), "webhook-signature": RIGHT}


@pytest.mark.parametrize("signature", [RIGHT, f"v1,AAAA {RIGHT}", f"{RIGHT} v2,xyz"])
def test_one_right_signature_is_enough(signature):
    assert verify(SECRET, {**HEADERS, "webhook-signature": signature}, BODY, now_seconds=NOW)


@pytest.mark.parametrize(
    ("headers", "body", "now"),
    [
        ({"webhook-signature": "v1,AAAA"}, BODY, NOW),
        ({"webhook-signature": ""}, BODY, NOW),
        ({"webhook-signature": RIGHT.replace("v1", "v2")}, BODY, NOW),
        ({"webhook-signature": "v1,ü"}, BODY, NOW),
        ({"webhook-id": "msg_other"}, BODY, NOW),
        ({"webhook-id": ""}, BODY, NOW),
        ({"webhook-timestamp": str(NOW + 1)}, BODY, NOW),
        ({"webhook-timestamp": "soon"}, BODY, NOW),
        ({}, BODY + b" ", NOW),
        ({}, BODY, NOW + 301),
        ({}, BODY, NOW - 301),
    ],
)
def test_what_is_not_what_was_signed_is_refused(headers, body, now):
    assert not verify(SECRET, HEADERS | headers, body, now_seconds=now)


def test_another_secret_or_none_is_refused():
    for secret in ("whsec_AAAA", "", "whsec_not base64"):
        assert not verify(secret, HEADERS, BODY, now_seconds=NOW)


async def test_answers_come_in_the_order_of_the_script_and_then_200():
    async with WebhookReceiver() as receiver, ClientSession() as http:
        receiver.script(500, Reply(429, headers=b"retry-after: 7\r\n"), Reply(204, delay_ms=30))
        seen = []
        for number in range(4):
            began = time.monotonic()
            async with http.post(f"{receiver.url}?n={number}", data=b"{}") as response:
                seen.append((response.status, response.headers.get("retry-after"), time.monotonic() - began >= 0.03))
        assert [one[:2] for one in seen] == [(500, None), (429, "7"), (204, None), (200, None)]
        assert seen[2][2]
        assert [(got.path, got.status) for got in receiver.received] == [
            ("/hook?n=0", 500),
            ("/hook?n=1", 429),
            ("/hook?n=2", 204),
            ("/hook?n=3", 200),
        ]


async def test_a_request_without_a_signature_is_not_verified():
    async with WebhookReceiver(secret=SECRET) as receiver, ClientSession() as http:
        await http.post(receiver.url, data=b'{"type":"x"}')
        (got,) = receiver.received
    assert (got.verified, got.event, got.id) == (False, {"type": "x"}, "")
    assert receiver.of("") == [got]


async def test_the_program_tells_what_it_gets_and_ends_on_a_signal():
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-m", "collegium_testing.webhooks", "--secret", SECRET, stdout=-1
    )
    assert program.stdout is not None
    ready = msgspec.json.decode(await program.stdout.readline())
    async with ClientSession() as http:
        await http.post(ready["url"], data=b"no json", headers={"webhook-id": "msg_1"})
    assert msgspec.json.decode(await program.stdout.readline()) == {
        "id": "msg_1",
        "verified": False,
        "path": "/hook",
        "event": None,
    }
    program.send_signal(signal.SIGTERM)
    await program.communicate()
    assert program.returncode == 0
