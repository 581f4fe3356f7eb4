"""Usage of one call: the endpoint's own count, or an estimate marked as one. Pure.

Estimate: a token for every four bytes (UTF-8), rounded up, the usual figure for English text and byte-pair
vocabularies. One rule: an endpoint's count is never corrected.
"""

from __future__ import annotations

import msgspec
from collegium_contracts.messages import AttemptRef
from collegium_contracts.money import Usage, cost_usd_picos

BYTES_PER_TOKEN = 4


class PromptDetails(msgspec.Struct):
    """OpenAI's ``prompt_tokens_details``."""

    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    """OpenAI's ``completion_tokens_details``."""

    reasoning_tokens: int | None = None


class UpstreamUsage(msgspec.Struct):
    """OpenAI's ``usage`` object."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


def meter(attempt: AttemptRef, reported: UpstreamUsage | None, prompt_bytes: int, output_bytes: int) -> Usage:
    """Returns a call's usage with its cost and charge by the attempt's pinned prices."""
    if reported is None:
        usage = Usage(
            input_tokens=-(-prompt_bytes // BYTES_PER_TOKEN),
            output_tokens=-(-output_bytes // BYTES_PER_TOKEN),
            estimated=True,
        )
    else:
        prompt, completion = reported.prompt_tokens_details, reported.completion_tokens_details
        usage = Usage(
            input_tokens=max(0, reported.prompt_tokens),
            output_tokens=max(0, reported.completion_tokens),
            cached_input_tokens=max(0, (prompt.cached_tokens or 0) if prompt is not None else 0),
            reasoning_tokens=max(0, (completion.reasoning_tokens or 0) if completion is not None else 0),
        )
    return msgspec.structs.replace(
        usage,
        cost_usd_picos=cost_usd_picos(attempt.price, usage),
        charge_usd_picos=cost_usd_picos(attempt.charge, usage),
    )
