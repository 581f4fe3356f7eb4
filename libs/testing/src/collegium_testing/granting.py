"""Stands in for the owner of holds where a test runs some services without billing: it grants everything.

One rule: what billing decides is tested with billing; this only lets tasks through to what is tested instead.
"""

from __future__ import annotations

from collegium_bus.connection import Connection
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.requests import HoldAnswer, HoldsReply, HoldsRequest


class GrantingHolds:
    """Answers every ask for a hold with yes while it listens; ``asked`` keeps what was asked.

    Keys in ``ended`` have ended: what waited and was asked with one is refused, as billing does.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.asked: list[str] = []
        self.ended: set[str] = set()
        self._sid = connection.client.subscribe_raw(s.SVC_HOLDS_ALL, self._on_question)

    def stop(self) -> None:
        """Answers no more."""
        self._connection.client.unsubscribe_raw(self._sid)

    def _on_question(self, _subject: bytes, reply: bytes, payload: bytes, _block: bytes | None) -> None:
        question = codec.request.decode(payload)
        if isinstance(question, HoldsRequest) and reply:
            self.asked += [ask.task for ask in question.asks]
            answers = [
                HoldAnswer(code="revoked_api_key", message=f"key {ask.key_id} was revoked")
                if ask.waited and ask.key_id in self.ended
                else HoldAnswer()
                for ask in question.asks
            ]
            self._connection.publish(reply.decode(), codec.encode(HoldsReply(answers=answers)))
