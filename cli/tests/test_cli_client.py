"""The gateway's client: events, refusals, broken connections, and where it connects to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from collegium_cli.client import Client, ClientError, Event, connect, read_events
from collegium_cli.tasks import ask
from collegium_runtime.runtime_file import Runtime

KEY = "sk-clg-abcdefgh-" + "s" * 48


class Door(BaseHTTPRequestHandler):
    """Answers with what the test put there, and keeps what was asked."""

    status: ClassVar[int] = 200
    body: ClassVar[bytes] = b"{}"
    promised_bytes: ClassVar[int | None] = None
    asked: ClassVar[list[tuple[str, str, dict[str, str], bytes]]] = []

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.asked.append((self.command, self.path, dict(self.headers), body))
        self.send_response(self.status)
        self.send_header("content-length", str(self.promised_bytes or len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_POST = _answer  # noqa: N815 - the standard library's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        pass


@pytest.fixture
def door() -> Iterator[tuple[type[Door], str]]:
    kind = type("ThisDoor", (Door,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield kind, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_sends_key_and_json_below_the_addresss_path(door: tuple[type[Door], str]) -> None:
    kind, url = door
    kind.body = b'{"data":[1]}'
    assert Client(url + "/behind/", KEY).call("POST", "/v1/x", {"a": 1}) == {"data": [1]}
    ((method, path, headers, body),) = kind.asked
    assert (method, path, headers["Authorization"]) == ("POST", "/behind/v1/x", f"Bearer {KEY}")
    assert json.loads(body) == {"a": 1}


def test_a_refusal_becomes_one_line_with_its_code(door: tuple[type[Door], str]) -> None:
    kind, url = door
    kind.status = 400
    kind.body = b'{"error":{"message":"no model x","type":"t","param":"model","code":"unknown_model"}}'
    with pytest.raises(ClientError, match=r"400 unknown_model \(model\): no model x") as refused:
        Client(url, KEY).call("GET", "/v1/x")
    assert refused.value.code == "unknown_model"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"error":"text"}', b'{"error":{}}'])
def test_a_refusal_without_an_error_body_is_told_by_its_status(door: tuple[type[Door], str], body: bytes) -> None:
    kind, url = door
    kind.status, kind.body = 502, body
    with pytest.raises(ClientError, match="502"):
        Client(url, KEY).call("GET", "/v1/x")


def test_an_answer_that_is_no_json_is_a_client_error(door: tuple[type[Door], str]) -> None:
    kind, url = door
    kind.body = b"<html>"
    with pytest.raises(ClientError, match="no JSON"):
        Client(url, KEY).call("GET", "/v1/x")


def test_an_answer_that_is_cut_off_is_a_client_error(door: tuple[type[Door], str]) -> None:
    kind, url = door
    kind.body, kind.promised_bytes = b"{", 100
    with pytest.raises(ClientError, match="broke"):
        Client(url, KEY).call("GET", "/v1/x")


def test_nobody_listening_says_how_to_start_a_gateway() -> None:
    with pytest.raises(ClientError, match="collegium up"):
        Client("http://127.0.0.1:1", KEY).call("GET", "/v1/x")


@pytest.mark.parametrize("url", ["127.0.0.1:8700", "http://127.0.0.1:port", "ftp://x", "http://"])
def test_an_address_that_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ClientError, match="address"):
        Client(url, KEY)


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(ClientError) as refused:
        Client("ftp://me:hidden@x", KEY)
    assert "hidden" not in str(refused.value)


def test_events_are_read_with_names_ids_comments_and_lines() -> None:
    lines = [b": ping\n", b"\n", b"event: token\r\n", b"id: 7\r\n", b"data: a\r\n", b"data:b\r\n", b"\r\n", b"data: c"]
    assert list(read_events(lines)) == [Event("token", "a\nb", "7")]


def test_an_id_stays_until_the_next_and_a_name_does_not() -> None:
    lines = [b"event: state\n", b"id: 7\n", b"data: a\n", b"\n", b"data: b\n", b"\n"]
    assert list(read_events(lines)) == [Event("state", "a", "7"), Event("", "b", "7")]


def test_a_stream_prints_its_text_and_returns_who_answered(
    door: tuple[type[Door], str], capsys: pytest.CaptureFixture[str]
) -> None:
    kind, url = door
    kind.body = (
        b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\ndata: {"choices":[{"delta":{"content":"lo"}}]}\n\n'
        b'data: {"choices":[],"collegium":{"model":"m"}}\n\ndata: [DONE]\n\n'
    )
    assert ask.stream(Client(url, KEY), ask.question("hi")) == {"model": "m"}
    assert capsys.readouterr().out == "Hello\n"


def test_a_stream_that_tells_of_an_error_fails(door: tuple[type[Door], str]) -> None:
    kind, url = door
    kind.body = b'data: {"error":{"code":"upstream_failed","message":"gone"}}\n\ndata: [DONE]\n\n'
    with pytest.raises(ClientError, match="upstream_failed: gone"):
        ask.stream(Client(url, KEY), ask.question("hi"))


def test_a_stream_that_breaks_before_its_end_fails(door: tuple[type[Door], str]) -> None:
    kind, url = door
    kind.body = b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\n'
    with pytest.raises(ClientError, match="before its end"):
        ask.stream(Client(url, KEY), ask.question("hi"))


def test_the_environment_wins_over_the_running_platform(
    door: tuple[type[Door], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, url = door
    monkeypatch.setenv("COLLEGIUM_URL", url)
    monkeypatch.setenv("COLLEGIUM_API_KEY", "from-the-environment")
    connect(Runtime(http="http://127.0.0.1:1", admin_key_file="/nowhere")).call("GET", "/v1/x")
    assert kind.asked[0][2]["Authorization"] == "Bearer from-the-environment"


def test_the_running_platforms_admin_key_is_used(
    door: tuple[type[Door], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kind, url = door
    monkeypatch.delenv("COLLEGIUM_URL", raising=False)
    monkeypatch.delenv("COLLEGIUM_API_KEY", raising=False)
    (tmp_path / "admin.key").write_text(KEY + "\n")
    connect(Runtime(http=url, admin_key_file=str(tmp_path / "admin.key"))).call("GET", "/v1/x")
    assert kind.asked[0][2]["Authorization"] == f"Bearer {KEY}"


def test_without_any_address_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLLEGIUM_URL", raising=False)
    with pytest.raises(ClientError, match="COLLEGIUM_URL"):
        connect(Runtime())
