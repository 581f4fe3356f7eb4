"""What a head is asked: the one question in words that a prompt comes to. Pure.

One rule: what is trained on is what is asked, so both sides read prompts here.
"""

from __future__ import annotations

import msgspec
from collegium_contracts.content import decode_messages


def question_of(prompt: bytes) -> str | None:
    """Returns the text of the only message of a user, none where there are several or it is more than text.

    ``prompt`` is JSON, a list of chat messages; instructions (``system``, ``developer``) are no question.
    """
    try:
        messages = decode_messages(prompt)
    except msgspec.DecodeError:
        return None
    asked = [one for one in messages if one.role not in ("system", "developer")]
    if len(asked) != 1 or asked[0].role != "user" or not isinstance(asked[0].content, str):
        return None
    return asked[0].content.strip() or None
