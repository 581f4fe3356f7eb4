"""Prompt students in the workers: what one shows its base before a client's messages.

One rule: examples of a tenant are shown for the tenants that the roster states, whoever dispatched the attempt, and to
nobody else.
"""

from __future__ import annotations

from typing import NamedTuple

from collegium_contracts.errors import TaskError
from collegium_contracts.messages import RunAttempt
from collegium_contracts.students import may_ask
from collegium_learning.prompts.asking import texts_of
from collegium_learning.prompts.prompt import Prompt, PromptError, unpack
from collegium_runtime.platform import Platform

from collegium_worker_pool.students.contents import Contents
from collegium_worker_pool.upstream.counting import count_tokens
from collegium_worker_pool.upstream.failures import CallFailed


class Shown(NamedTuple):
    """What is shown: an instruction, then each question and answer; and about how many tokens that is."""

    texts: list[str]
    tokens: int


class Prompts(Contents[Shown]):
    """The prompt students of one worker."""

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform, "prompt")

    def base(self, model: str) -> str:
        """Returns whom a student is shown to; of any other model its own name."""
        student = self._named.get(model)
        return student.base if student is not None else model

    def tokens(self, model: str) -> int:
        """Returns about how many tokens a student adds, as far as it is loaded."""
        loaded = self._loaded.get(model)
        return loaded.made.tokens if loaded is not None else 0

    def made_of(self, model: str, content: bytes) -> Shown:
        """Returns what content shows; raises PromptError where it is none, or one of another base."""
        prompt: Prompt = unpack(content)
        if prompt.base != self.base(model):
            raise PromptError(f"it is of another base than {self.base(model)!r}")
        texts = texts_of(prompt)
        return Shown(texts, sum(map(count_tokens, texts)))

    async def shown(self, run: RunAttempt) -> list[str]:
        """Returns what comes before an attempt's messages, nothing for a model that is no student.

        Raises CallFailed where the student is not the tenant's to ask, or cannot be had.
        """
        model = run.attempt.model
        student = self._named.get(model)
        if student is None:
            return []
        if not may_ask(student, run.task.tenant):
            raise CallFailed(TaskError(code="unknown_model", message=f"model {model!r} is not in the roster"))
        return (await self._serving(model, student)).texts
