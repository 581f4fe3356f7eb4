"""Making a prompt student of verified answers: what they have in common, and examples that are spread over them. Pure.

The instruction says what can be counted: whether answers are of a few kinds, objects of the same fields, or of which
length. One rule: it says nothing of a single question; those are in the examples alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from collegium_learning.distill.selecting import covered
from collegium_learning.prompts.prompt import BYTES_MAX, EXEMPLARS_MAX, Exemplar, Prompt, PromptError

# Longer ones would leave room for too few others.
EXEMPLAR_BYTES_MAX: Final = BYTES_MAX // 4
# Answers are of a few kinds where so few make up nearly all of them.
LABELS_MAX: Final = 40
LABEL_CHARS_MAX: Final = 60
LABELLED: Final = 0.95
SAMPLES_MIN: Final = 8
_INSTRUCTION: Final = "Answer as the examples before the question are answered: the same kind of answer, form and tone."


class Verified(NamedTuple):
    """A question, its verified answer, whose task it was, and whether a teacher gave it."""

    question: str
    answer: str
    task_id: str
    by_teacher: bool


class Made(NamedTuple):
    """A prompt student, and the tasks whose answers it shows."""

    prompt: Prompt
    tasks: list[str]


def distilled(samples: Sequence[Verified], vectors: np.ndarray, base: str) -> Made:
    """Makes a prompt student; ``vectors`` are float (samples, dimensions) of length one.

    Of teachers' answers where there are enough of them. Raises PromptError where there are too few samples that fit.
    """
    short = [place for place, one in enumerate(samples) if _size(one) <= EXEMPLAR_BYTES_MAX]
    by_teachers = [place for place in short if samples[place].by_teacher]
    among = by_teachers if len(by_teachers) >= SAMPLES_MIN else short
    if len(among) < SAMPLES_MIN:
        raise PromptError(f"{len(among)} of {len(samples)} verified samples are short enough to be examples")
    said = instruction([samples[place].answer for place in among])
    # Any number of the first of them are spread as far as can be, so that what does not fit any more is left out.
    spread = covered(among, vectors, min(EXEMPLARS_MAX, len(among)))
    kept: list[Verified] = []
    room = BYTES_MAX - len(said.encode())
    for place in spread:
        size = _size(samples[place])
        if size <= room:
            kept.append(samples[place])
            room -= size
    exemplars = [Exemplar(one.question, one.answer) for one in kept]
    prompt = Prompt(base=base, instruction=said, exemplars=exemplars, samples=len(samples))
    return Made(prompt, [one.task_id for one in kept])


def instruction(answers: Sequence[str]) -> str:
    """Returns what answers have in common, in words."""
    often = Counter(answers)
    labels = [label for label, count in often.most_common(LABELS_MAX) if count > 1 and len(label) <= LABEL_CHARS_MAX]
    if sum(often[label] for label in labels) >= LABELLED * len(answers):
        listed = "; ".join(json.dumps(label, ensure_ascii=False) for label in sorted(labels))
        return f"{_INSTRUCTION} Answer with exactly one of these, and nothing else: {listed}"
    fields = _fields(answers)
    if fields is not None:
        named = ", ".join(json.dumps(name, ensure_ascii=False) for name in fields)
        return f"{_INSTRUCTION} Answer with one JSON object with the fields {named}, and nothing else."
    low, high = (round(float(value)) for value in np.quantile([len(one.split()) for one in answers], (0.1, 0.9)))
    return f"{_INSTRUCTION} Most answers have {max(1, low)} to {max(1, high)} words."


def _fields(answers: Sequence[str]) -> list[str] | None:
    """Returns the fields that nearly all answers have where those are JSON objects."""
    counts: Counter[str] = Counter()
    objects = 0
    for answer in answers:
        try:
            read = json.loads(answer)
        except (ValueError, RecursionError):
            continue
        if isinstance(read, dict):
            objects += 1
            counts.update(str(name) for name in read)
    if objects < LABELLED * len(answers):
        return None
    fields = sorted(name for name, count in counts.items() if count >= LABELLED * objects and len(name) <= 60)
    return fields[:20] or None


def _size(one: Verified) -> int:
    return len(one.question.encode()) + len(one.answer.encode())
