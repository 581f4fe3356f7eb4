"""Small pieces of the door: bodies within their bound, headers, cursors, queries."""

import pytest
from collegium_contracts.errors import ERRORS
from collegium_contracts.ids import task_id
from collegium_gateway.errors import ApiError
from collegium_gateway.http.asgi import error_headers, read_body, request_id, traceparent, with_ids
from collegium_gateway.tasks.door import _last_event_of, _limit_of, _since_of, _state_of, cursor, cursor_of
from collegium_telemetry.traceparent import parse
from hypothesis import given
from hypothesis import strategies as st


def scope(**headers: str) -> dict:
    return {"headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]}


class Client:
    """Sends a body in parts, and knows how many were asked for."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = list(parts)
        self.asked = 0

    async def receive(self) -> dict:
        part = self._parts[self.asked]
        self.asked += 1
        return {"type": "http.request", "body": part, "more_body": self.asked < len(self._parts)}


async def read(client: Client, limit: int, **headers: str) -> bytes:
    return await read_body(scope(**headers), client.receive, limit)


@pytest.mark.parametrize("parts", [(b"",), (b"12345",), (b"12", b"345"), (b"", b"12345", b""), (b"1", b"2", b"3")])
async def test_a_body_within_the_bound_is_read_whole(parts):
    assert await read(Client(*parts), 5) == b"".join(parts)
    assert await read(Client(*parts), 5, content_length="5") == b"".join(parts)


async def test_a_declared_length_over_the_bound_is_refused_unread():
    client = Client(b"123456")
    with pytest.raises(ApiError) as raised:
        await read(client, 5, content_length="6")
    assert (raised.value.code, raised.value.kind.http_status, client.asked) == ("body_too_large", 413, 0)


@pytest.mark.parametrize(
    ("parts", "read_parts"),
    [((b"123456",), 1), ((b"123", b"456", b"789"), 2), ((b"1",) * 10, 6), ((b"123456", b""), 2)],
)
async def test_an_undeclared_body_is_refused_as_soon_as_it_is_over(parts, read_parts):
    client = Client(*parts)
    with pytest.raises(ApiError) as raised:
        await read(client, 5)
    assert raised.value.code == "body_too_large"
    assert client.asked <= read_parts


async def test_a_lie_about_the_length_does_not_help():
    with pytest.raises(ApiError):
        await read(Client(b"123", b"456"), 5, content_length="1")


def test_the_clients_request_id_is_kept_where_it_is_printable_and_short():
    assert request_id(scope(x_request_id="abc-123")) == "abc-123"
    assert request_id(scope(x_request_id="x" * 128)) == "x" * 128
    for bad in ("x" * 129, "a\tb", "é", ""):
        made = request_id(scope(x_request_id=bad))
        assert len(made) == 32
        assert made != bad
    assert request_id(scope()) != request_id(scope())


async def test_every_response_gets_a_request_id_once():
    sent: list[dict] = []

    async def send(message) -> None:
        sent.append(dict(message))

    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    sending = with_ids(scope(x_request_id="given", traceparent=trace), send)
    await sending({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await sending({"type": "http.response.body", "body": b"x"})
    own = [(b"x-request-id", b"own"), (b"traceparent", b"own")]
    await sending({"type": "http.response.start", "status": 200, "headers": own})
    assert sent[0]["headers"] == [(b"a", b"b"), (b"x-request-id", b"given"), (b"traceparent", trace.encode())]
    assert sent[1] == {"type": "http.response.body", "body": b"x"}
    assert sent[2]["headers"] == own


@pytest.mark.parametrize("given", [{}, {"traceparent": "00-no"}, {"traceparent": f"00-{'0' * 32}-{'b' * 16}-01"}])
def test_a_request_without_a_trace_gets_one_of_its_own(given: dict[str, str]):
    made = parse(traceparent(scope(**given)))
    assert made is not None
    assert (made[2], made == parse(traceparent(scope(**given)))) == (False, False)


def test_whoever_is_asked_to_wait_is_told_how_long():
    for code, kind in ERRORS.items():
        headers = dict(error_headers(ApiError(code, "text")))
        assert (b"retry-after" in headers) is (kind.http_status in (429, 503)), code
    assert dict(error_headers(ApiError("upstream_rate_limited", "", retry_after_seconds=2.2)))[b"retry-after"] == b"3"
    assert dict(error_headers(ApiError("not_ready", "", retry_after_seconds=0)))[b"retry-after"] == b"1"
    assert dict(error_headers(ApiError("upstream_cut", "", task_id="tsk_1")))[b"x-collegium-task-id"] == b"tsk_1"


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_a_cursor_comes_back_as_it_was(created_at_ms, entropy):
    position = (created_at_ms, task_id(created_at_ms, entropy))
    text = cursor(position)
    assert text.isalnum() or set(text) <= set("-_") | {c for c in text if c.isalnum()}
    assert cursor_of(text) == position


def refused(read_query, text: str) -> str | None:
    with pytest.raises(ApiError) as raised:
        read_query(text)
    assert raised.value.code == "invalid_value"
    return raised.value.param


@given(st.text(min_size=1, max_size=40))
def test_no_query_is_a_defect(text):
    for read_query in (cursor_of, _limit_of, _since_of, _last_event_of, _state_of):
        try:
            read_query(text)
        except ApiError as error:
            assert error.code == "invalid_value"  # noqa: PT017 - accepted texts are fine too


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "é",
        "aGVsbG8",
        cursor((1, "x")),
        cursor((1, "\0")),
        cursor((10**30, "tsk_" + "0" * 26)),
        cursor((-1, "")),
    ],
)
def test_a_cursor_that_no_list_returned_is_refused(text):
    assert refused(cursor_of, text) == "cursor"


@pytest.mark.parametrize("text", ["0", "201", "-1", "ten", "²", "1.5", "9" * 5_000])
def test_a_limit_is_between_one_and_two_hundred(text):
    assert refused(_limit_of, text) == "limit"
    assert [_limit_of(one) for one in (None, "", "1", "200")] == [50, 50, 1, 200]


@pytest.mark.parametrize("text", ["²", "-1", "x", "9" * 30])
def test_an_event_id_is_a_number_that_an_event_carried(text):
    assert refused(_last_event_of, text) == "Last-Event-ID"
    assert [_last_event_of(one) for one in (None, "", "0", "17")] == [0, 0, 0, 17]


def test_since_is_a_time_and_utc_where_it_does_not_say():
    assert _since_of("2026-01-01T00:00:00Z") == 1_767_225_600_000
    assert _since_of("2026-01-01T01:00:00+01:00") == 1_767_225_600_000
    assert _since_of("2026-01-01T00:00:00") == 1_767_225_600_000
    assert _since_of("2026-01-01") == 1_767_225_600_000
    assert _since_of("0001-01-01") < 0
    assert _since_of(None) == 0
    assert refused(_since_of, "yesterday") == "since"


def test_a_state_is_one_of_the_contracts():
    assert (_state_of(None), _state_of(""), _state_of("working")) == (None, None, "working")
    assert refused(_state_of, "done") == "state"
