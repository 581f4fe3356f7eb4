"""From a behaviour and a chat request to the bytes of its answer.

Here: the text, its cut at max_tokens, usage, the plain JSON and the server-sent events. Not here: sockets, counts.
The one rule: pure functions; the id and the time come in as arguments.
"""

from typing import NamedTuple

import msgspec

from collegium_testing.simulator.answers import count_tokens, tokens, unrecorded_answer
from collegium_testing.simulator.performance import Step
from collegium_testing.simulator.script import Behaviour, Replay
from collegium_testing.simulator.wire import (
    AnsweredFunction,
    AnsweredToolCall,
    AnswerMessage,
    ChatCompletion,
    ChatRequest,
    Choice,
    Message,
    PromptTokensDetails,
    Usage,
    error_body,
)

_encode = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """What the model says: each choice's tokens and why it stopped, and what the call used."""

    choices: list[tuple[tuple[str, ...], str]]
    usage: Usage
    cost_usd: float

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens reported as cached."""
        details = self.usage.prompt_tokens_details
        return 0 if details is None else details.cached_tokens


def prompt_tokens(messages: list[Message]) -> int:
    """Returns the tokens of all messages' texts; there is no template around them."""
    return sum(count_tokens(message.text()) for message in messages)


def last_user_text(messages: list[Message]) -> str:
    """Returns the text of the last user message, or "" without one."""
    for message in reversed(messages):
        if message.role == "user":
            return message.text()
    return ""


def instructions(messages: list[Message]) -> str:
    """Returns the texts of the system messages, one a line."""
    return "\n".join(message.text() for message in messages if message.role == "system")


def compose(request: ChatRequest, behaviour: Behaviour, replay: Replay | None, prompt: str, counted: int) -> Answer:
    """Decides every choice's text, cut at max_tokens, and the usage; `counted` is the prompt's token count."""
    limit = request.max_completion_tokens or request.max_tokens
    if behaviour.ignore_max_tokens:
        limit = None
    choices: list[tuple[tuple[str, ...], str]] = []
    completion = 0
    for index in range(request.n or 1):
        if behaviour.tool_calls:
            choices.append(((), "tool_calls"))
            completion += sum(1 + count_tokens(call.arguments) for call in behaviour.tool_calls)
            continue
        said = tokens(_text(request, behaviour, replay, prompt, index))
        whole = limit is None or len(said) <= limit
        choices.append((said, "stop") if whole else (said[:limit], "length"))
        spent = len(choices[-1][0])
        if whole and replay is not None and behaviour.answer is None and replay.usage.completion_tokens is not None:
            spent = replay.usage.completion_tokens if limit is None else min(replay.usage.completion_tokens, limit)
        completion += spent
    recorded = replay.usage if replay is not None else None
    prompted = counted if recorded is None or recorded.prompt_tokens is None else recorded.prompt_tokens
    cached = behaviour.cached_tokens
    if cached is None and recorded is not None:
        cached = recorded.cached_tokens
    details = None if cached is None else PromptTokensDetails(min(cached, prompted))
    cost = None if recorded is None else recorded.cost_usd
    return Answer(choices, Usage(prompted, completion, prompted + completion, details, cost), cost or 0.0)


def plain_body(call_id: str, created: int, model: str, answer: Answer, behaviour: Behaviour) -> bytes:
    """Returns the JSON of a reply in one piece."""
    choices = [
        Choice(index, AnswerMessage("".join(said)), finish) for index, (said, finish) in enumerate(answer.choices)
    ]
    if behaviour.tool_calls:
        for choice in choices:
            calls = _tool_calls(call_id, choice.index, behaviour, streamed=False)
            choice.message = AnswerMessage(None, tool_calls=calls)
    usage = msgspec.UNSET if behaviour.no_usage else answer.usage
    return _encode(ChatCompletion(call_id, created, model, choices, usage))


def plain_steps(body: bytes, behaviour: Behaviour, head_bytes: int) -> list[Step]:
    """Returns a plain reply as steps; one that is to be cut ends in the middle of its JSON."""
    data = body[: head_bytes + (len(body) - head_bytes) // 2] if behaviour.cut_stream_after is not None else body
    return [Step((behaviour.delay_ms or 0) / 1000, data)]


def stream_steps(
    call_id: str, created: int, model: str, answer: Answer, behaviour: Behaviour, *, include_usage: bool
) -> list[Step]:
    """Returns the events of a streamed reply: role, a chunk per token, finish, usage if asked for, [DONE].

    With several choices their chunks take turns. A stream that is to be cut ends after that many token chunks.
    """
    include_usage = include_usage and not behaviour.no_usage
    start = (
        b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,'
        b'"system_fingerprint":"fp_simulator","choices":[' % (_encode(call_id), created, _encode(model))
    )
    end = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
    first_wait, wait = (behaviour.delay_ms or 0) / 1000, (behaviour.token_delay_ms or 0) / 1000

    def chunk(index: int, delta: bytes, finish: bytes = b"null") -> bytes:
        choice = b'{"index":%d,"delta":%b,"logprobs":null,"finish_reason":%b}' % (index, delta, finish)
        return start + choice + end

    steps = [
        Step(0 if index else first_wait, chunk(index, b'{"role":"assistant","content":""}'))
        for index in range(len(answer.choices))
    ]
    if behaviour.tool_calls:
        for index in range(len(answer.choices)):
            calls = _tool_calls(call_id, index, behaviour, streamed=True)
            steps += [
                Step(0, chunk(index, b'{"tool_calls":[%b]}' % _encode(call)), 1 + count_tokens(call.function.arguments))
                for call in calls
            ]
    sent = 0
    for position in range(max(len(said) for said, _ in answer.choices)):
        for index, (said, _) in enumerate(answer.choices):
            if position >= len(said):
                continue
            if sent == behaviour.cut_stream_after:
                return steps
            sent += 1
            steps.append(Step(wait if sent > 1 else 0, chunk(index, b'{"content":%b}' % _encode(said[position])), 1))
    if behaviour.cut_stream_after is not None:
        return steps
    steps += [Step(0, chunk(i, b"{}", b'"%b"' % finish.encode())) for i, (_, finish) in enumerate(answer.choices)]
    if include_usage:
        steps.append(Step(0, start + b'],"usage":%b}\n\n' % _encode(answer.usage)))
    steps.append(Step(0, b"data: [DONE]\n\n"))
    return steps


def garbage_reply(kind: str) -> tuple[bytes, bytes]:
    """Returns a content type and a body that no OpenAI client can use."""
    if kind == "html":
        return b"text/html; charset=utf-8", b"<!doctype html><html><body><h1>It works!</h1></body></html>\n"
    if kind == "shape":
        return b"application/json", b'{"object":"list","data":[{"unexpected":true}],"choices":"none"}'
    return b"application/json", b'{"id":"chatcmpl-broken","choices":[{"message":{"content":"unfini'


_ERRORS: dict[int, tuple[str, str, str]] = {
    400: (
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 4096 tokens. However, your messages are longer. Please reduce them.",
    ),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    402: ("insufficient_quota", "insufficient_quota", "The account has no credit left."),
    403: ("permission_error", "permission_denied", "The key may not use this model."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist."),
    429: ("rate_limit_error", "rate_limit_exceeded", "Rate limit reached. Please try again later."),
}
_SERVER_ERROR = ("server_error", "server_error", "The server had an error while processing your request.")


def error_reply(behaviour: Behaviour, status: int) -> tuple[bytes, bytes]:
    """Returns ready header lines and the body of a scripted error."""
    type_, code, message = _ERRORS.get(status, _SERVER_ERROR)
    retry_after = behaviour.retry_after_seconds
    if retry_after is None and status == 429:
        retry_after = 1
    headers = b"" if retry_after is None else b"retry-after: %b\r\n" % f"{retry_after:g}".encode()
    code = behaviour.error_code or code
    param = "messages" if code == "context_length_exceeded" else None
    return headers, error_body(behaviour.error_message or message, type_, code, param)


def _tool_calls(call_id: str, choice: int, behaviour: Behaviour, *, streamed: bool) -> list[AnsweredToolCall]:
    return [
        AnsweredToolCall(
            f"call-{call_id}-{choice}-{position}",
            AnsweredFunction(call.name, call.arguments),
            position if streamed else msgspec.UNSET,
        )
        for position, call in enumerate(behaviour.tool_calls)
    ]


def _text(request: ChatRequest, behaviour: Behaviour, replay: Replay | None, prompt: str, index: int) -> str:
    if behaviour.transcript:
        return "\n".join(f"{message.role}: {message.text()}" for message in request.messages)
    if behaviour.answer is not None:
        return behaviour.answer
    return replay.answer if replay is not None else unrecorded_answer(request.model, prompt, index)
