"""Talking to a running gateway: JSON over HTTP, and server-sent events, with the standard library alone.

Where the gateway is and which key to use: ``COLLEGIUM_URL`` and ``COLLEGIUM_API_KEY``, else the running platform's
``runtime.json``. One rule: an error body of the contract becomes one line that says what to do.
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
from collegium_runtime.runtime_file import Runtime

TIMEOUT_SECONDS = 330.0


class ClientError(Exception):
    """The gateway refused, or could not be reached; the text says why."""


class Event(NamedTuple):
    """One server-sent event."""

    name: str
    data: str
    event_id: str


class Client:
    """A client of one gateway."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or (443 if self._secure else 80)
        self._key = key

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """Makes one request and returns the decoded body; raises ClientError."""
        connection, response = self._send(method, path, body, headers)
        try:
            content = response.read()
        finally:
            connection.close()
        if response.status >= 400:
            raise ClientError(_said(response.status, content))
        return msgspec.json.decode(content)

    def events(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Iterator[Event]:
        """Makes one request and yields its server-sent events."""
        connection, response = self._send(method, path, body, headers)
        try:
            if response.status >= 400:
                raise ClientError(_said(response.status, response.read()))
            name, data, event_id = "", "", ""
            for raw in response:
                line = raw.decode().rstrip("\r\n")
                field, _, value = line.partition(": ")
                if line == "":
                    if data:
                        yield Event(name, data, event_id)
                    name, data = "", ""
                elif field == "event":
                    name = value
                elif field == "id":
                    event_id = value
                elif field == "data":
                    data += value
        finally:
            connection.close()

    def _send(
        self, method: str, path: str, body: Any, headers: dict[str, str] | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=TIMEOUT_SECONDS)
        content = msgspec.json.encode(body) if body is not None else None
        sent = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json", **(headers or {})}
        try:
            connection.request(method, path, content, sent)
            return connection, connection.getresponse()
        except OSError as error:
            connection.close()
            where = f"{self._host}:{self._port}"
            raise ClientError(f"no gateway at {where} ({error}); start one with `collegium up`") from error


def connect(runtime: Runtime) -> Client:
    """Returns a client of the gateway that environment or runtime name; raises ClientError where neither does."""
    url = os.environ.get("COLLEGIUM_URL") or runtime.http
    if not url:
        raise ClientError("no gateway known: set COLLEGIUM_URL, or start `collegium up` on this data folder")
    key = os.environ.get("COLLEGIUM_API_KEY", "")
    if not key and runtime.admin_key_file:
        try:
            key = Path(runtime.admin_key_file).read_text().strip()
        except OSError as error:
            raise ClientError(f"no key: set COLLEGIUM_API_KEY ({error})") from error
    return Client(url, key)


def _said(status: int, content: bytes) -> str:
    try:
        error = msgspec.json.decode(content)["error"]
        param = f" ({error['param']})" if error.get("param") else ""
        return f"{status} {error['code']}{param}: {error['message']}"
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"{status}: an answer without an error body"
