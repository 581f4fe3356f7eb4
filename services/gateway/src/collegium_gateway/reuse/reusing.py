"""What makes an answer fit to be given again, and how it is given. Pure.

A reused answer looks like one that was made anew: a terminal message of a task of its own, that used the same tokens,
cost nothing and was charged nothing. One rule: only a whole answer is kept; who asks later for what was cut short,
filtered or failed has it made again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec
from collegium_contracts.content import decode_answer
from collegium_contracts.envelope import Envelope, Keyring
from collegium_contracts.messages import SettledMessage, TaskCompleted, TaskRef
from collegium_contracts.parts import CacheResult, Reuse
from collegium_contracts.state import Breaker, CachedAnswer, ModelRecord

from collegium_gateway.admission.admission import AUTO, BYTES_PER_TOKEN_AT_MOST
from collegium_gateway.tasks.livetext import Piece

NO_OUTPUT: Final = Envelope("", b"", b"")
# Pieces of a replayed stream: about as long as a model's sentence.
PIECE_CHARS: Final = 80
MAX_PIECES: Final = 64
MAX_ANSWER_BYTES: Final = 64 * 1024
_WHOLE: Final = frozenset({"stop", "tool_calls", "function_call"})


def is_whole(answer: CachedAnswer, keyring: Keyring) -> bool:
    """Whether an answer is fit to be kept: none of its choices was cut short or filtered, and it is not too large."""
    if answer.stop_reason not in ("completed", "tool_calls") or len(answer.output.body) > MAX_ANSWER_BYTES:
        return False
    choices = decode_answer(keyring.open(answer.tenant, answer.output)).choices
    return all(choice.finish_reason in _WHOLE for choice in choices)


def answer_of(digest: bytes, settled: SettledMessage, now_ms: int) -> CachedAnswer | None:
    """Returns a task's answer as it may be given again, or none where it has none."""
    if not isinstance(settled, TaskCompleted):
        return None
    return CachedAnswer(
        digest=digest,
        tenant=settled.task.tenant,
        task_id=settled.task.id,
        stored_at_ms=now_ms,
        plan=settled.plan,
        stop_reason=settled.stop_reason,
        model=settled.model,
        rank=settled.rank,
        usage=settled.usage,
        output=settled.output,
        confidence=settled.confidence,
    )


def given_again(
    task: TaskRef,
    kept: CachedAnswer,
    now_ms: int,
    *,
    is_stale: bool = False,
    result: CacheResult = "hit_exact",
) -> TaskCompleted:
    """Returns the terminal message of a task that a kept answer answers."""
    reused = Reuse(
        original=kept.task_id,
        age_seconds=max(0, now_ms - kept.stored_at_ms) // 1000,
        is_stale=is_stale,
        saved_usd_picos=kept.usage.charge_usd_picos,
    )
    return TaskCompleted(
        task=msgspec.structs.replace(task, cache=result, reused=reused),
        plan=kept.plan,
        stop_reason=kept.stop_reason,
        usage=msgspec.structs.replace(kept.usage, cost_usd_picos=0, charge_usd_picos=0),
        attempts=[],
        settled_at_ms=now_ms,
        model=kept.model,
        rank=kept.rank,
        confidence=kept.confidence,
        output=kept.output,
    )


def pieces(settled: TaskCompleted, keyring: Keyring) -> Iterator[Piece]:
    """Yields a reused answer as a stream has it: its first choice's text in pieces, then the terminal message."""
    text = decode_answer(keyring.open(settled.task.tenant, settled.output)).choices[0].text or ""
    size = max(PIECE_CHARS, -(-len(text) // MAX_PIECES))
    if len(text) < 2 * size:
        # Whoever draws what comes should see it come, also where it is short.
        size = max(1, -(-len(text) // 2))
    for start in range(0, len(text), size):
        yield Piece(text=text[start : start + size], model=settled.model)
    yield Piece(model=settled.model, settled=settled)


def with_output(settled: SettledMessage, output: Envelope | None) -> SettledMessage:
    """Returns a reused answer's terminal message with its original's output, where that still stands."""
    if output is None or not isinstance(settled, TaskCompleted):
        return settled
    return msgspec.structs.replace(settled, output=output)


def original_of(settled: SettledMessage) -> str:
    """Returns the id of the task whose output belongs to this terminal message; empty where it has its own."""
    has_own = not isinstance(settled, TaskCompleted) or settled.output.key_id
    return "" if has_own or settled.task.reused is None else settled.task.reused.original


def nobody_can_answer(
    task: TaskRef,
    prompt_bytes: int,
    models: Iterable[ModelRecord],
    breakers: Mapping[str, Breaker],
    now_ms: int,
) -> bool:
    """Whether the circuit breaker of every model that could answer is open: the named one and its fallbacks, or all
    that serve the domain."""
    enabled = {model.name: model for model in models if model.enabled and model.kind == task.kind}
    if task.model == AUTO:
        could = [model for model in enabled.values() if not model.domains or task.domain in model.domains]
    else:
        named = enabled.get(task.model)
        others = (enabled.get(name) for name in (named.fallbacks if named is not None else ()))
        could = [model for model in (named, *others) if model is not None]
    fitting = [model for model in could if prompt_bytes // BYTES_PER_TOKEN_AT_MOST < model.context_tokens]
    return bool(fitting) and all(
        (breaker := breakers.get(model.name)) is not None and breaker.open_until_ms > now_ms for model in fitting
    )
