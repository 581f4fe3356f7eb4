"""The OpenAI shapes the simulator reads and writes.

Here: requests, replies, usage and errors as structs, out of the garbage collector's sight (decoded JSON has no
cycles). Not here: what is answered, or when.
The one rule: read leniently (unknown fields pass), write exactly what OpenAI's clients expect.
"""

from typing import Any

import msgspec


class ContentPart(msgspec.Struct, gc=False):
    """One part of a message whose content is a list; only text is looked at."""

    type: str = "text"
    text: str = ""


class Message(msgspec.Struct, gc=False, omit_defaults=True):
    """One message of a conversation."""

    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None

    def text(self) -> str:
        """Returns the content as one text, parts joined by line breaks."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content or ())


class StreamOptions(msgspec.Struct, gc=False):
    """What a streaming client asks for on top."""

    include_usage: bool = False


class ChatRequest(msgspec.Struct, gc=False):
    """A chat completion request, as far as the simulator looks at it."""

    model: str
    messages: list[Message]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = 1
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


class EmbeddingRequest(msgspec.Struct):
    """An embedding request; token ids are accepted in place of text."""

    model: str
    input: str | list[str | int | list[int]]
    dimensions: int | None = None
    encoding_format: str | None = "float"


class PromptTokensDetails(msgspec.Struct, gc=False):
    """How many prompt tokens came from the endpoint's own cache."""

    cached_tokens: int = 0


class Usage(msgspec.Struct, gc=False, omit_defaults=True):
    """What a call used; `cost` (US dollars) only where a recording gives it, as some vendors do."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = None
    cost: float | None = None


class AnsweredFunction(msgspec.Struct, gc=False):
    """The function of a tool call."""

    name: str
    arguments: str


class AnsweredToolCall(msgspec.Struct, gc=False):
    """A tool call in an answer; `index` only in a stream."""

    id: str
    function: AnsweredFunction
    index: int | msgspec.UnsetType = msgspec.UNSET
    type: str = "function"


class AnswerMessage(msgspec.Struct, gc=False):
    """The assistant's message of a plain reply; content is None where it calls tools."""

    content: str | None
    role: str = "assistant"
    refusal: None = None
    tool_calls: list[AnsweredToolCall] | msgspec.UnsetType = msgspec.UNSET


class Choice(msgspec.Struct, gc=False):
    """One of the `n` answers of a plain reply."""

    index: int
    message: AnswerMessage
    finish_reason: str
    logprobs: None = None


class ChatCompletion(msgspec.Struct, gc=False):
    """A plain reply; `usage` is left out when it is unset."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | msgspec.UnsetType = msgspec.UNSET
    object: str = "chat.completion"
    system_fingerprint: str = "fp_simulator"


class ApiError(msgspec.Struct):
    """The inner part of an error reply."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(msgspec.Struct):
    """An error reply in OpenAI's form."""

    error: ApiError


def error_body(message: str, type_: str, code: str | None, param: str | None = None) -> bytes:
    """Returns the JSON of an error reply."""
    return msgspec.json.encode(ErrorReply(ApiError(message, type_, param, code)))
