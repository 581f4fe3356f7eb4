"""What became of an answer: a score, and who gave it.

One rule: a later word of the same source about the same task replaces the earlier one, whoever reads them.
"""

from __future__ import annotations

from typing import Literal

from collegium_contracts.base import Message
from collegium_contracts.envelope import Envelope
from collegium_contracts.parts import TaskRef

# ``client``: what the one who asked thinks of it; ``outcome``: what came of it where it was used, told by a program;
# ``person``: what somebody who was asked about the answer made of it.
FeedbackSource = Literal["client", "outcome", "person"]


class Feedback(Message, frozen=True, kw_only=True):
    """A settled task was judged (hop 12): ``score`` from 0 (wrong) to 1 (right).

    ``plan``, ``model`` and ``rank`` are those that the answer was settled with, empty where nothing answered. ``by`` is
    the public id of the key that told it; ``comment`` seals text.
    """

    id: str
    task: TaskRef
    source: FeedbackSource
    score: float
    at_ms: int
    plan: str = ""
    model: str = ""
    rank: str = ""
    by: str = ""
    comment: Envelope | None = None
