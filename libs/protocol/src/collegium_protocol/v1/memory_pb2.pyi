import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MemorySource(_message.Message):
    __slots__ = ("task_id", "conversation", "user", "key_id")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    conversation: str
    user: str
    key_id: str
    def __init__(self, task_id: _Optional[str] = ..., conversation: _Optional[str] = ..., user: _Optional[str] = ..., key_id: _Optional[str] = ...) -> None: ...

class RememberRequest(_message.Message):
    __slots__ = ("text", "path", "kind", "valid_from", "valid_to", "source")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    VALID_FROM_FIELD_NUMBER: _ClassVar[int]
    VALID_TO_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    text: str
    path: str
    kind: str
    valid_from: _timestamp_pb2.Timestamp
    valid_to: _timestamp_pb2.Timestamp
    source: MemorySource
    def __init__(self, text: _Optional[str] = ..., path: _Optional[str] = ..., kind: _Optional[str] = ..., valid_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., valid_to: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., source: _Optional[_Union[MemorySource, _Mapping]] = ...) -> None: ...

class CorrectRequest(_message.Message):
    __slots__ = ("id", "text", "valid_from", "valid_to", "source")
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    VALID_FROM_FIELD_NUMBER: _ClassVar[int]
    VALID_TO_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    id: str
    text: str
    valid_from: _timestamp_pb2.Timestamp
    valid_to: _timestamp_pb2.Timestamp
    source: MemorySource
    def __init__(self, id: _Optional[str] = ..., text: _Optional[str] = ..., valid_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., valid_to: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., source: _Optional[_Union[MemorySource, _Mapping]] = ...) -> None: ...

class RecallRequest(_message.Message):
    __slots__ = ("question", "path", "limit", "max_tokens", "kinds", "as_of", "known_at", "inherits")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    KNOWN_AT_FIELD_NUMBER: _ClassVar[int]
    INHERITS_FIELD_NUMBER: _ClassVar[int]
    question: str
    path: str
    limit: int
    max_tokens: int
    kinds: _containers.RepeatedScalarFieldContainer[str]
    as_of: _timestamp_pb2.Timestamp
    known_at: _timestamp_pb2.Timestamp
    inherits: bool
    def __init__(self, question: _Optional[str] = ..., path: _Optional[str] = ..., limit: _Optional[int] = ..., max_tokens: _Optional[int] = ..., kinds: _Optional[_Iterable[str]] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., known_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., inherits: _Optional[bool] = ...) -> None: ...

class RecallResponse(_message.Message):
    __slots__ = ("path", "as_of", "known_at", "off", "degraded", "data")
    PATH_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    KNOWN_AT_FIELD_NUMBER: _ClassVar[int]
    OFF_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    path: str
    as_of: _timestamp_pb2.Timestamp
    known_at: _timestamp_pb2.Timestamp
    off: bool
    degraded: _containers.RepeatedScalarFieldContainer[str]
    data: _containers.RepeatedCompositeFieldContainer[Memory]
    def __init__(self, path: _Optional[str] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., known_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., off: _Optional[bool] = ..., degraded: _Optional[_Iterable[str]] = ..., data: _Optional[_Iterable[_Union[Memory, _Mapping]]] = ...) -> None: ...

class ForgetRequest(_message.Message):
    __slots__ = ("id", "path")
    ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    id: str
    path: str
    def __init__(self, id: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class ForgetResponse(_message.Message):
    __slots__ = ("id", "path", "deleted", "versions")
    ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    id: str
    path: str
    deleted: bool
    versions: int
    def __init__(self, id: _Optional[str] = ..., path: _Optional[str] = ..., deleted: _Optional[bool] = ..., versions: _Optional[int] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("id", "question", "path", "task")
    ID_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    id: str
    question: str
    path: str
    task: str
    def __init__(self, id: _Optional[str] = ..., question: _Optional[str] = ..., path: _Optional[str] = ..., task: _Optional[str] = ...) -> None: ...

class MemoryExplained(_message.Message):
    __slots__ = ("memory", "versions", "recall", "task")
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    memory: Memory
    versions: _containers.RepeatedCompositeFieldContainer[Memory]
    recall: RecallReason
    task: TaskReason
    def __init__(self, memory: _Optional[_Union[Memory, _Mapping]] = ..., versions: _Optional[_Iterable[_Union[Memory, _Mapping]]] = ..., recall: _Optional[_Union[RecallReason, _Mapping]] = ..., task: _Optional[_Union[TaskReason, _Mapping]] = ...) -> None: ...

class RecallReason(_message.Message):
    __slots__ = ("path", "recalled", "rank", "signals", "reason", "degraded")
    PATH_FIELD_NUMBER: _ClassVar[int]
    RECALLED_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    path: str
    recalled: bool
    rank: int
    signals: MemorySignals
    reason: str
    degraded: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, path: _Optional[str] = ..., recalled: _Optional[bool] = ..., rank: _Optional[int] = ..., signals: _Optional[_Union[MemorySignals, _Mapping]] = ..., reason: _Optional[str] = ..., degraded: _Optional[_Iterable[str]] = ...) -> None: ...

class TaskReason(_message.Message):
    __slots__ = ("id", "told", "rank", "at", "signals")
    ID_FIELD_NUMBER: _ClassVar[int]
    TOLD_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    id: str
    told: bool
    rank: int
    at: _timestamp_pb2.Timestamp
    signals: MemorySignals
    def __init__(self, id: _Optional[str] = ..., told: _Optional[bool] = ..., rank: _Optional[int] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., signals: _Optional[_Union[MemorySignals, _Mapping]] = ...) -> None: ...

class ListMemoriesRequest(_message.Message):
    __slots__ = ("path", "limit", "cursor", "forgotten")
    PATH_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    FORGOTTEN_FIELD_NUMBER: _ClassVar[int]
    path: str
    limit: int
    cursor: str
    forgotten: bool
    def __init__(self, path: _Optional[str] = ..., limit: _Optional[int] = ..., cursor: _Optional[str] = ..., forgotten: _Optional[bool] = ...) -> None: ...

class ListMemoriesResponse(_message.Message):
    __slots__ = ("data", "next_cursor")
    DATA_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    data: _containers.RepeatedCompositeFieldContainer[Memory]
    next_cursor: str
    def __init__(self, data: _Optional[_Iterable[_Union[Memory, _Mapping]]] = ..., next_cursor: _Optional[str] = ...) -> None: ...

class MemorySignals(_message.Message):
    __slots__ = ("meaning", "meaning_rank", "words", "words_rank", "age_days", "distance", "score")
    MEANING_FIELD_NUMBER: _ClassVar[int]
    MEANING_RANK_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    WORDS_RANK_FIELD_NUMBER: _ClassVar[int]
    AGE_DAYS_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    meaning: float
    meaning_rank: int
    words: float
    words_rank: int
    age_days: float
    distance: int
    score: float
    def __init__(self, meaning: _Optional[float] = ..., meaning_rank: _Optional[int] = ..., words: _Optional[float] = ..., words_rank: _Optional[int] = ..., age_days: _Optional[float] = ..., distance: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class SimilarMemory(_message.Message):
    __slots__ = ("id", "similarity")
    ID_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    id: str
    similarity: float
    def __init__(self, id: _Optional[str] = ..., similarity: _Optional[float] = ...) -> None: ...

class Memory(_message.Message):
    __slots__ = ("id", "path", "kind", "state", "text", "source", "valid_from", "valid_to", "recorded_at", "superseded_at", "forgotten_at", "line", "cause", "supersedes", "refreshed_at", "refreshes", "similar_to", "indexed", "signals")
    ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    VALID_FROM_FIELD_NUMBER: _ClassVar[int]
    VALID_TO_FIELD_NUMBER: _ClassVar[int]
    RECORDED_AT_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_AT_FIELD_NUMBER: _ClassVar[int]
    FORGOTTEN_AT_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDES_FIELD_NUMBER: _ClassVar[int]
    REFRESHED_AT_FIELD_NUMBER: _ClassVar[int]
    REFRESHES_FIELD_NUMBER: _ClassVar[int]
    SIMILAR_TO_FIELD_NUMBER: _ClassVar[int]
    INDEXED_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    id: str
    path: str
    kind: str
    state: str
    text: str
    source: MemorySource
    valid_from: _timestamp_pb2.Timestamp
    valid_to: _timestamp_pb2.Timestamp
    recorded_at: _timestamp_pb2.Timestamp
    superseded_at: _timestamp_pb2.Timestamp
    forgotten_at: _timestamp_pb2.Timestamp
    line: str
    cause: str
    supersedes: str
    refreshed_at: _timestamp_pb2.Timestamp
    refreshes: int
    similar_to: SimilarMemory
    indexed: bool
    signals: MemorySignals
    def __init__(self, id: _Optional[str] = ..., path: _Optional[str] = ..., kind: _Optional[str] = ..., state: _Optional[str] = ..., text: _Optional[str] = ..., source: _Optional[_Union[MemorySource, _Mapping]] = ..., valid_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., valid_to: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., recorded_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., superseded_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., forgotten_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., line: _Optional[str] = ..., cause: _Optional[str] = ..., supersedes: _Optional[str] = ..., refreshed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., refreshes: _Optional[int] = ..., similar_to: _Optional[_Union[SimilarMemory, _Mapping]] = ..., indexed: _Optional[bool] = ..., signals: _Optional[_Union[MemorySignals, _Mapping]] = ...) -> None: ...
