"""What clients send: the bodies of the doors, decoded and checked for shape. Pure.

One rule: a wrong body is refused with the path of what is wrong; unknown fields of OpenAI's surface pass unread,
unknown fields of ours are refused, because there they are typing errors.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeVar

import msgspec
from collegium_contracts.code_tests import CodeTest
from collegium_contracts.messages import CacheMode, Plan
from collegium_contracts.parts import AnswerKind, JudgeMode, Priority
from collegium_contracts.state import Missed

from collegium_gateway.admission import plain
from collegium_gateway.errors import ApiError


# msgspec cannot decode a union with Raw, so an absent value reads as JSON's null.
def _null() -> msgspec.Raw:
    return msgspec.Raw(b"null")


class StreamOptions(msgspec.Struct, frozen=True):
    """OpenAI's ``stream_options``."""

    include_usage: bool = False


Asked = str | list[str]


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who has to agree: ``before`` a task begins, ``after`` it was answered; ``client`` or queues by name."""

    before: Asked = []
    after: Asked = []

    def names(self, when: Literal["before", "after"]) -> list[str]:
        """Returns whom it names, as a list."""
        named = self.before if when == "before" else self.after
        return [named] if isinstance(named, str) else named


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The request extension ``collegium``."""

    plan: Plan = "auto"
    panel_size: int = 3
    quality_min: float | None = None
    budget_usd_max: str | None = None
    deadline_seconds: float = 50.0
    priority: Priority = "normal"
    domain: str = ""
    cache: CacheMode | None = None
    conversation: str | None = None
    memory: str | None = None
    gates: list[str] | None = None
    verified: dict[str, Any] | None = None
    tags: dict[str, str] = {}
    not_before: str | None = None
    off_peak: bool = False
    approval: Approval | None = None
    ask: str | None = None
    ask_below: float | None = None
    input_expires_seconds: float | None = None
    on_expiry: Literal["fail", "best", "deny"] | None = None
    answer: AnswerKind | None = None
    labels: list[str] | None = None
    judge: JudgeMode | None = None
    tests: list[CodeTest] | None = None


class ChatRequest(msgspec.Struct, frozen=True):
    """``POST /v1/chat/completions``; ``messages`` is kept as it came and checked by admission."""

    model: str
    messages: msgspec.Raw
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    tools: msgspec.Raw = msgspec.field(default_factory=_null)
    tool_choice: msgspec.Raw = msgspec.field(default_factory=_null)
    response_format: msgspec.Raw = msgspec.field(default_factory=_null)
    collegium: Options | None = None


class TaskRequest(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/tasks``: a question for later, with the extension's fields at top level."""

    input: msgspec.Raw
    model: str = "auto"
    kind: Literal["chat"] = "chat"
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    tools: msgspec.Raw = msgspec.field(default_factory=_null)
    tool_choice: msgspec.Raw = msgspec.field(default_factory=_null)
    response_format: msgspec.Raw = msgspec.field(default_factory=_null)
    callback_url: str | None = None


class ScheduleRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/schedules``: a task to submit again and again, at the times of a cron expression."""

    cron: str
    task: TaskRequest
    timezone: str = "UTC"
    missed: Missed = "skip"
    name: str = ""


class TenantRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/tenants``."""

    id: str
    tier: str = "free"


T = TypeVar("T")

# Asked for so often that they are looked through only where they must be; admission bounds their numbers.
_HOT: Final = frozenset({ChatRequest, TaskRequest})

decode_chat = msgspec.json.Decoder(ChatRequest)
decode_task = msgspec.json.Decoder(TaskRequest)
decode_schedule = msgspec.json.Decoder(ScheduleRequest)
decode_tenant = msgspec.json.Decoder(TenantRequest)


_MISSING = "Object missing required field `"
# What the extension holds has one name, whether it stands in a chat's ``collegium`` or at a task's top level.
_EXTENSION = "collegium."


def param_of(reason: str, path: str) -> str | None:
    """Returns the name of what msgspec refused: its path in the body, down to a field that is missing."""
    path = path.rstrip("`").removeprefix("$").removeprefix(".")
    if reason.startswith(_MISSING):
        name = reason.removeprefix(_MISSING).rstrip("`")
        path = f"{path}.{name}" if path else name
    return path.removeprefix(_EXTENSION) or None


def parse(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decodes a body; raises ApiError ``malformed_json`` or ``invalid_value`` with the path.

    No name in it holds NUL, and no number is larger than a message can carry.
    """
    try:
        # Parts that stay raw JSON are not looked into by the decoder, and must be text too.
        str(body, "utf-8")
        found = decoder.decode(body)
        if decoder.type not in _HOT or plain.may_hold_nul(body):
            plain.check(found)
        return found
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `")
        raise ApiError("invalid_value", reason, param=param_of(reason, path)) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ApiError("malformed_json", f"the body is not valid JSON: {error}") from None


def options_of(request: TaskRequest) -> Options:
    """Returns the extension's fields of a task request."""
    return Options(**{name: getattr(request, name) for name in Options.__struct_fields__})
