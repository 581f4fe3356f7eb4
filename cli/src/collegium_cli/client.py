"""Talking to a running gateway: JSON over HTTP, and server-sent events, with the standard library alone.

Where the gateway is and which key to use: ``COLLEGIUM_URL`` and ``COLLEGIUM_API_KEY``, else the running platform's
``runtime.json``. One rule: an error body of the contract becomes one line that says what to do.
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
from collegium_runtime.runtime_file import Runtime
from collegium_settings.secret import mask_text

if TYPE_CHECKING:
    from collegium_cli.knowledge.forms import Form

TIMEOUT_SECONDS = 330.0
DOWNLOAD_BYTES = 65_536
_BROKEN = (OSError, http.client.HTTPException)


class ClientError(Exception):
    """The gateway refused, or could not be reached; the text says why, ``code`` is the refusal's (empty: none).

    ``told`` is the error object of the answer, none where there was none.
    """

    def __init__(self, message: str, code: str = "", told: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.told = told


class Event(NamedTuple):
    """One server-sent event."""

    name: str
    data: str
    event_id: str


class Client:
    """A client of one gateway; a path in its URL stands before every path that is asked for."""

    def __init__(self, url: str, key: str) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ClientError(f"the gateway's address {mask_text(url)!r} cannot be used: {error}") from None
        if parts.scheme not in ("http", "https") or host is None:
            raise ClientError(f"the gateway's address {mask_text(url)!r} is no URL like http://127.0.0.1:8700")
        self._secure = parts.scheme == "https"
        self._host = host
        self._port = port or (443 if self._secure else 80)
        self._prefix = parts.path.rstrip("/")
        self._key = key

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """Makes one request and returns the decoded body; raises ClientError."""
        connection, response = self._send(method, path, body, headers)
        return self._decoded(connection, response)

    def _decoded(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> Any:
        try:
            content = response.read()
        except _BROKEN as error:
            raise self._broken(error) from error
        finally:
            connection.close()
        if response.status >= 400:
            raise _refusal(response.status, content)
        try:
            return msgspec.json.decode(content)
        except msgspec.DecodeError as error:
            raise ClientError(f"{self._host}:{self._port} answered {response.status} with no JSON: {error}") from error

    def upload(self, method: str, path: str, form: Form, headers: dict[str, str] | None = None) -> Any:
        """Sends a form piece by piece and returns the decoded body; raises ClientError."""
        about = {"Content-Type": form.content_type, "Content-Length": str(form.size), **(headers or {})}
        connection, response = self._send(method, path, form.pieces(), about)
        return self._decoded(connection, response)

    def lines(self, method: str, path: str) -> Iterator[str]:
        """Makes one request and yields its body line by line, as it comes."""
        connection, response = self._send(method, path, None, None)
        try:
            if response.status >= 400:
                raise _refusal(response.status, response.read())
            for line in response:
                yield line.decode()
        except _BROKEN as error:
            raise self._broken(error) from error
        finally:
            connection.close()

    def events(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Iterator[Event]:
        """Makes one request and yields its server-sent events."""
        connection, response = self._send(method, path, body, headers)
        try:
            if response.status >= 400:
                raise _refusal(response.status, response.read())
            yield from read_events(response)
        except _BROKEN as error:
            raise self._broken(error) from error
        finally:
            connection.close()

    def download(self, path: str) -> Iterator[bytes]:
        """Makes a GET and yields the body as it comes; raises ClientError, also where it ends too early."""
        connection, response = self._send("GET", path, None, None)
        try:
            if response.status >= 400:
                raise _refusal(response.status, response.read())
            while content := response.read(DOWNLOAD_BYTES):
                yield content
            # Reading by pieces, a body that ends before its length is not told of otherwise.
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
        except _BROKEN as error:
            raise self._broken(error) from error
        finally:
            connection.close()

    def _send(
        self, method: str, path: str, body: Any, headers: dict[str, str] | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=TIMEOUT_SECONDS)
        is_sent_as_it_is = body is None or isinstance(body, Iterator)
        content: Any = body if is_sent_as_it_is else msgspec.json.encode(body)
        sent = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json", **(headers or {})}
        try:
            connection.request(method, self._prefix + path, content, sent)
            return connection, connection.getresponse()
        except ConnectionRefusedError as error:
            connection.close()
            where = f"{self._host}:{self._port}"
            raise ClientError(f"no gateway at {where} ({error}); start one with `collegium up`") from error
        except _BROKEN as error:
            connection.close()
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> ClientError:
        return ClientError(f"the connection to {self._host}:{self._port} broke: {error or type(error).__name__}")


def read_events(lines: Iterable[bytes]) -> Iterator[Event]:
    """Yields the events of a server-sent stream's lines; one that is not ended by an empty line was cut and is none."""
    name, event_id = "", ""
    data: list[str] = []
    for raw in lines:
        line = raw.decode(errors="replace").rstrip("\r\n")
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data:
                yield Event(name, "\n".join(data), event_id)
            name, data = "", []
        elif field == "event":
            name = value
        elif field == "id":
            event_id = value
        elif field == "data":
            data.append(value)


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


def _refusal(status: int, content: bytes) -> ClientError:
    try:
        error = msgspec.json.decode(content)["error"]
        param = f" ({error['param']})" if error.get("param") else ""
        return ClientError(f"{status} {error['code']}{param}: {error['message']}", str(error["code"]), error)
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return ClientError(f"{status}: an answer without an error body")
