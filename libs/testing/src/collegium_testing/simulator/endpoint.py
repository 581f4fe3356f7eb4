"""The simulator's routes: OpenAI's three, and the control API.

Here: reading a request, picking its behaviour, counting it, and starting its answer. Not here: bytes of answers
(completion.py), waits (performance.py), listening (server.py).
The one rule: a call is counted as started only when it was understood and allowed.
"""

import base64
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import msgspec

from collegium_testing.http1 import Http1Connection, Request, reply_bytes
from collegium_testing.simulator import completion
from collegium_testing.simulator.answers import count_tokens, embed
from collegium_testing.simulator.performance import Ending, Performance, Step
from collegium_testing.simulator.prompt_cache import PromptCache
from collegium_testing.simulator.script import Behaviour, Recording, Rule, Script, ScriptError
from collegium_testing.simulator.tally import LoggedCall, Tally
from collegium_testing.simulator.wire import ChatRequest, EmbeddingRequest, error_body

_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n"
)
_MAX_CHOICES = 128
_MAX_DIMENSIONS = 8192
_DEFAULT_DIMENSIONS = 384

_read_chat = msgspec.json.Decoder(ChatRequest).decode
_read_embeddings = msgspec.json.Decoder(EmbeddingRequest).decode
_encode = msgspec.json.Encoder().encode


class ControlScript(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /control/script: the rules in place of all earlier ones, and recordings to add."""

    rules: list[Rule] = []
    recordings: list[Recording] = []


class RefusedError(Exception):
    """A request the simulator itself refuses, before it counts as a call."""

    def __init__(self, status: int, message: str, code: str | None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(message, "invalid_request_error", code, param)


class Endpoint:
    """Answers the requests of all connections."""

    def __init__(
        self,
        script: Script,
        tally: Tally,
        api_key: str | None,
        models: tuple[str, ...],
        prompt_cache: PromptCache | None = None,
    ) -> None:
        self._prompt_cache = prompt_cache
        self.script = script
        self.tally = tally
        self._authorization = None if api_key is None else f"Bearer {api_key}".encode()
        self._models = models
        self.connections: set[Http1Connection] = set()
        self._routes: dict[str, tuple[str, Callable[[Http1Connection, Request], None]]] = {
            "/v1/chat/completions": ("POST", self._chat),
            "/v1/embeddings": ("POST", self._embeddings),
            "/v1/models": ("GET", self._list_models),
            "/control/script": ("POST", self._control_script),
            "/control/counts": ("GET", self._control_counts),
            "/control/reset": ("POST", self._control_reset),
            "/health": ("GET", lambda connection, _: connection.reply(200, b'{"status":"ok"}')),
        }

    def handle(self, connection: Http1Connection, request: Request) -> None:
        """Answers one request, now or later."""
        try:
            method, route = self._routes.get(request.path, ("", None))
            if route is None:
                raise RefusedError(404, f"no route {request.path}", "not_found")
            if request.method != method:
                raise RefusedError(405, f"{request.path} takes {method}", "method_not_allowed")
            if request.path.startswith("/v1/"):
                self._authorize(request)
            route(connection, request)
        except RefusedError as refusal:
            connection.reply(refusal.status, refusal.body)
        except (msgspec.DecodeError, ScriptError) as problem:
            connection.reply(400, error_body(str(problem), "invalid_request_error", None))

    # OpenAI's routes

    def _chat(self, connection: Http1Connection, request: Request) -> None:
        chat = _read_chat(request.body)
        self._check(chat)
        prompt = completion.last_user_text(chat.messages)
        behaviour = self._behaviour(chat.model, prompt, completion.instructions(chat.messages))
        counted = completion.prompt_tokens(chat.messages)
        call = self._started("chat", chat.model, request, counted)
        call.messages, call.stream = chat.messages, bool(chat.stream)
        self.tally.start(call)
        if self._faulty(connection, behaviour, call):
            return
        if behaviour.numbered:
            behaviour = msgspec.structs.replace(behaviour, answer=f"{behaviour.answer or 'answer'} {call.number}")
        if self._prompt_cache is not None and behaviour.cached_tokens is None:
            cached = self._prompt_cache.read(chat.model, chat.messages)
            behaviour = msgspec.structs.replace(behaviour, cached_tokens=cached)
        replay = self.script.replay(chat.model, prompt)
        answer = completion.compose(chat, behaviour, replay, prompt, counted)
        call.prompt_tokens = answer.usage.prompt_tokens
        call_id, created = f"chatcmpl-sim-{call.number}", int(call.started_at)
        if chat.stream:
            include_usage = chat.stream_options is not None and chat.stream_options.include_usage
            steps = completion.stream_steps(
                call_id, created, chat.model, answer, behaviour, include_usage=include_usage
            )
            closing = b"" if connection.keep_alive else b"connection: close\r\n"
            head = _STREAM_HEAD + closing + b"\r\n"
        else:
            body = completion.plain_body(call_id, created, chat.model, answer, behaviour)
            if not behaviour.delay_ms and behaviour.cut_stream_after is None:
                self._complete(call, answer)
                connection.reply(200, body)
                return
            whole = reply_bytes(200, body, keep_alive=connection.keep_alive)
            steps = completion.plain_steps(whole, behaviour, len(whole) - len(body))
            head = b""
        ending: Ending = "whole" if behaviour.cut_stream_after is None else "cut"
        self._perform(Performance(connection, head, steps, ending), behaviour, call, answer)

    def _embeddings(self, connection: Http1Connection, request: Request) -> None:
        wanted = _read_embeddings(request.body)
        dimensions = wanted.dimensions or _DEFAULT_DIMENSIONS
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise RefusedError(400, f"dimensions takes 1 to {_MAX_DIMENSIONS}", "invalid_value", "dimensions")
        texts = _texts(wanted.input)
        behaviour = self._behaviour(wanted.model, "\n".join(texts))
        call = self._started("embeddings", wanted.model, request, sum(count_tokens(text) for text in texts))
        call.input = wanted.input
        self.tally.start(call)
        if self._faulty(connection, behaviour, call):
            return
        as_base64 = wanted.encoding_format == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _vector(text, dimensions, as_base64=as_base64)}
            for index, text in enumerate(texts)
        ]
        reply: dict[str, Any] = {"object": "list", "model": wanted.model, "data": data}
        if not behaviour.no_usage:
            reply["usage"] = {"prompt_tokens": call.prompt_tokens, "total_tokens": call.prompt_tokens}
        whole = reply_bytes(200, _encode(reply), keep_alive=connection.keep_alive)
        steps = completion.plain_steps(whole, behaviour, whole.index(b"\r\n\r\n") + 4)
        ending: Ending = "whole" if behaviour.cut_stream_after is None else "cut"
        self._perform(Performance(connection, b"", steps, ending), behaviour, call)

    def _list_models(self, connection: Http1Connection, _: Request) -> None:
        names = self._models or tuple(sorted(self.script.models)) or ("simulator",)
        data = [{"id": name, "object": "model", "created": 1_767_225_600, "owned_by": "simulator"} for name in names]
        connection.reply(200, _encode({"object": "list", "data": data}))

    # the control API

    def _control_script(self, connection: Http1Connection, request: Request) -> None:
        read: ControlScript | list[Rule] = msgspec.json.decode(request.body, type=ControlScript | list[Rule])
        script = ControlScript(rules=read) if isinstance(read, list) else read
        self.script.replace_rules(script.rules)
        self.script.record(script.recordings)
        connection.reply(200, _encode({"rules": len(script.rules), "recordings": len(script.recordings)}))

    def _control_counts(self, connection: Http1Connection, request: Request) -> None:
        wanted = parse_qs(request.query).get("requests", [""])[0]
        picture = self.tally.picture(len(self.connections), int(wanted) if wanted.isdigit() else None)
        connection.reply(200, _encode(picture))

    def _control_reset(self, connection: Http1Connection, _: Request) -> None:
        self.tally.reset()
        self.script.replace_rules([])
        connection.reply(200, b'{"reset":true}')

    # what the routes share

    def _authorize(self, request: Request) -> None:
        if self._authorization is not None and request.headers.get(b"authorization") != self._authorization:
            raise RefusedError(401, "Incorrect API key provided.", "invalid_api_key")

    def _check(self, chat: ChatRequest) -> None:
        if not chat.messages:
            raise RefusedError(400, "messages is empty", "empty_array", "messages")
        if self._models and chat.model not in self._models:
            raise RefusedError(404, f"The model {chat.model!r} does not exist.", "model_not_found", "model")
        if not 1 <= (1 if chat.n is None else chat.n) <= _MAX_CHOICES:
            raise RefusedError(400, f"n takes 1 to {_MAX_CHOICES}", "invalid_value", "n")
        for name in ("max_tokens", "max_completion_tokens"):
            limit = getattr(chat, name)
            if limit is not None and limit < 1:
                raise RefusedError(400, f"{name} takes 1 or more", "invalid_value", name)

    def _behaviour(self, model: str, prompt: str, instructions: str = "") -> Behaviour:
        """Returns what happens to a call, with the simulator's own delays where the script names none."""
        chosen, default = self.script.choose(model, prompt, instructions), self.script.default
        if chosen is default:
            return chosen
        return msgspec.structs.replace(
            chosen,
            delay_ms=default.delay_ms if chosen.delay_ms is None else chosen.delay_ms,
            token_delay_ms=default.token_delay_ms if chosen.token_delay_ms is None else chosen.token_delay_ms,
        )

    @staticmethod
    def _started(kind: Any, model: str, request: Request, prompt_tokens: int) -> LoggedCall:
        headers = request.headers
        return LoggedCall(
            number=0,
            kind=kind,
            model=sys.intern(model),
            messages=[],
            input=None,
            stream=False,
            request_id=_header(headers, b"x-request-id"),
            attempt=_header(headers, b"x-collegium-attempt"),
            traceparent=_header(headers, b"traceparent"),
            prompt_tokens=prompt_tokens,
            started_at=time.time(),
            size_bytes=len(request.body),
        )

    def _faulty(self, connection: Http1Connection, behaviour: Behaviour, call: LoggedCall) -> bool:
        """Starts the answer of a call that does not get a good one, and says whether it did."""
        status = 200
        steps: list[Step] = []
        if behaviour.status is not None:
            status = behaviour.status
            headers, body = completion.error_reply(behaviour, status)
            reply = reply_bytes(status, body, headers=headers, keep_alive=connection.keep_alive)
            steps.append(Step((behaviour.delay_ms or 0) / 1000, reply))
        elif behaviour.garbage is not None:
            content_type, body = completion.garbage_reply(behaviour.garbage)
            reply = reply_bytes(status, body, content_type, keep_alive=connection.keep_alive)
            steps.append(Step((behaviour.delay_ms or 0) / 1000, reply))
        elif not behaviour.hang:
            return False
        ending: Ending = "hang" if behaviour.hang else "whole"
        answer = Performance(connection, b"", steps, ending)
        answer.play(lambda: self.tally.fail(call, status=status), lambda: self.tally.abort(call))
        return True

    def _perform(
        self, performance: Performance, behaviour: Behaviour, call: LoggedCall, answer: completion.Answer | None = None
    ) -> None:
        """Plays a good answer, counted when it has ended."""

        def ended() -> None:
            if behaviour.cut_stream_after is not None:
                call.completion_tokens = performance.sent_tokens
                self.tally.fail(call, generated=True)
            elif answer is None:
                self.tally.complete(call, 0, 0, 0.0)
            else:
                self._complete(call, answer)

        def aborted() -> None:
            call.completion_tokens = performance.sent_tokens
            self.tally.abort(call)

        performance.play(ended, aborted)

    def _complete(self, call: LoggedCall, answer: completion.Answer) -> None:
        self.tally.complete(call, answer.usage.completion_tokens, answer.cached_tokens, answer.cost_usd)


def _header(headers: dict[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


def _texts(given: str | list[str | int | list[int]]) -> list[str]:
    if isinstance(given, str):
        return [given]
    if given and all(isinstance(item, int) for item in given):
        return [" ".join(map(str, given))]
    return [
        item if isinstance(item, str) else " ".join(map(str, item if isinstance(item, list) else [item]))
        for item in given
    ]


def _vector(text: str, dimensions: int, *, as_base64: bool) -> str | list[float]:
    vector = embed(text, dimensions)
    return base64.b64encode(vector.tobytes()).decode() if as_base64 else list(vector)
