"""Questions about memory: memories, views between scopes, shared contexts, conversations (``svc.memory.*``),
and what the router asks for a task (``svc.context.recall``).

Whatever a person or a model wrote stands in envelopes. ``reach`` says which paths the asker's key may name; context
refuses the others. ``project`` says whose shared contexts and conversations are meant: ids of different projects never
meet. One rule: an answer that holds content is one sealed JSON document, as its client is to see it; whoever passes it
on need not know its shape.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from collegium_contracts.base import Message
from collegium_contracts.envelope import Envelope
from collegium_contracts.memory_paths import DEFAULT_PROJECT, EVERYWHERE, PathReach
from collegium_contracts.parts import MemoryUse

# What recalled memories and a summary may add to a prompt, and so to what is held for it.
NOTE_BYTES_MAX = 6_000


class MemoryAdd(Message, frozen=True, kw_only=True):
    """Asks context to remember; ``content`` seals JSON: a :class:`MemoryContent`.

    Times are Unix ms: when the content is true in the world, from ``valid_from_ms`` (none: now) until before
    ``valid_to_ms`` (none: for good).
    """

    tenant: str
    path: str
    content: Envelope
    kind: str = ""
    valid_from_ms: int | None = None
    valid_to_ms: int | None = None
    reach: PathReach = EVERYWHERE


class MemorySource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a memory comes from, as whoever stored it says; ``key_id`` is added at the door."""

    task_id: str = ""
    conversation: str = ""
    user: str = ""
    key_id: str = ""


class MemoryContent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is sealed of a memory."""

    text: str
    source: MemorySource = MemorySource()


class MemoryCorrect(Message, frozen=True, kw_only=True):
    """Asks context to supersede a memory from ``valid_from_ms`` on (none: from now)."""

    tenant: str
    id: str
    content: Envelope
    valid_from_ms: int | None = None
    valid_to_ms: int | None = None
    reach: PathReach = EVERYWHERE


class MemoryRecall(Message, frozen=True, kw_only=True):
    """Asks context what it knows under a path; ``question`` seals UTF-8 text.

    ``as_of_ms`` is when it is to be true (none: now), ``known_at_ms`` when it was to be known (none: now).
    """

    tenant: str
    path: str
    question: Envelope
    limit: int = 10
    max_tokens: int = 2_000
    kinds: list[str] = []
    as_of_ms: int | None = None
    known_at_ms: int | None = None
    inherits: bool = True
    reach: PathReach = EVERYWHERE


class MemoryForget(Message, frozen=True, kw_only=True):
    """Asks context to destroy one memory with all its versions, or without an id all that lies under a path."""

    tenant: str
    id: str = ""
    path: str | None = None
    reach: PathReach = EVERYWHERE


class MemoryExplain(Message, frozen=True, kw_only=True):
    """Asks context about one memory: where it comes from, its versions, and why a question under a path recalls it."""

    tenant: str
    id: str
    path: str | None = None
    question: Envelope | None = None
    task: str = ""
    reach: PathReach = EVERYWHERE


class MemoryList(Message, frozen=True, kw_only=True):
    """Asks context for the memories at a path and below it, newest first, those before ``before_id``."""

    tenant: str
    path: str
    limit: int = 50
    before_id: str = ""
    forgotten: bool = False
    reach: PathReach = EVERYWHERE


class MemoryPathSet(Message, frozen=True, kw_only=True):
    """Asks context to set what holds at a path and below it; none leaves it as it is."""

    tenant: str
    path: str
    off: bool | None = None
    inherits: bool | None = None
    reach: PathReach = EVERYWHERE


class MemoryPathList(Message, frozen=True, kw_only=True):
    """Asks context for the settings of a tenant's paths."""

    tenant: str
    reach: PathReach = EVERYWHERE


class MemoryGrantAdd(Message, frozen=True, kw_only=True):
    """Asks context to let ``reader`` read what is at ``source`` and below it."""

    tenant: str
    reader: str
    source: str
    reach: PathReach = EVERYWHERE


class MemoryGrantList(Message, frozen=True, kw_only=True):
    """Asks context for the grants of a tenant."""

    tenant: str
    reach: PathReach = EVERYWHERE


class MemoryGrantRevoke(Message, frozen=True, kw_only=True):
    """Asks context to revoke a grant."""

    tenant: str
    id: str
    reach: PathReach = EVERYWHERE


class SharedPut(Message, frozen=True, kw_only=True):
    """Asks context to store a shared context; ``fields`` seals a JSON object, none deletes it.

    ``expected_version`` none stores whatever stands; 0 wants nothing to stand. ``merge`` puts the given fields over
    those that stand (null removes one).
    """

    tenant: str
    id: str
    fields: Envelope | None
    expected_version: int | None = None
    merge: bool = False
    by: str = ""
    project: str = DEFAULT_PROJECT


class SharedGet(Message, frozen=True, kw_only=True):
    """Asks context for a shared context, as it stands or in an earlier version."""

    tenant: str
    id: str
    version: int | None = None
    project: str = DEFAULT_PROJECT


class SharedVersions(Message, frozen=True, kw_only=True):
    """Asks context for the versions of a shared context, newest first, without their fields."""

    tenant: str
    id: str
    project: str = DEFAULT_PROJECT


class SharedList(Message, frozen=True, kw_only=True):
    """Asks context for the ids of a tenant's shared contexts, in order, those after ``after_id``."""

    tenant: str
    limit: int = 100
    after_id: str = ""
    project: str = DEFAULT_PROJECT


class ConversationList(Message, frozen=True, kw_only=True):
    """Asks context for a tenant's conversations, in the order of their names, those after ``after_id``."""

    tenant: str
    limit: int = 100
    after_id: str = ""
    project: str = DEFAULT_PROJECT


class ConversationGet(Message, frozen=True, kw_only=True):
    """Asks context for the turns of a conversation, newest first, those before ``before_sequence`` (0: the newest)."""

    tenant: str
    id: str
    limit: int = 20
    before_sequence: int = 0
    project: str = DEFAULT_PROJECT


class ConversationForget(Message, frozen=True, kw_only=True):
    """Asks context to delete a conversation, or with ``task`` the turn of that task."""

    tenant: str
    id: str
    task: str = ""
    project: str = DEFAULT_PROJECT


class MemoryShown(Message, frozen=True, kw_only=True):
    """The answer to each of these: ``content`` seals JSON. ``outcome`` says what came of a change.

    A ``conflict`` shows what stands instead of what was wanted.
    """

    content: Envelope
    outcome: Literal["", "created", "changed", "unchanged", "conflict"] = ""


class RecallRequest(Message, frozen=True, kw_only=True):
    """The router asks what a task's model is to be told from memory; ``prompt`` seals the chat messages."""

    tenant: str
    task: str
    path: str
    prompt: Envelope
    max_bytes: int = NOTE_BYTES_MAX


class RecallReply(Message, frozen=True, kw_only=True):
    """What the model is to be told: ``note`` seals text, or is none; ``use`` says what was recalled."""

    use: MemoryUse
    note: Envelope | None = None
    note_bytes: int = 0


MemoryQuestion = (
    MemoryAdd
    | MemoryCorrect
    | MemoryRecall
    | MemoryForget
    | MemoryExplain
    | MemoryList
    | MemoryPathSet
    | MemoryPathList
    | MemoryGrantAdd
    | MemoryGrantList
    | MemoryGrantRevoke
    | SharedPut
    | SharedGet
    | SharedVersions
    | SharedList
    | ConversationList
    | ConversationGet
    | ConversationForget
    | RecallRequest
)
MemoryAnswer = MemoryShown | RecallReply
