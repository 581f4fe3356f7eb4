"""Heads in the workers: asked for their label, in milliseconds and without a model.

One rule: a head answers for the tenants that the roster states, whoever dispatched the attempt.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from collegium_bus.embed import EmbedClient
from collegium_bus.errors import BusError
from collegium_contracts.content import Answer, Choice
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import RunAttempt
from collegium_contracts.students import may_ask
from collegium_learning.heads.applying import Classifier
from collegium_learning.heads.asking import question_of
from collegium_learning.heads.head import HeadError, unpack
from collegium_runtime.platform import Platform

from collegium_worker_pool.students.contents import Contents, away
from collegium_worker_pool.upstream.counting import count_tokens
from collegium_worker_pool.upstream.endpoints import Endpoint
from collegium_worker_pool.upstream.failures import CallFailed
from collegium_worker_pool.upstream.metering import UpstreamUsage
from collegium_worker_pool.upstream.upstream import CallResult

EMBED_SECONDS: Final = 10.0
PROVIDER: Final = "head"
_ENDPOINT: Final = Endpoint(
    url="", headers={}, upstream_model="", provider=PROVIDER, timeout_seconds=30.0, concurrency=None
)


class Heads(Contents[Classifier]):
    """The heads of one worker."""

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform, PROVIDER)
        self._embed = EmbedClient(platform.connection, platform.keyring)

    def endpoint(self, model: str) -> Endpoint | None:
        """Returns the endpoint that stands for a head, none where the model is none."""
        return _ENDPOINT if model in self._named else None

    def made_of(self, model: str, content: bytes) -> Classifier:
        """Returns a head, ready to be asked; raises HeadError where the content is none."""
        return Classifier(unpack(content))

    async def answer(self, run: RunAttempt, prompt: bytes, history: bytes | None) -> CallResult:
        """Answers an attempt; raises CallFailed where the head is not there, not sure, or not asked for a label."""
        model, tenant = run.attempt.model, run.task.tenant
        student = self._named.get(model)
        if student is None or not may_ask(student, tenant):
            raise CallFailed(TaskError(code="unknown_model", message=f"model {model!r} is not in the roster"))
        text = question_of(prompt) if history is None and run.sampling.tools is None else None
        if text is None:
            raise _unsure(model, "it answers one question in words, without tools or earlier turns")
        serving = await self._serving(model, student)
        head = serving.head
        try:
            embedded = await self._embed.embed(tenant, [text], model=head.embedder, timeout_seconds=EMBED_SECONDS)
            vector = np.frombuffer(embedded.vectors, "<f4")
            told = serving.tell(text, vector)
        except (BusError, HeadError) as error:
            raise away(model, type(error).__name__) from error
        if not told.label or told.confidence < student.confidence:
            raise _unsure(model, f"it is {told.confidence:.2f} sure, {student.confidence:.2f} are needed")
        usage = UpstreamUsage(prompt_tokens=sum(embedded.tokens), completion_tokens=count_tokens(told.label))
        answer = Answer([Choice(told.label)] * max(1, run.sampling.n))
        return CallResult(answer, usage, model, confidence=told.confidence)


def _unsure(model: str, why: str) -> CallFailed:
    return CallFailed(TaskError(code="head_unsure", message=f"head {model} does not answer: {why}; ask another model"))
