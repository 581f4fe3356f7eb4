"""A prompt student as it travels: an instruction, and questions with their answers. Pure.

One rule: what is larger than one may be, or empty where it must not be, is refused as a whole.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

EXEMPLARS_MAX: Final = 8
INSTRUCTION_BYTES_MAX: Final = 4_096
# About two thousand tokens: more examples cost more than they teach (and every call pays for them).
BYTES_MAX: Final = 8_192


class PromptError(ValueError):
    """Bytes are no prompt student, or samples make none; ``code`` is of the error catalogue."""

    code = "invalid_head"


class Exemplar(msgspec.Struct, frozen=True, array_like=True):
    """A question and the answer that it is to have."""

    question: str
    answer: str


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt student for the model ``base``; of ``samples`` verified answers."""

    version: int = 1
    base: str
    instruction: str
    exemplars: list[Exemplar]
    samples: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Prompt).decode


def pack(prompt: Prompt) -> bytes:
    """Returns the bytes of a prompt student; raises PromptError where it could not be read again."""
    _check(prompt)
    return _encode(prompt)


def unpack(content: bytes) -> Prompt:
    """Reads the bytes of a prompt student; raises PromptError on anything else."""
    if len(content) > 2 * BYTES_MAX:
        raise PromptError(f"{len(content)} bytes are more than a prompt student has")
    try:
        prompt = _decode(content)
    except msgspec.DecodeError as error:
        raise PromptError(f"{len(content)} bytes are no prompt student: {error}") from None
    _check(prompt)
    return prompt


def digest_of(content: bytes) -> str:
    """Returns the SHA-256 by which one is known, in hex."""
    return hashlib.sha256(content).hexdigest()


def size_of(prompt: Prompt) -> int:
    """Returns how many bytes it adds to a prompt."""
    texts = [prompt.instruction, *(text for one in prompt.exemplars for text in (one.question, one.answer))]
    return sum(len(text.encode()) for text in texts)


def _check(prompt: Prompt) -> None:
    if prompt.version != 1:
        raise PromptError(f"a prompt student of version {prompt.version} is not known here")
    if not prompt.base or not prompt.instruction or len(prompt.instruction.encode()) > INSTRUCTION_BYTES_MAX:
        raise PromptError(f"a prompt student has a model and an instruction of at most {INSTRUCTION_BYTES_MAX} bytes")
    if not 0 < len(prompt.exemplars) <= EXEMPLARS_MAX:
        raise PromptError(f"a prompt student has 1 to {EXEMPLARS_MAX} examples, not {len(prompt.exemplars)}")
    if not all(one.question and one.answer for one in prompt.exemplars) or size_of(prompt) > BYTES_MAX:
        raise PromptError(f"examples are questions with answers, of at most {BYTES_MAX} bytes with the instruction")
