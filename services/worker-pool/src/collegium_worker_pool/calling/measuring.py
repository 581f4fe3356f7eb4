"""What is measured of the calls of models, by OTel's GenAI conventions: their time, their tokens, and the first one.

One rule: whatever an endpoint calls itself, the number of series has a bound.
"""

from __future__ import annotations

from typing import Final

from collegium_contracts.messages import RunAttempt
from collegium_telemetry import names
from collegium_telemetry.metrics import OTHER, Metrics, label

from collegium_worker_pool.calling.outcome import CallEnd
from collegium_worker_pool.upstream.endpoints import Endpoint

# By OTel's conventions.
OPERATIONS: Final = {"chat": "chat", "embedding": "embeddings"}

# As the conventions advise.
DURATION_BUCKETS: Final = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
FIRST_TOKEN_BUCKETS: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
TOKEN_BUCKETS: Final = tuple(4**power for power in range(14))

# An alias says which version answers; an endpoint that names itself anew with every answer is not followed.
SAID_MAX: Final = 8
SAID_CHARS_MAX: Final = 128

_SERVED: Final = (names.OPERATION_NAME, names.PROVIDER_NAME, names.REQUEST_MODEL, names.RESPONSE_MODEL)


class Measures:
    """Measures the calls of one worker."""

    def __init__(self, metrics: Metrics) -> None:
        served = [label(name) for name in _SERVED]
        self._duration = metrics.histograms(
            names.METRIC_OPERATION_DURATION,
            "Duration of a model call, as it is booked",
            DURATION_BUCKETS,
            [*served, label(names.ERROR_TYPE)],
        )
        self._tokens = metrics.histograms(
            names.METRIC_TOKEN_USAGE,
            "Tokens of a model call by type, as they are booked",
            TOKEN_BUCKETS,
            [*served, label(names.TOKEN_TYPE)],
        )
        self._first = metrics.histograms(
            names.METRIC_FIRST_TOKEN,
            "From a streamed call's request to its first token, of calls that were answered",
            FIRST_TOKEN_BUCKETS,
            served,
        )
        self._said: dict[str, set[str]] = {}

    def ended(
        self, run: RunAttempt, endpoint: Endpoint, end: CallEnd, said: str, first_token_seconds: float | None
    ) -> None:
        """Counts a call; ``said`` is the model that the endpoint says it is, empty where it did not say."""
        model, error = run.attempt.model, end.error.code if end.error is not None else ""
        operation, provider = OPERATIONS[run.task.kind], endpoint.provider
        response = self._known(model, said)
        self._duration[operation, provider, model, response, error].observe(end.duration_ms / 1000)
        usage = end.usage
        if usage.input_tokens:
            self._tokens[operation, provider, model, response, "input"].observe(usage.input_tokens)
        if usage.output_tokens:
            self._tokens[operation, provider, model, response, "output"].observe(usage.output_tokens)
        if first_token_seconds is not None:
            self._first[operation, provider, model, response].observe(first_token_seconds)

    def _known(self, model: str, said: str) -> str:
        known = self._said.get(model)
        if known is None:
            known = self._said[model] = {"", model}
        if said not in known:
            if len(known) >= SAID_MAX or len(said) > SAID_CHARS_MAX:
                return OTHER
            known.add(said)
        return said
