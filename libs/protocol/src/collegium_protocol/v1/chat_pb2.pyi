import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ChatRequest(_message.Message):
    __slots__ = ("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "stop", "n", "tools_json", "tool_choice_json", "response_format_json", "stream_options", "collegium")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_PENALTY_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_PENALTY_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    TOOLS_JSON_FIELD_NUMBER: _ClassVar[int]
    TOOL_CHOICE_JSON_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FORMAT_JSON_FIELD_NUMBER: _ClassVar[int]
    STREAM_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    COLLEGIUM_FIELD_NUMBER: _ClassVar[int]
    model: str
    messages: _containers.RepeatedCompositeFieldContainer[ChatMessage]
    max_tokens: int
    max_completion_tokens: int
    temperature: float
    top_p: float
    frequency_penalty: float
    presence_penalty: float
    seed: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    n: int
    tools_json: str
    tool_choice_json: str
    response_format_json: str
    stream_options: StreamOptions
    collegium: Options
    def __init__(self, model: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[ChatMessage, _Mapping]]] = ..., max_tokens: _Optional[int] = ..., max_completion_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., frequency_penalty: _Optional[float] = ..., presence_penalty: _Optional[float] = ..., seed: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ..., n: _Optional[int] = ..., tools_json: _Optional[str] = ..., tool_choice_json: _Optional[str] = ..., response_format_json: _Optional[str] = ..., stream_options: _Optional[_Union[StreamOptions, _Mapping]] = ..., collegium: _Optional[_Union[Options, _Mapping]] = ...) -> None: ...

class ChatMessage(_message.Message):
    __slots__ = ("role", "content", "content_json", "name", "tool_calls_json", "tool_call_id")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_JSON_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_JSON_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    role: str
    content: str
    content_json: str
    name: str
    tool_calls_json: _containers.RepeatedScalarFieldContainer[str]
    tool_call_id: str
    def __init__(self, role: _Optional[str] = ..., content: _Optional[str] = ..., content_json: _Optional[str] = ..., name: _Optional[str] = ..., tool_calls_json: _Optional[_Iterable[str]] = ..., tool_call_id: _Optional[str] = ...) -> None: ...

class StreamOptions(_message.Message):
    __slots__ = ("include_usage",)
    INCLUDE_USAGE_FIELD_NUMBER: _ClassVar[int]
    include_usage: bool
    def __init__(self, include_usage: _Optional[bool] = ...) -> None: ...

class Options(_message.Message):
    __slots__ = ("plan", "panel_size", "quality_min", "budget_usd_max", "deadline_seconds", "priority", "domain", "cache", "conversation", "memory", "gates", "verified", "tags", "not_before", "off_peak", "approval_before", "approval_after", "ask", "ask_below", "input_expires_seconds", "on_expiry", "answer", "labels", "judge", "tests")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PLAN_FIELD_NUMBER: _ClassVar[int]
    PANEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    QUALITY_MIN_FIELD_NUMBER: _ClassVar[int]
    BUDGET_USD_MAX_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    OFF_PEAK_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_BEFORE_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_AFTER_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    ASK_BELOW_FIELD_NUMBER: _ClassVar[int]
    INPUT_EXPIRES_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ON_EXPIRY_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    JUDGE_FIELD_NUMBER: _ClassVar[int]
    TESTS_FIELD_NUMBER: _ClassVar[int]
    plan: str
    panel_size: int
    quality_min: float
    budget_usd_max: str
    deadline_seconds: float
    priority: str
    domain: str
    cache: str
    conversation: str
    memory: str
    gates: _containers.RepeatedScalarFieldContainer[str]
    verified: _struct_pb2.Struct
    tags: _containers.ScalarMap[str, str]
    not_before: _timestamp_pb2.Timestamp
    off_peak: bool
    approval_before: _containers.RepeatedScalarFieldContainer[str]
    approval_after: _containers.RepeatedScalarFieldContainer[str]
    ask: str
    ask_below: float
    input_expires_seconds: float
    on_expiry: str
    answer: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    judge: str
    tests: _containers.RepeatedCompositeFieldContainer[CodeTest]
    def __init__(self, plan: _Optional[str] = ..., panel_size: _Optional[int] = ..., quality_min: _Optional[float] = ..., budget_usd_max: _Optional[str] = ..., deadline_seconds: _Optional[float] = ..., priority: _Optional[str] = ..., domain: _Optional[str] = ..., cache: _Optional[str] = ..., conversation: _Optional[str] = ..., memory: _Optional[str] = ..., gates: _Optional[_Iterable[str]] = ..., verified: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., tags: _Optional[_Mapping[str, str]] = ..., not_before: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., off_peak: _Optional[bool] = ..., approval_before: _Optional[_Iterable[str]] = ..., approval_after: _Optional[_Iterable[str]] = ..., ask: _Optional[str] = ..., ask_below: _Optional[float] = ..., input_expires_seconds: _Optional[float] = ..., on_expiry: _Optional[str] = ..., answer: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., judge: _Optional[str] = ..., tests: _Optional[_Iterable[_Union[CodeTest, _Mapping]]] = ...) -> None: ...

class CodeTest(_message.Message):
    __slots__ = ("call", "equals_json", "code")
    CALL_FIELD_NUMBER: _ClassVar[int]
    EQUALS_JSON_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    call: str
    equals_json: str
    code: str
    def __init__(self, call: _Optional[str] = ..., equals_json: _Optional[str] = ..., code: _Optional[str] = ...) -> None: ...

class ChatResponse(_message.Message):
    __slots__ = ("id", "created", "model", "choices", "usage", "collegium")
    ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    COLLEGIUM_FIELD_NUMBER: _ClassVar[int]
    id: str
    created: int
    model: str
    choices: _containers.RepeatedCompositeFieldContainer[ChatChoice]
    usage: ChatUsage
    collegium: Result
    def __init__(self, id: _Optional[str] = ..., created: _Optional[int] = ..., model: _Optional[str] = ..., choices: _Optional[_Iterable[_Union[ChatChoice, _Mapping]]] = ..., usage: _Optional[_Union[ChatUsage, _Mapping]] = ..., collegium: _Optional[_Union[Result, _Mapping]] = ...) -> None: ...

class ChatChoice(_message.Message):
    __slots__ = ("index", "message", "finish_reason")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    index: int
    message: ChatMessage
    finish_reason: str
    def __init__(self, index: _Optional[int] = ..., message: _Optional[_Union[ChatMessage, _Mapping]] = ..., finish_reason: _Optional[str] = ...) -> None: ...

class ChatUsage(_message.Message):
    __slots__ = ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details")
    class PromptTokensDetails(_message.Message):
        __slots__ = ("cached_tokens",)
        CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
        cached_tokens: int
        def __init__(self, cached_tokens: _Optional[int] = ...) -> None: ...
    class CompletionTokensDetails(_message.Message):
        __slots__ = ("reasoning_tokens",)
        REASONING_TOKENS_FIELD_NUMBER: _ClassVar[int]
        reasoning_tokens: int
        def __init__(self, reasoning_tokens: _Optional[int] = ...) -> None: ...
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_DETAILS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_DETAILS_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: ChatUsage.PromptTokensDetails
    completion_tokens_details: ChatUsage.CompletionTokensDetails
    def __init__(self, prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., total_tokens: _Optional[int] = ..., prompt_tokens_details: _Optional[_Union[ChatUsage.PromptTokensDetails, _Mapping]] = ..., completion_tokens_details: _Optional[_Union[ChatUsage.CompletionTokensDetails, _Mapping]] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("task_id", "plan", "model", "rank", "attempts", "confidence", "cost_usd", "cache", "stop_reason", "trace_id", "stale", "age_seconds", "memory", "plan_reason", "tests")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    COST_USD_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    PLAN_REASON_FIELD_NUMBER: _ClassVar[int]
    TESTS_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    plan: str
    model: str
    rank: str
    attempts: int
    confidence: float
    cost_usd: str
    cache: str
    stop_reason: str
    trace_id: str
    stale: bool
    age_seconds: int
    memory: MemoryUse
    plan_reason: str
    tests: TestsRun
    def __init__(self, task_id: _Optional[str] = ..., plan: _Optional[str] = ..., model: _Optional[str] = ..., rank: _Optional[str] = ..., attempts: _Optional[int] = ..., confidence: _Optional[float] = ..., cost_usd: _Optional[str] = ..., cache: _Optional[str] = ..., stop_reason: _Optional[str] = ..., trace_id: _Optional[str] = ..., stale: _Optional[bool] = ..., age_seconds: _Optional[int] = ..., memory: _Optional[_Union[MemoryUse, _Mapping]] = ..., plan_reason: _Optional[str] = ..., tests: _Optional[_Union[TestsRun, _Mapping]] = ...) -> None: ...

class TestsRun(_message.Message):
    __slots__ = ("state", "passed", "of")
    STATE_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    OF_FIELD_NUMBER: _ClassVar[int]
    state: str
    passed: int
    of: int
    def __init__(self, state: _Optional[str] = ..., passed: _Optional[int] = ..., of: _Optional[int] = ...) -> None: ...

class MemoryUse(_message.Message):
    __slots__ = ("path", "state", "recalled")
    PATH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RECALLED_FIELD_NUMBER: _ClassVar[int]
    path: str
    state: str
    recalled: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, path: _Optional[str] = ..., state: _Optional[str] = ..., recalled: _Optional[_Iterable[str]] = ...) -> None: ...

class ChatChunk(_message.Message):
    __slots__ = ("id", "created", "model", "choices", "usage", "collegium")
    ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    COLLEGIUM_FIELD_NUMBER: _ClassVar[int]
    id: str
    created: int
    model: str
    choices: _containers.RepeatedCompositeFieldContainer[ChatChoiceDelta]
    usage: ChatUsage
    collegium: Result
    def __init__(self, id: _Optional[str] = ..., created: _Optional[int] = ..., model: _Optional[str] = ..., choices: _Optional[_Iterable[_Union[ChatChoiceDelta, _Mapping]]] = ..., usage: _Optional[_Union[ChatUsage, _Mapping]] = ..., collegium: _Optional[_Union[Result, _Mapping]] = ...) -> None: ...

class ChatChoiceDelta(_message.Message):
    __slots__ = ("index", "delta", "finish_reason")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    index: int
    delta: ChatDelta
    finish_reason: str
    def __init__(self, index: _Optional[int] = ..., delta: _Optional[_Union[ChatDelta, _Mapping]] = ..., finish_reason: _Optional[str] = ...) -> None: ...

class ChatDelta(_message.Message):
    __slots__ = ("role", "content", "tool_calls_json")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_JSON_FIELD_NUMBER: _ClassVar[int]
    role: str
    content: str
    tool_calls_json: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, role: _Optional[str] = ..., content: _Optional[str] = ..., tool_calls_json: _Optional[_Iterable[str]] = ...) -> None: ...
