import datetime

from collegium_protocol.v1 import chat_pb2 as _chat_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubmitRequest(_message.Message):
    __slots__ = ("model", "input", "messages", "kind", "max_tokens", "temperature", "top_p", "seed", "stop", "tools_json", "tool_choice_json", "response_format_json", "callback_url", "wait_seconds", "plan", "panel_size", "quality_min", "budget_usd_max", "deadline_seconds", "priority", "domain", "cache", "conversation", "memory", "gates", "verified", "tags", "not_before", "off_peak", "approval_before", "approval_after", "ask", "ask_below", "input_expires_seconds", "on_expiry", "answer", "labels", "judge", "tests")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    TOOLS_JSON_FIELD_NUMBER: _ClassVar[int]
    TOOL_CHOICE_JSON_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FORMAT_JSON_FIELD_NUMBER: _ClassVar[int]
    CALLBACK_URL_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
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
    model: str
    input: str
    messages: _containers.RepeatedCompositeFieldContainer[_chat_pb2.ChatMessage]
    kind: str
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    tools_json: str
    tool_choice_json: str
    response_format_json: str
    callback_url: str
    wait_seconds: float
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
    tests: _containers.RepeatedCompositeFieldContainer[_chat_pb2.CodeTest]
    def __init__(self, model: _Optional[str] = ..., input: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[_chat_pb2.ChatMessage, _Mapping]]] = ..., kind: _Optional[str] = ..., max_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., seed: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ..., tools_json: _Optional[str] = ..., tool_choice_json: _Optional[str] = ..., response_format_json: _Optional[str] = ..., callback_url: _Optional[str] = ..., wait_seconds: _Optional[float] = ..., plan: _Optional[str] = ..., panel_size: _Optional[int] = ..., quality_min: _Optional[float] = ..., budget_usd_max: _Optional[str] = ..., deadline_seconds: _Optional[float] = ..., priority: _Optional[str] = ..., domain: _Optional[str] = ..., cache: _Optional[str] = ..., conversation: _Optional[str] = ..., memory: _Optional[str] = ..., gates: _Optional[_Iterable[str]] = ..., verified: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., tags: _Optional[_Mapping[str, str]] = ..., not_before: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., off_peak: _Optional[bool] = ..., approval_before: _Optional[_Iterable[str]] = ..., approval_after: _Optional[_Iterable[str]] = ..., ask: _Optional[str] = ..., ask_below: _Optional[float] = ..., input_expires_seconds: _Optional[float] = ..., on_expiry: _Optional[str] = ..., answer: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., judge: _Optional[str] = ..., tests: _Optional[_Iterable[_Union[_chat_pb2.CodeTest, _Mapping]]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("state", "since", "cursor", "limit")
    STATE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    state: str
    since: _timestamp_pb2.Timestamp
    cursor: str
    limit: int
    def __init__(self, state: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cursor: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("data", "next_cursor")
    DATA_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    data: _containers.RepeatedCompositeFieldContainer[Task]
    next_cursor: str
    def __init__(self, data: _Optional[_Iterable[_Union[Task, _Mapping]]] = ..., next_cursor: _Optional[str] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ProvideInputRequest(_message.Message):
    __slots__ = ("id", "decision", "text", "question", "comment")
    ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    id: str
    decision: str
    text: str
    question: str
    comment: str
    def __init__(self, id: _Optional[str] = ..., decision: _Optional[str] = ..., text: _Optional[str] = ..., question: _Optional[str] = ..., comment: _Optional[str] = ...) -> None: ...

class FeedbackRequest(_message.Message):
    __slots__ = ("id", "score", "source", "comment")
    ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    id: str
    score: float
    source: str
    comment: str
    def __init__(self, id: _Optional[str] = ..., score: _Optional[float] = ..., source: _Optional[str] = ..., comment: _Optional[str] = ...) -> None: ...

class FeedbackResponse(_message.Message):
    __slots__ = ("id", "task_id", "score", "source", "created_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    task_id: str
    score: float
    source: str
    created_at: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., task_id: _Optional[str] = ..., score: _Optional[float] = ..., source: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("id", "after_sequence")
    ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    id: str
    after_sequence: int
    def __init__(self, id: _Optional[str] = ..., after_sequence: _Optional[int] = ...) -> None: ...

class WatchEvent(_message.Message):
    __slots__ = ("sequence", "state", "token", "checkpoint", "done")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    state: StateChange
    token: Token
    checkpoint: Checkpoint
    done: Task
    def __init__(self, sequence: _Optional[int] = ..., state: _Optional[_Union[StateChange, _Mapping]] = ..., token: _Optional[_Union[Token, _Mapping]] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., done: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class StateChange(_message.Message):
    __slots__ = ("state", "attempt", "model", "models", "queue_position", "queue_age_ms", "estimated_wait_seconds", "stage", "questions", "question", "decision")
    STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    QUEUE_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    state: str
    attempt: int
    model: str
    models: _containers.RepeatedScalarFieldContainer[str]
    queue_position: int
    queue_age_ms: int
    estimated_wait_seconds: float
    stage: str
    questions: _containers.RepeatedCompositeFieldContainer[Question]
    question: str
    decision: str
    def __init__(self, state: _Optional[str] = ..., attempt: _Optional[int] = ..., model: _Optional[str] = ..., models: _Optional[_Iterable[str]] = ..., queue_position: _Optional[int] = ..., queue_age_ms: _Optional[int] = ..., estimated_wait_seconds: _Optional[float] = ..., stage: _Optional[str] = ..., questions: _Optional[_Iterable[_Union[Question, _Mapping]]] = ..., question: _Optional[str] = ..., decision: _Optional[str] = ...) -> None: ...

class Question(_message.Message):
    __slots__ = ("id", "kind", "of", "queue", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    OF_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    of: str
    queue: str
    reason: str
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., of: _Optional[str] = ..., queue: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("text", "number", "attempt", "delivery")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    text: str
    number: int
    attempt: int
    delivery: int
    def __init__(self, text: _Optional[str] = ..., number: _Optional[int] = ..., attempt: _Optional[int] = ..., delivery: _Optional[int] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("text", "chunks", "attempt")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    text: str
    chunks: int
    attempt: int
    def __init__(self, text: _Optional[str] = ..., chunks: _Optional[int] = ..., attempt: _Optional[int] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("id", "state", "created_at", "settled_at", "output", "choices", "usage", "collegium", "attempts", "stop_reason", "partial", "error", "queue_position", "model", "priority", "tags", "not_before", "input_required", "queue_age_ms", "estimated_wait_seconds")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    SETTLED_AT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    COLLEGIUM_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    INPUT_REQUIRED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: str
    created_at: _timestamp_pb2.Timestamp
    settled_at: _timestamp_pb2.Timestamp
    output: str
    choices: _containers.RepeatedCompositeFieldContainer[Choice]
    usage: TaskUsage
    collegium: _chat_pb2.Result
    attempts: _containers.RepeatedCompositeFieldContainer[Attempt]
    stop_reason: str
    partial: bool
    error: TaskError
    queue_position: int
    model: str
    priority: str
    tags: _containers.ScalarMap[str, str]
    not_before: _timestamp_pb2.Timestamp
    input_required: _struct_pb2.Struct
    queue_age_ms: int
    estimated_wait_seconds: float
    def __init__(self, id: _Optional[str] = ..., state: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., settled_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., output: _Optional[str] = ..., choices: _Optional[_Iterable[_Union[Choice, _Mapping]]] = ..., usage: _Optional[_Union[TaskUsage, _Mapping]] = ..., collegium: _Optional[_Union[_chat_pb2.Result, _Mapping]] = ..., attempts: _Optional[_Iterable[_Union[Attempt, _Mapping]]] = ..., stop_reason: _Optional[str] = ..., partial: _Optional[bool] = ..., error: _Optional[_Union[TaskError, _Mapping]] = ..., queue_position: _Optional[int] = ..., model: _Optional[str] = ..., priority: _Optional[str] = ..., tags: _Optional[_Mapping[str, str]] = ..., not_before: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., input_required: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., queue_age_ms: _Optional[int] = ..., estimated_wait_seconds: _Optional[float] = ...) -> None: ...

class Choice(_message.Message):
    __slots__ = ("text", "finish_reason", "tool_calls_json")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_JSON_FIELD_NUMBER: _ClassVar[int]
    text: str
    finish_reason: str
    tool_calls_json: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, text: _Optional[str] = ..., finish_reason: _Optional[str] = ..., tool_calls_json: _Optional[_Iterable[str]] = ...) -> None: ...

class TaskUsage(_message.Message):
    __slots__ = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "estimated", "cost_usd", "charged_usd")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REASONING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    COST_USD_FIELD_NUMBER: _ClassVar[int]
    CHARGED_USD_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    estimated: bool
    cost_usd: str
    charged_usd: str
    def __init__(self, input_tokens: _Optional[int] = ..., cached_input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., reasoning_tokens: _Optional[int] = ..., estimated: _Optional[bool] = ..., cost_usd: _Optional[str] = ..., charged_usd: _Optional[str] = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("number", "model", "rank", "duration_ms", "succeeded", "error", "wasted", "usage")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    WASTED_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    number: int
    model: str
    rank: str
    duration_ms: int
    succeeded: bool
    error: str
    wasted: bool
    usage: TaskUsage
    def __init__(self, number: _Optional[int] = ..., model: _Optional[str] = ..., rank: _Optional[str] = ..., duration_ms: _Optional[int] = ..., succeeded: _Optional[bool] = ..., error: _Optional[str] = ..., wasted: _Optional[bool] = ..., usage: _Optional[_Union[TaskUsage, _Mapping]] = ...) -> None: ...

class TaskError(_message.Message):
    __slots__ = ("message", "type", "param", "code")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PARAM_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    message: str
    type: str
    param: str
    code: str
    def __init__(self, message: _Optional[str] = ..., type: _Optional[str] = ..., param: _Optional[str] = ..., code: _Optional[str] = ...) -> None: ...
