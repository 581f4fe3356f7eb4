"""Documents are added while the processes behind them are killed: none that was promised is lost, none found by half.

The owner of the vector store, its indexer, the embedder and context itself are killed with -9, at moments that a seed
chooses: after so many more promises. Meanwhile somebody searches all the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from collegium_bus.connection import connect
from collegium_context.vectors.embedded.client import EmbeddedStore
from collegium_context.vectors.interface import StoreUnavailableError, UnknownCollectionError
from collegium_testing import eventually

from tests.journeys.conftest import Knowing

pytestmark = [pytest.mark.timeout(300), pytest.mark.chaos]
WRITERS, READERS = 3, 2
# So much is under way while a process is killed.
AHEAD = 6
TARGETS = {
    "owner": "collegium_context.vectors.embedded.owner",
    "indexer": "collegium_context.vectors.embedded.indexer",
    "embedder": "collegium_context.embedding.worker",
}
KILLS = ("owner", "owner", "embedder", "context", "indexer")
PARAGRAPHS = 3
# A chunk is some 200 tokens.
EDITION = re.compile(r"edition\d")
# What was asked of a process that is killed then is never answered.
PATIENCE = aiohttp.ClientTimeout(total=4)
AWAY = (aiohttp.ClientError, TimeoutError)


def text_of(name: str, version: int) -> str:
    """A text of several chunks, each of which says whose and which version it is."""
    line = f"The keeper of {name} edition{version} writes down the weather, the ships and the tides of the day."
    return "\n\n".join(f"Page {page}. {' '.join([line] * 10)}" for page in range(PARAGRAPHS))


def descendants(pid: int) -> dict[int, str]:
    """The command lines of all processes below one, by id."""
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                commands[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
    below, found = {pid}, True
    while found:
        found = {child for child, parent in parents.items() if parent in below} - below
        below |= found
    return {child: commands[child] for child in below - {pid} if child in commands}


class Library:
    """Adds documents and memories, and knows what was promised."""

    def __init__(self, knowing: Knowing, chance: random.Random) -> None:
        self.knowing = knowing
        self.chance = chance
        self.promised: dict[str, int] = {}
        self.memories: dict[str, str] = {}
        self.promises = 0
        self.wanted = 0
        self.searched = 0
        self.refused = 0
        self.pages = 0
        self.closing = False

    async def call(self, method: str, url: str, body: Any = None) -> Any:
        """Asks until it is answered: whoever gets no answer asks again."""
        while True:
            with contextlib.suppress(*AWAY):
                async with (
                    self.knowing.session() as http,
                    http.request(method, url, json=body, timeout=PATIENCE) as response,
                ):
                    if response.status < 400:
                        return await response.json()
                    assert response.status in (429, 502, 503), f"{method} {url}: {await response.text()}"
            self.refused += 1
            await asyncio.sleep(0.05)

    async def write(self, writer: int) -> None:
        """Adds, and replaces some of what it added."""
        number = 0
        while not self.closing:
            if self.promises >= self.wanted + AHEAD:
                await asyncio.sleep(0.01)
                continue
            number += 1
            name = f"logbook{writer}x{number}"
            await self.put(name, 1)
            if self.chance.random() < 0.4:
                await self.put(f"logbook{writer}x{self.chance.randint(1, number)}", 2)
            words = f"keeper {name} prefers tea"
            memory = await self.call("POST", "/v1/memories", {"text": words, "path": f"killed/{writer}"})
            self.memories[memory["id"]] = name
            self.promises += 1

    async def put(self, name: str, version: int) -> None:
        await self.call("PUT", f"/v1/documents/{name}", {"content": text_of(name, version), "type": "text"})
        self.promised[name] = version
        self.promises += 1

    async def search(self, name: str) -> list[tuple[int, str]] | None:
        """What is found of a document: its chunks and the editions that they say; none where nobody answers."""
        body = {"query": name, "mode": "words", "limit": 50, "filters": {"documents": [name]}}
        with contextlib.suppress(*AWAY):
            async with self.knowing.session() as http, http.post("/v1/search", json=body, timeout=PATIENCE) as response:
                if response.status == 200:
                    found = (await response.json())["data"]
                    return [(one["chunk"], " ".join(sorted(set(EDITION.findall(one["text"]))))) for one in found]
                assert response.status == 503, await response.text()
        return None

    def is_whole(self, found: list[tuple[int, str]]) -> bool:
        """Whether what was found is a document in one edition."""
        return [chunk for chunk, _ in sorted(found)] == list(range(self.pages)) and len(
            {said for _, said in found}
        ) == 1

    async def read(self) -> None:
        """Searches all the time for what is there or is becoming."""
        while not self.closing:
            name = self.chance.choice(list(self.promised))
            found = await self.search(name)
            if found is None:
                await asyncio.sleep(0.05)
                continue
            assert not found or self.is_whole(found), f"{name} is found by half: {sorted(found)}"
            self.searched += 1
            await asyncio.sleep(0.02)

    async def more(self, promises: int) -> None:
        """Waits until so much more was promised."""
        self.wanted = self.promises + promises
        await eventually(lambda: self.promises >= self.wanted, every_seconds=0.005)


@pytest.fixture
async def store(knowing: Knowing) -> AsyncIterator[EmbeddedStore]:
    """The vector store, as an operator asks it."""
    seed = Path(knowing.runtime["credentials"]["context"]).read_text().strip()  # noqa: ASYNC240 - a test's own file
    connection = await connect(knowing.runtime["nats"], "context", nkey_seed=seed)
    yield EmbeddedStore(connection)
    await connection.close()


async def collection_of(store: EmbeddedStore) -> str:
    """The collection of documents."""
    found: list[str] = []

    async def stands() -> bool:
        with contextlib.suppress(StoreUnavailableError):
            found[:] = [name for name in (await store.status())["collections"] if name.startswith("documents-")]
        return bool(found)

    await eventually(stands)
    return found[0]


async def kill(knowing: Knowing, target: str) -> None:
    """Kills a process as soon as there is one."""

    def there() -> int | None:
        if target == "context":
            return knowing.platform.pids()["context"]
        below = descendants(knowing.platform.process.pid).items()
        return next((pid for pid, command in below if TARGETS[target] in command), None)

    pid = await eventually(there, every_seconds=0.01)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


async def kill_indexer(knowing: Knowing, store: EmbeddedStore) -> None:
    """Has a generation built, and kills the first who builds: that one, or what of the standing one is due."""
    collection = await collection_of(store)
    building = asyncio.create_task(store.operate("reindex", collection))
    await kill(knowing, "indexer")
    made = ""
    with contextlib.suppress(StoreUnavailableError):
        made = (await building)["generation"]
    stands = (await answered(store.status))["collections"][collection]
    assert stands["generations"][stands["serving"]]["whole"]
    assert {name for name, one in stands["generations"].items() if one["whole"]} == {stands["serving"], made} - {""}
    if made:
        await answered(lambda: store.operate("discard", collection, made))


async def answered(asking: Callable[[], Awaitable[Any]]) -> Any:
    """Asks the store until it answers."""
    while True:
        with contextlib.suppress(StoreUnavailableError, UnknownCollectionError):
            return await asking()
        await asyncio.sleep(0.1)


@pytest.mark.long
async def test_what_was_promised_is_found_whole_whatever_is_killed_meanwhile(
    knowing: Knowing, store: EmbeddedStore, rng: random.Random
):
    library = Library(knowing, rng)
    first = await library.call("PUT", "/v1/documents/logbook0x0", {"content": text_of("logbook0x0", 1)})
    library.promised["logbook0x0"] = 1

    async def indexed() -> bool:
        return (await library.call("GET", f"/v1/documents/{first['id']}"))["state"] == "indexed"

    await eventually(indexed)
    library.pages = (await library.call("GET", f"/v1/documents/{first['id']}"))["chunks"]
    assert library.pages >= PARAGRAPHS
    order = list(KILLS)
    rng.shuffle(order)
    async with asyncio.TaskGroup() as group:
        for writer in range(1, WRITERS + 1):
            group.create_task(library.write(writer))
        for _ in range(READERS):
            group.create_task(library.read())
        for target in order:
            await library.more(rng.randint(2, 7))
            if target == "indexer":
                await kill_indexer(knowing, store)
            else:
                await kill(knowing, target)
            await library.more(1)
        library.closing = True
    await _nothing_is_missing(library)
    assert library.searched > len(order)
    # The next generation that is built has all of it, too.
    collection = await collection_of(store)
    made = (await answered(lambda: store.operate("reindex", collection)))["generation"]
    before = (await answered(lambda: store.operate("switch", collection, made)))["before"]
    await _nothing_is_missing(library)
    await answered(lambda: store.operate("switch", collection, before))
    await answered(lambda: store.operate("discard", collection, made))


async def _nothing_is_missing(library: Library) -> None:
    for name, version in library.promised.items():

        async def is_found(name: str = name, version: int = version) -> bool:
            found = await library.search(name)
            if found is None or not found:
                return False
            assert library.is_whole(found), f"{name} is found by half: {sorted(found)}"
            return {said for _, said in found} == {f"edition{version}"}

        assert await eventually(is_found), f"{name} was promised in edition {version}"
    async with library.knowing.session() as http:
        for memory, name in library.memories.items():
            async with http.get(f"/v1/memories/{memory}/explain?question=what does keeper {name} prefer") as response:
                shown = await response.json()
                assert (response.status, shown["recall"]["recalled"]) == (200, True), shown


async def test_while_the_vector_store_hangs_answers_come_and_everybody_says_what_they_lack(knowing: Knowing):
    async with knowing.session() as http:

        async def call(method: str, url: str, body: Any = None, status: int = 200) -> Any:
            async with http.request(method, url, json=body) as response:
                assert response.status == status, f"{method} {url}: {response.status} {await response.text()}"
                return await response.json(), response.headers

        memory, _ = await call("POST", "/v1/memories", {"text": "Zed minds the foghorn.", "path": "hung"}, 201)
        below = descendants(knowing.platform.process.pid).items()
        owner = next(pid for pid, command in below if TARGETS["owner"] in command)
        os.kill(owner, signal.SIGSTOP)
        try:
            refusal, headers = await call("POST", "/v1/search", {"query": "foghorn", "mode": "words"}, 503)
            assert refusal["error"]["code"] == "vector_store_unavailable"
            assert int(headers["retry-after"]) >= 1
            asked = [{"role": "user", "content": "Who minds the foghorn of the harbour?"}]
            options = {"memory": "hung", "cache": "off"}
            body = {"model": "sim", "messages": asked, "collegium": options}
            told, _ = await call("POST", "/v1/chat/completions", body)
            assert told["collegium"]["memory"]["state"] in ("words", "unavailable")
            if told["collegium"]["memory"]["state"] == "words":
                assert told["collegium"]["memory"]["recalled"] == [memory["id"]]
            body = {"model": "sim", "messages": asked, "collegium": {"cache": "use"}}
            _, headers = await call("POST", "/v1/chat/completions", body)
            assert headers["x-collegium-cache"] == "miss"
            assert headers["x-collegium-cache-degraded"] in ("vector_store_unavailable", "context_unavailable")
            made, _ = await call("PUT", "/v1/documents/foghorn", {"content": "A foghorn sounds."}, 202)
            assert made["state"] == "accepted"
        finally:
            os.kill(owner, signal.SIGCONT)

        async def found() -> bool:
            async with http.post("/v1/search", json={"query": "foghorn"}) as response:
                return response.status == 200 and "foghorn" in await response.text()

        await eventually(found)
