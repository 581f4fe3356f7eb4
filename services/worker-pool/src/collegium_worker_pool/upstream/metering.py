"""Usage of one call: the endpoint's own count, or an estimate marked as one. Pure.

How texts are counted stands in counting. One rule: an endpoint's count is never corrected.
"""

from __future__ import annotations

import msgspec
from collegium_contracts.messages import AttemptRef
from collegium_contracts.money import Usage, cost_usd_picos


class PromptDetails(msgspec.Struct):
    """OpenAI's ``prompt_tokens_details``; what was written to the cache goes by two names."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_creation_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    """OpenAI's ``completion_tokens_details``."""

    reasoning_tokens: int | None = None


class UpstreamUsage(msgspec.Struct):
    """OpenAI's ``usage`` object."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    cache_creation_input_tokens: int | None = None
    prompt_cache_hit_tokens: int | None = None

    @property
    def cached_tokens(self) -> int:
        """What was read from the endpoint's cache, by whichever name it goes."""
        details = self.prompt_tokens_details or PromptDetails()
        return details.cached_tokens or self.prompt_cache_hit_tokens or 0

    @property
    def cache_write_tokens(self) -> int:
        """What was written to the endpoint's cache, by whichever name it goes."""
        details = self.prompt_tokens_details or PromptDetails()
        return details.cache_write_tokens or details.cache_creation_tokens or self.cache_creation_input_tokens or 0


def meter(attempt: AttemptRef, reported: UpstreamUsage) -> Usage:
    """Returns a call's usage as its endpoint counted it, with cost and charge by the attempt's pinned prices."""
    completion = reported.completion_tokens_details
    usage = Usage(
        input_tokens=max(0, reported.prompt_tokens),
        output_tokens=max(0, reported.completion_tokens),
        cached_input_tokens=max(0, reported.cached_tokens),
        reasoning_tokens=max(0, (completion.reasoning_tokens or 0) if completion is not None else 0),
        cache_write_tokens=max(0, reported.cache_write_tokens),
    )
    return _priced(attempt, usage)


def estimate(attempt: AttemptRef, input_tokens: int, output_tokens: int, *, bound: int, pieces: int) -> Usage:
    """Returns a call's usage as it was counted here, marked as an estimate, with cost and charge likewise.

    ``bound`` is what the endpoint was told to stay within; a count is not trusted beyond it, but every one of the
    ``pieces`` in which an answer came is a token at least.
    """
    output_tokens = max(pieces, min(output_tokens, bound))
    return _priced(attempt, Usage(input_tokens=input_tokens, output_tokens=output_tokens, estimated=True))


def _priced(attempt: AttemptRef, usage: Usage) -> Usage:
    return msgspec.structs.replace(
        usage,
        cost_usd_picos=cost_usd_picos(attempt.price, usage),
        charge_usd_picos=cost_usd_picos(attempt.charge, usage),
    )
