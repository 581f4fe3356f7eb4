"""OpenAI's chat-completions wire format, as far as a caller needs it. Pure.

One rule: the client's messages and tools pass through byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from collegium_contracts.content import Answer, Choice
from collegium_contracts.messages import RunAttempt, Sampling

from collegium_worker_pool.upstream.metering import UpstreamUsage


class StreamOptions(msgspec.Struct, frozen=True):
    """OpenAI's ``stream_options``."""

    include_usage: bool = True


class UpstreamRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of a call; ``max_tokens`` is always sent."""

    model: str
    messages: msgspec.Raw
    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    n: int = 1
    tools: msgspec.Raw | None = None
    tool_choice: msgspec.Raw | None = None
    response_format: msgspec.Raw | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: bool = False
    top_logprobs: int | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    tool_calls: list[msgspec.Raw] | None = None
    # By either name, as endpoints call it.
    reasoning_content: str | None = None
    reasoning: str | None = None


# msgspec cannot decode a union with Raw, so an absent value reads as JSON's null.
def _nothing() -> msgspec.Raw:
    return msgspec.Raw(b"null")


class _Likely(msgspec.Struct):
    token: str
    logprob: float


class _Token(msgspec.Struct):
    logprob: float
    token: str = ""
    top_logprobs: list[_Likely] = []


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    index: int = 0
    finish_reason: str | None = None
    # Read apart: what an endpoint tells beside its answer must not cost the answer.
    logprobs: msgspec.Raw = msgspec.field(default_factory=_nothing)


class Completion(msgspec.Struct):
    """A whole answer."""

    choices: list[_Choice]
    model: str = ""
    usage: UpstreamUsage | None = None


class FunctionDelta(msgspec.Struct):
    """A piece of a streamed function call."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(msgspec.Struct):
    """A piece of a streamed tool call."""

    index: int = 0
    id: str | None = None
    function: FunctionDelta | None = None


class Delta(msgspec.Struct):
    """What a chunk adds."""

    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class ChunkChoice(msgspec.Struct):
    """One choice of a chunk."""

    index: int = 0
    delta: Delta = msgspec.field(default_factory=Delta)
    finish_reason: str | None = None


class Chunk(msgspec.Struct):
    """One event of a stream."""

    choices: list[ChunkChoice] = []
    model: str = ""
    usage: UpstreamUsage | None = None
    error: Any = None


# What is kept of a model's thinking; a sample is kept only up to a like size.
REASONING_CHARS_MAX: Final = 24_000
# Of each token so many alternatives, of answers up to so many tokens.
LIKELY_TOKENS: Final = 5
LIKELY_ANSWER_MAX: Final = 64

_encode = msgspec.json.Encoder().encode
decode_completion = msgspec.json.Decoder(Completion).decode
_decode_logprobs = msgspec.json.Decoder(_Logprobs).decode
decode_chunk = msgspec.json.Decoder(Chunk).decode
_decode_raw_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder().decode


def joined(prompt: bytes, history: bytes | None, notes: Sequence[str] = (), instruction: str = "") -> bytes:
    """Joins what a model is sent: JSON lists of messages, history first, with the notes among its instructions.

    Templates of many models take one message of instructions, as the first: ``instruction`` is put before those of the
    client, notes after them, wherever they stand, or both come first where it gave none.
    """
    if history is None and not notes and not instruction:
        return prompt
    earlier = _decode_raw_list(history) if history is not None else []
    messages = earlier + _decode_raw_list(prompt)
    if not notes and not instruction:
        return _encode(messages)
    before, after = [instruction] if instruction else [], list(notes)
    for place, raw in enumerate(messages):
        match _decode_any(raw):
            case {"role": "system" | "developer", "content": str(told)} as message:
                first = msgspec.Raw(_encode({**message, "content": "\n\n".join([*before, told, *after])}))
                return _encode([first, *messages[:place], *messages[place + 1 :]])
            case _:
                continue
    return _encode([{"role": "system", "content": "\n\n".join([*before, *after])}, *messages])


def request_body(
    upstream_model: str,
    prompt: bytes,
    history: bytes | None,
    sampling: Sampling,
    notes: Sequence[str] = (),
    *,
    instruction: str = "",
    logprobs: bool = False,
    likely: bool = False,
) -> bytes:
    """Writes the request; what goes into it is joined by :func:`joined`. ``logprobs`` asks for those of its tokens,
    ``likely`` for those of what might have stood in their place too."""
    return _encode(
        UpstreamRequest(
            model=upstream_model,
            messages=msgspec.Raw(joined(prompt, history, notes, instruction)),
            max_tokens=_max_tokens(sampling),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            frequency_penalty=sampling.frequency_penalty,
            presence_penalty=sampling.presence_penalty,
            seed=sampling.seed,
            stop=sampling.stop,
            n=sampling.n,
            tools=_raw(sampling.tools),
            tool_choice=_raw(sampling.tool_choice),
            response_format=_raw(sampling.response_format),
            stream=sampling.stream,
            stream_options=StreamOptions() if sampling.stream else None,
            logprobs=logprobs or likely,
            top_logprobs=LIKELY_TOKENS if likely else None,
        )
    )


def output_bound(run: RunAttempt) -> int:
    """Returns how many tokens an endpoint was told to stay within, over all choices; an embedder writes none."""
    if run.task.kind == "embedding":
        return 0
    return _max_tokens(run.sampling) * run.sampling.n


def _max_tokens(sampling: Sampling) -> int:
    return sampling.max_tokens or 1


def _raw(text: bytes | None) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(text)


def taught_of(completion: Completion) -> Answer:
    """Returns the answer of a whole completion with what can be learned from: its reasoning, and what it might have
    said where it is short."""
    choices = sorted(completion.choices, key=lambda choice: choice.index)
    return Answer(
        [
            msgspec.structs.replace(
                plain,
                reasoning=_cut(choice.message.reasoning_content or choice.message.reasoning),
                likely=_likely(choice.logprobs),
            )
            for plain, choice in zip(answer_of(completion).choices, choices, strict=True)
        ]
    )


def _cut(reasoning: str | None) -> str | None:
    return reasoning[:REASONING_CHARS_MAX] if reasoning else None


def _likely(raw: msgspec.Raw) -> list[list[tuple[str, float]]] | None:
    if bytes(raw) == b"null":
        return None
    try:
        tokens = _decode_logprobs(raw).content
    except (msgspec.DecodeError, RecursionError):
        return None
    if not tokens or len(tokens) > LIKELY_ANSWER_MAX or not any(token.top_logprobs for token in tokens):
        return None
    return [
        [(one.token, one.logprob) for one in token.top_logprobs[:LIKELY_TOKENS]] or [(token.token, token.logprob)]
        for token in tokens
    ]


def answer_of(completion: Completion) -> Answer:
    """Returns the answer of a whole completion, choices in index order."""
    choices = sorted(completion.choices, key=lambda choice: choice.index)
    return Answer(
        [
            Choice(choice.message.content, choice.finish_reason or "stop", choice.message.tool_calls or None)
            for choice in choices
        ]
    )


def logprob_of(completion: Completion) -> float | None:
    """Returns the mean log-probability of the tokens of the first choice; none where it has none that are numbers."""
    first = min(completion.choices, key=lambda choice: choice.index, default=None)
    if first is None or bytes(first.logprobs) == b"null":
        return None
    try:
        tokens = _decode_logprobs(first.logprobs).content
    except (msgspec.DecodeError, RecursionError):
        return None
    return sum(min(token.logprob, 0.0) for token in tokens) / len(tokens) if tokens else None


def _says_something(delta: Delta) -> bool:
    return bool(delta.content or delta.tool_calls or delta.reasoning_content or delta.reasoning)


class StreamedAnswer:
    """Puts a streamed answer together, chunk by chunk."""

    def __init__(self) -> None:
        self._texts: dict[int, list[str]] = {}
        self._finish: dict[int, str] = {}
        self._tools: dict[int, dict[int, dict[str, Any]]] = {}
        self.usage: UpstreamUsage | None = None
        self.model = ""
        self.characters = 0
        # Chunks that brought text or a part of a tool call.
        self.pieces = 0
        # The request went out, so that the endpoint may have begun.
        self.is_sent = False
        # When it did, by the monotonic clock.
        self.sent_at = 0.0
        # A token has come, of whatever kind; and how long after the request.
        self.has_begun = False
        self.first_token_seconds: float | None = None
        # What can be learned from the answer is kept with it.
        self.teaches = False
        self._reasoning: list[str] = []

    def add(self, chunk: Chunk) -> str:
        """Takes one chunk and returns the text that it adds to the first choice."""
        self.usage = chunk.usage or self.usage
        self.model = chunk.model or self.model
        added = ""
        for choice in chunk.choices:
            if not self.has_begun:
                self.has_begun = _says_something(choice.delta)
            texts = self._texts.setdefault(choice.index, [])
            if choice.delta.content:
                texts.append(choice.delta.content)
                self.characters += len(choice.delta.content)
                self.pieces += 1
                if choice.index == 0:
                    added += choice.delta.content
            if choice.finish_reason:
                self._finish[choice.index] = choice.finish_reason
            for delta in choice.delta.tool_calls or ():
                self._add_tool(choice.index, delta)
            if self.teaches and choice.index == 0:
                self._reasoning.append(choice.delta.reasoning_content or choice.delta.reasoning or "")
        return added

    def _add_tool(self, choice: int, delta: ToolCallDelta) -> None:
        self.pieces += 1
        call = self._tools.setdefault(choice, {}).setdefault(
            delta.index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        call["id"] = delta.id or call["id"]
        if delta.function is not None:
            call["function"]["name"] += delta.function.name or ""
            call["function"]["arguments"] += delta.function.arguments or ""
            self.characters += len(delta.function.arguments or "")

    @property
    def finished(self) -> bool:
        """Whether every choice announced its end."""
        return bool(self._finish) and self._finish.keys() >= self._texts.keys()

    @property
    def text(self) -> str:
        """The first choice's text so far."""
        return "".join(self._texts.get(0, ()))

    def answer(self) -> Answer:
        """Returns the answer as it stands."""
        choices: list[Choice] = []
        for index in sorted(self._texts) or [0]:
            tools = [msgspec.Raw(_encode(call)) for _, call in sorted(self._tools.get(index, {}).items())]
            text = "".join(self._texts.get(index, ()))
            reasoning = _cut("".join(self._reasoning)) if index == 0 else None
            finish = self._finish.get(index, "stop")
            choices.append(Choice(text or (None if tools else ""), finish, tools or None, reasoning))
        return Answer(choices)
