"""Opening samples: sealed in, questions and answers out. One rule: what cannot be opened is left out, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from collegium_bus.slices import in_slices
from collegium_contracts.content import ChatMessage, decode_answer, decode_messages
from collegium_contracts.envelope import Keyring, UnknownKeyError, held
from collegium_learning.distill.tries import Tried
from collegium_learning.heads.asking import question_of

from collegium_evolution.students.sample_store import Known
from collegium_evolution.students.tries import Try


class Opened(NamedTuple):
    """A sample that could be read: its question alone (none: it is more than one), and the whole of it."""

    known: Known
    question: str | None
    messages: list[ChatMessage]
    answer: str
    reasoning: str = ""
    likely: list[list[tuple[str, float]]] | None = None


async def opened(
    keyring: Keyring, tenant: str, samples: Sequence[Known], left_out: Counter[str] | None = None
) -> list[Opened]:
    """Opens a tenant's samples; those that are no text, or whose key is gone, are counted in ``left_out``."""
    missed = Counter[str]() if left_out is None else left_out
    found: list[Opened] = []
    async for some in in_slices(samples):
        for known in some:
            one = await _opened(keyring, tenant, known)
            if isinstance(one, Opened):
                found.append(one)
            else:
                missed[one] += 1
    return found


async def _opened(keyring: Keyring, tenant: str, known: Known) -> Opened | str:
    """Returns a sample opened, or why it cannot be."""
    try:
        await held(keyring, tenant, known.prompt, known.answer)
        prompt = keyring.open(tenant, known.prompt)
        choice = decode_answer(keyring.open(tenant, known.answer)).choices[0]
        messages = decode_messages(prompt)
    except UnknownKeyError:
        return "unreadable"
    except (msgspec.DecodeError, IndexError):
        return "no_text"
    if not choice.text or not choice.text.strip() or choice.tool_calls:
        return "no_text"
    return Opened(
        known, question_of(prompt), messages, choice.text.strip(), (choice.reasoning or "").strip(), choice.likely
    )


async def opened_tries(keyring: Keyring, tenant: str, tries: Sequence[Try]) -> dict[str, list[Tried]]:
    """Opens what other models said, by task; what cannot be opened is no try."""
    found: dict[str, list[Tried]] = {}
    async for some in in_slices(tries):
        for one in some:
            answer: str | None = None
            if one.answer is not None:
                try:
                    await held(keyring, tenant, one.answer)
                    answer = decode_answer(keyring.open(tenant, one.answer)).choices[0].text
                except (UnknownKeyError, msgspec.DecodeError, IndexError):
                    continue
            found.setdefault(one.task_id, []).append(Tried(one.model, one.rank, answer, one.same, one.escalated))
    return found
