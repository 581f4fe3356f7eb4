"""The ``search`` section: who writes questions anew, and what ranks results again."""

from __future__ import annotations

from typing import Annotated

from collegium_settings.scalars import HiddenText, HttpUrl, ModelName, Text, TimeoutSeconds, whole
from collegium_settings.section import Section


class RerankSettings(Section, frozen=True, kw_only=True):
    """An endpoint with ``/rerank`` as Cohere and Jina have it; no ``base_url``: none.

    The first ``results`` of a search are sent to it, with their text. Its calls are the operator's cost.
    """

    base_url: HttpUrl | None = None
    model: Text | None = None
    api_key: HiddenText | None = None
    results: Annotated[int, whole(2, 200)] = 50
    timeout_seconds: TimeoutSeconds = 3.0


class SearchSettings(Section, frozen=True, kw_only=True):
    """Searches of documents. Questions are written anew by ``rewrite_model`` (``auto``: the router decides)."""

    rewrite_model: ModelName = "auto"
    rewrite_seconds: TimeoutSeconds = 8.0
    rerank: RerankSettings = RerankSettings()
