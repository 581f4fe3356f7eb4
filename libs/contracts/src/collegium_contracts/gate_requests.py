"""What a worker asks of the gateway about an answer: whether a model of the roster finds that it breaks a rule.

One rule: what is asked names its rule as it travels with the task, so that the answer is judged by the rule of then.
"""

from __future__ import annotations

from typing import Final

from collegium_contracts.base import Message
from collegium_contracts.envelope import Envelope
from collegium_contracts.gates import GateRule
from collegium_contracts.parts import TaskRef

# A model reads no more at a time, and a question travels in one message.
TEXTS_BYTES_MAX: Final = 256 * 1024


class TextsJudge(Message, frozen=True, kw_only=True):
    """Asks what a rule of the kind ``llm`` says of the answer to a task; ``texts`` seals JSON: a list of texts."""

    task: TaskRef
    rule: GateRule
    texts: Envelope


class TextsJudged(Message, frozen=True, kw_only=True):
    """What its model decided: nothing against it, a ``reason`` to refuse it, or (``failure``) why nothing."""

    reason: str = ""
    failure: str = ""
