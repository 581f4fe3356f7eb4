"""A search's wordings: the platform's own call asks no people, whatever the operator's rules and gates say."""

from __future__ import annotations

from pathlib import Path

from collegium_contracts import subjects as s
from collegium_gateway.identity.principal import Principal
from collegium_gateway.knowledge.rewriter import Rewriter
from collegium_settings.gates import GateSettings
from collegium_settings.people import PeopleRuleSettings, PeopleSettings
from collegium_testing.platform import RunningPlatform


async def test_a_wording_asks_no_people(clean_nats_url: str, database_url: str, tmp_path: Path):
    rules = tuple(PeopleRuleSettings(when=when, ask="client") for when in ("before", "after"))
    gate = GateSettings(kind="topics", deny=("nightfall",), action="ask", ask="client", everyone=False)
    async with RunningPlatform(
        clean_nats_url, database_url, folder=tmp_path, people=PeopleSettings(rules=rules), gates={"night": gate}
    ) as platform:
        gateway = platform.app("gateway")
        rewriter = Rewriter(gateway._platform, gateway._chats)

        async def reworded(*gates: str) -> tuple[str | None, bool]:
            who = Principal("acme", "default", "key1", frozenset({"chat"}), gates=gates)
            found = await rewriter.rewritten(who, "nightfall", rewrite=True, expand=0, model="", traceparent=None)
            return found.reason, found.model is not None

        reason, was_asked = await reworded()
        assert was_asked, reason
        # A gate that might ask is not passed by: the question stays as it is, and nobody is asked.
        assert await reworded("night") == ("input_required", False)
        for stage in ("request", "answer"):
            paused = s.task_paused("acme", "*", stage)
            assert await platform.direct.last(s.EVENTS, paused) is None
