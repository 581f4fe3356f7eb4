"""Many who spend one budget at once, over several gateways, and what they were told.

Each asks one chat under an idempotency key. What broke before its answer is asked again with the same key, at whichever
door chance names. One rule: a question ends with an answer or with a refusal that speaks of it; nothing is given up.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
from collegium_bus.ask import ask as question
from collegium_bus.connection import connect
from collegium_contracts import subjects as s
from collegium_contracts.ids import shard_of
from collegium_contracts.permissions import inbox_prefix
from collegium_contracts.requests import BudgetStanding, HoldsListReply, HoldsListRequest, OpenHold
from collegium_runtime import runtime_file
from collegium_runtime.runtime_file import Runtime

CHAT = "/v1/chat/completions"
REQUEST_SECONDS = 90.0
DEADLINE_SECONDS = 30
NO_MONEY: Final = (402, "insufficient_quota")
_PAUSE_SECONDS = 0.2


class Told(NamedTuple):
    """What a question ended with: its task and charge where it was answered, its refusal's message else."""

    status: int
    code: str
    task_id: str
    charged: Decimal
    message: str
    rates: dict[str, str]


class Spenders:
    """So many questions, asked all at once in each round; who was refused for want of money asks in the next one too.

    ``doors`` is asked before every request. ``broken`` counts requests that broke before their answer, ``waited`` the
    refusals that only said that it is too early (503, or a first request that still runs), by status and code; both
    are asked again with the same key. Without ``is_patient`` the latter end the question.
    """

    def __init__(
        self, doors: Callable[[], Sequence[str]], key: str, *, seed: int = 1, max_tokens: int, is_patient: bool = False
    ) -> None:
        self._doors = doors
        self._key = key
        self._chance = random.Random(seed)  # noqa: S311 - load, not secrets
        self._max_tokens = max_tokens
        self._is_patient = is_patient
        self.broken = 0
        self.waited: Counter[str] = Counter()

    async def ask(self, numbers: Sequence[int], round_number: int = 0) -> list[Told]:
        """Asks these questions at once, and returns what each was told."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        headers = {"Authorization": f"Bearer {self._key}"}
        async with aiohttp.ClientSession(
            headers=headers, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
        ) as session:
            return list(await asyncio.gather(*(self._one(session, number, round_number) for number in numbers)))

    async def _one(self, session: aiohttp.ClientSession, number: int, round_number: int) -> Told:
        headers = {"Idempotency-Key": f"spend-{round_number}-{number}"}
        while True:
            url = self._chance.choice(self._doors()) + CHAT
            try:
                async with session.post(url, json=self.body(number), headers=headers) as response:
                    told = _told(response, await response.json())
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
                self.broken += 1
            else:
                if told.status != 503 and told.code != "idempotency_in_progress":
                    return told
                self.waited[f"{told.status} {told.code}"] += 1
                if not self._is_patient:
                    return told
            await asyncio.sleep(_PAUSE_SECONDS * self._chance.uniform(0.5, 1.5))

    def body(self, number: int) -> dict[str, Any]:
        """The request of a question; all are equally long, so that all cost the same."""
        return {
            "model": "sim",
            "max_tokens": self._max_tokens,
            "messages": [{"role": "user", "content": f"question {number:06d}"}],
            "collegium": {"cache": "off", "deadline_seconds": DEADLINE_SECONDS},
        }


def _told(response: aiohttp.ClientResponse, body: dict[str, Any]) -> Told:
    rates = {name.lower(): value for name, value in response.headers.items() if name.lower().startswith("x-ratelimit-")}
    if response.status == 200:
        about = body["collegium"]
        return Told(200, "", response.headers["x-collegium-task-id"], Decimal(about["cost_usd"]), "", rates)
    error = body["error"]
    return Told(response.status, error["code"], "", Decimal(0), error["message"], rates)


async def standings(folder: Path, tenant: str) -> tuple[list[BudgetStanding], list[OpenHold]]:
    """Returns a tenant's budgets and open holds as the owner of its shard has them; raises BusError while nobody has.

    ``folder`` is the platform's data folder.
    """
    runtime = runtime_file.read(folder) or Runtime()
    seed = Path(runtime.credentials["gateway"]).read_text().strip()  # noqa: ASYNC240 - a small file
    connection = await connect(runtime.nats, "spending", inbox_prefix=inbox_prefix("gateway"), nkey_seed=seed)
    try:
        asked = HoldsListRequest(tenant=tenant)
        reply = await question(connection, s.holds_of_shard(shard_of(tenant)), asked, HoldsListReply)
    finally:
        await connection.close()
    return reply.budgets, reply.holds
