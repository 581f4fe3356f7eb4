"""Memory through the whole platform, with two tenants: kept, recalled, corrected, forgotten, and told to models."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import msgspec
import pytest
from collegium_testing import Behaviour, ModelSimulator, Rule, eventually
from collegium_testing.platforms import PlatformProcess

from tests.journeys.town import KEYS

pytestmark = pytest.mark.timeout(240)
CANARY = "memory-canary-93b1"


@pytest.fixture(scope="module")
def platform(town: PlatformProcess) -> PlatformProcess:
    return town


@pytest.fixture(autouse=True)
def _quiet(simulator: ModelSimulator) -> None:
    simulator.script()
    simulator.reset()


class Client:
    """One tenant's view of the doors of memory."""

    def __init__(self, platform: PlatformProcess, tenant: str = "recalls") -> None:
        self._http = aiohttp.ClientSession(platform.http, headers={"Authorization": f"Bearer {KEYS[tenant]}"})

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._http.close()

    async def call(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        async with self._http.request(method, path, json=body) as response:
            text = await response.text()
            assert response.status == status, f"{method} {path}: {response.status} {text}"
            return msgspec.json.decode(text)

    async def remember(self, text: str, path: str, *, status: int = 201, **more: Any) -> dict[str, Any]:
        return await self.call("POST", "/v1/memories", {"text": text, "path": path, **more}, status=status)

    async def recall(self, question: str, path: str, **more: Any) -> list[str]:
        body = {"question": question, "path": path, **more}
        return [one["text"] for one in (await self.call("POST", "/v1/memories/recall", body))["data"]]

    async def chat(self, text: str, *, model: str = "sim", **options: Any) -> dict[str, Any]:
        body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 64}
        return await self.call("POST", "/v1/chat/completions", {**body, "collegium": {"cache": "off", **options}})


def sent(simulator: ModelSimulator) -> list[Any]:
    """The messages that the model got last."""
    return list(simulator.counts().requests[-1].messages)


async def test_what_is_remembered_is_recalled_by_meaning_and_by_words_and_by_its_tenant_alone(platform):
    async with Client(platform) as acme, Client(platform, "apart") as globex:
        made = await acme.remember(
            "Ada prefers trains to aeroplanes.", "web/ada", source={"task_id": "t1", "user": "ada"}
        )
        assert (made["state"], made["path"], made["source"]["user"]) == ("current", "web/ada", "ada")
        assert made["source"]["key_id"] == KEYS["recalls"].split("-")[2]
        await acme.remember("The office closes at six in the evening.", "web")
        await globex.remember(f"{CANARY} prefers trains too.", "web/ada")

        async def by_meaning() -> bool:
            return (await acme.recall("does she like to fly in planes?", "web/ada"))[:1] == [made["text"]]

        # The embedder may be starting still; until it is there, words are all there is.
        await eventually(by_meaning)
        assert (await acme.recall("aeroplanes", "web/ada/helper"))[:1] == [made["text"]], "what lies above is inherited"
        assert made["text"] not in await acme.recall("aeroplanes", "web/bob")
        assert made["text"] not in await acme.recall("aeroplanes", "web/ada/helper", inherits=False)
        for path in ("/", "web", "web/ada"):
            assert not [text for text in await acme.recall("trains", path, limit=50) if CANARY in text]
        await globex.call("GET", f"/v1/memories/{made['id']}", status=404)
        await globex.call("POST", f"/v1/memories/{made['id']}/correct", {"text": "no"}, status=404)
        await globex.call("DELETE", f"/v1/memories/{made['id']}", status=404)
        await globex.call("DELETE", "/v1/memories?path=/")
        assert (await acme.recall("aeroplanes", "web/ada"))[:1] == [made["text"]]


async def test_the_same_said_twice_is_known_and_nearly_the_same_is_linked(platform):
    async with Client(platform) as acme:
        first = await acme.remember("The invoice address is 12 Long Street.", "dup/one")
        again = await acme.remember("  The invoice address is\n12 Long Street. ", "dup/one", status=200)
        assert (again["id"], again["refreshes"]) == (first["id"], 1)
        other = await acme.remember("The invoice address is 12 Long Street.", "dup/two")
        assert other["id"] != first["id"], "another path is another memory"
        near = await acme.remember("The invoice address is 12 Long Street!", "dup/one")

        async def linked() -> bool:
            similar = (await acme.call("GET", f"/v1/memories/{near['id']}"))["similar_to"]
            return similar is not None and similar["id"] == first["id"] and similar["similarity"] >= 0.95

        await eventually(linked)
        assert len(await acme.recall("invoice address", "dup/one")) == 2, "both are kept"


async def test_a_correction_holds_from_its_time_on_and_what_was_is_found_by_both_times(platform):
    async with Client(platform) as acme:
        old = await acme.remember("Grace lives in Boston.", "bi/grace", valid_from="2020-01-01T00:00:00Z")
        new = await acme.call(
            "POST",
            f"/v1/memories/{old['id']}/correct",
            {"text": "Grace lives in Lisbon.", "valid_from": "2024-06-01T00:00:00Z"},
        )
        assert new["supersedes"] == old["id"]
        assert await acme.recall("where does Grace live", "bi/grace") == ["Grace lives in Lisbon."]
        at = {"as_of": "2022-01-01T00:00:00Z"}
        assert await acme.recall("where does Grace live", "bi/grace", **at) == ["Grace lives in Boston."]
        assert await acme.recall("where does Grace live", "bi/grace", as_of="2019-01-01T00:00:00Z") == []
        known = {"known_at": old["recorded_at"]}
        assert await acme.recall("where does Grace live", "bi/grace", **known) == ["Grace lives in Boston."]
        shown = await acme.call("GET", f"/v1/memories/{new['id']}")
        assert [(one["cause"], one["state"]) for one in shown["versions"]] == [
            ("remembered", "superseded"),
            ("kept", "not_now"),
            ("corrected", "current"),
        ]
        whole = await acme.call(
            "POST",
            f"/v1/memories/{new['id']}/correct",
            {"text": "Grace lives in Porto.", "valid_from": "2020-01-01T00:00:00Z"},
        )
        assert whole["valid_to"] == "2024-06-01T00:00:00.000Z", "it holds as long as what it corrects"


async def test_what_is_forgotten_is_destroyed_and_leaves_a_mark(platform):
    async with Client(platform) as acme:
        made = await acme.remember(f"The door code is {CANARY}.", "gone/ada")
        fixed = await acme.call("POST", f"/v1/memories/{made['id']}/correct", {"text": f"It is not {CANARY}."})
        await acme.remember(f"Another {CANARY}.", "gone/bob")
        await acme.remember("stays", "gone-not")
        gone = await acme.call("DELETE", f"/v1/memories/{fixed['id']}")
        assert gone["deleted"]
        shown = await acme.call("GET", f"/v1/memories/{made['id']}")
        assert (shown["state"], shown["text"]) == ("forgotten", None)
        assert all(one["text"] is None for one in shown["versions"])
        assert await acme.recall(f"door code {CANARY}", "gone/ada") == []
        assert (await acme.call("DELETE", "/v1/memories?path=gone"))["versions"] == 1
        assert await acme.recall(CANARY, "gone/bob") == []
        assert await acme.recall("stays", "gone-not") == ["stays"]
        listed = await acme.call("GET", "/v1/memories?path=gone&forgotten=true")
        assert {one["state"] for one in listed["data"]} == {"forgotten"}
        assert (await acme.call("GET", "/v1/memories?path=gone"))["data"] == []
        await acme.call("DELETE", "/v1/memories", status=400)


async def test_one_path_reads_another_by_a_grant_and_never_writes_there(platform):
    async with Client(platform) as acme:
        made = await acme.remember("The launch is planned for spring.", "plans/secret")
        assert await acme.recall("when is the launch", "web/eve") == []
        grant = await acme.call("POST", "/v1/memories/grants", {"reader": "web/eve", "source": "plans"}, status=201)
        again = await acme.call("POST", "/v1/memories/grants", {"reader": "/web/eve/", "source": "plans"})
        assert again["id"] == grant["id"]
        assert await acme.recall("when is the launch", "web/eve/helper") == [made["text"]]
        assert await acme.recall("when is the launch", "web/bob") == []
        why = await acme.call("GET", f"/v1/memories/{made['id']}/explain?question=launch&path=web/eve")
        assert why["recall"]["recalled"]
        assert why["recall"]["signals"]["words_rank"] == 1
        assert grant["id"] in [one["id"] for one in (await acme.call("GET", "/v1/memories/grants"))["data"]]
        await acme.call("DELETE", f"/v1/memories/grants/{grant['id']}")
        await acme.call("DELETE", f"/v1/memories/grants/{grant['id']}", status=404)
        assert await acme.recall("when is the launch", "web/eve") == []
        why = await acme.call("GET", f"/v1/memories/{made['id']}/explain?question=launch&path=web/eve")
        assert why["recall"] == {
            "path": "web/eve", "recalled": False, "reason": "its path is not seen from there", "degraded": [],
        }  # fmt: skip


async def test_a_path_that_is_off_stores_and_recalls_nothing(platform, simulator):
    async with Client(platform) as acme:
        await acme.remember("The wifi is called pelican.", "quiet/dan")
        await acme.call("PUT", "/v1/memories/paths", {"path": "quiet/dan", "off": True})
        await acme.remember("no", "quiet/dan/helper", status=409)
        assert await acme.recall("wifi pelican", "quiet/dan") == []
        answer = await acme.chat("what is the wifi called?", memory="quiet/dan")
        assert answer["collegium"]["memory"] == {"path": "quiet/dan", "state": "off", "recalled": []}
        assert len(sent(simulator)) == 1
        await acme.call("PUT", "/v1/memories/paths", {"path": "quiet/dan", "off": False, "inherits": False})
        assert await acme.recall("wifi pelican", "quiet/dan") == ["The wifi is called pelican."]
        listed = (await acme.call("GET", "/v1/memories/paths"))["data"]
        assert {"path": "quiet/dan", "off": False, "inherits": False} in listed


async def test_a_model_is_told_what_memory_holds_and_the_answer_says_so(platform, simulator):
    async with Client(platform) as acme, Client(platform, "apart") as globex:
        made = await acme.remember("Bob is allergic to peanuts.", "food/bob")
        await acme.remember("The moon orbits the earth.", "food/bob")

        async def told() -> dict[str, Any] | None:
            answer = await acme.chat("May Bob eat peanuts?", memory="food/bob/cook")
            return answer["collegium"] if answer["collegium"]["memory"]["state"] == "recalled" else None

        about = await eventually(told)
        assert about["memory"] == {"path": "food/bob/cook", "state": "recalled", "recalled": [made["id"]]}
        first, last = sent(simulator)
        assert (first.role, last.content) == ("system", "May Bob eat peanuts?")
        assert made["text"] in first.content
        assert "moon" not in first.content, "what has nothing to do with the question is not told"
        why = await acme.call("GET", f"/v1/memories/{made['id']}/explain?task={about['task_id']}")
        assert (why["task"]["told"], why["task"]["rank"]) == (True, 1)

        async def in_task() -> bool:
            shown = await acme.call("GET", f"/v1/tasks/{about['task_id']}")
            return shown["collegium"]["memory"]["recalled"] == [made["id"]]

        await eventually(in_task)
        await acme.chat("May Bob eat peanuts?")
        assert len(sent(simulator)) == 1, "nobody asked for memory"
        answer = await globex.chat("May Bob eat peanuts?", memory="food/bob/cook")
        assert answer["collegium"]["memory"]["recalled"] == []
        assert len(sent(simulator)) == 1


async def test_notes_join_the_clients_own_instructions(platform, simulator):
    async with Client(platform) as acme:
        made = await acme.remember("Carol speaks Portuguese.", "lang/carol")
        messages = [
            {"role": "system", "content": "Answer briefly."},
            {"role": "user", "content": "Which language does Carol speak?"},
        ]
        body = {"model": "sim", "messages": messages, "collegium": {"memory": "lang/carol", "cache": "off"}}
        await acme.call("POST", "/v1/chat/completions", body)
        first, last = sent(simulator)
        assert (first.role, last.role) == ("system", "user")
        assert first.content.startswith("Answer briefly.")
        assert made["text"] in first.content


async def test_notes_take_no_more_than_a_tiny_window_leaves_beside_the_clients_words(platform, simulator):
    async with Client(platform) as acme:
        for number in range(6):
            await acme.remember(f"Parcel {number} is stored {'far ' * 30}behind door {number}.", "tiny")
        for question in ("Where is parcel 3?", f"Where is parcel 3? {'Take your time. ' * 30}", "parcel " * 105):
            answer = await acme.chat(question, model="tiny", memory="tiny")
            assert sent(simulator)[-1].content == question, "the client's own words are whole"
            size = sum(len(one.content) for one in sent(simulator))
            assert size <= (320 - 64) * 3, "with the notes it fits the window at three bytes a token"
            told = answer["collegium"]["memory"]["recalled"]
            assert len(told) == sum(one.content.count("- Parcel") for one in sent(simulator)[:-1])
            assert len(told) < 6
        assert not told, "where the client's words fill the window nothing is added"
        assert len((await acme.chat("Where is parcel 3?", memory="tiny"))["collegium"]["memory"]["recalled"]) == 6


@pytest.mark.parametrize("path", ["a//b", "a b", "../x", "a/" * 9])
async def test_a_path_that_is_none_is_refused_at_the_door(platform, path):
    async with Client(platform) as acme:
        body = {"model": "sim", "messages": [{"role": "user", "content": "hi"}], "collegium": {"memory": path}}
        refused = await acme.call("POST", "/v1/chat/completions", body, status=400)
        assert (refused["error"]["code"], refused["error"]["param"]) == ("invalid_value", "memory")
        refused = await acme.call("POST", "/v1/memories", {"text": "x", "path": path}, status=400)
        assert refused["error"]["param"] == "path"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"text": ""}, "text"),
        ({"text": "x" * 9_000}, "text"),
        ({"text": "x", "kind": "k" * 65}, "kind"),
        ({"text": "x", "valid_from": "soon"}, "valid_from"),
        ({"text": "x", "valid_from": "2024-01-02T00:00:00Z", "valid_to": "2024-01-01T00:00:00Z"}, "valid_to"),
        ({"text": "x", "source": {"user": "u" * 257}}, "source"),
        ({"text": "x", "tenant": "globex"}, None),
    ],
)
async def test_what_no_memory_can_be_is_refused(platform, body, param):
    async with Client(platform) as acme:
        refused = await acme.call("POST", "/v1/memories", {"path": "bad", **body}, status=400)
        assert refused["error"]["code"] == "invalid_value"
        assert param is None or refused["error"]["param"] == param


async def test_a_shared_context_is_stored_by_version_and_shows_what_stands(platform):
    async with Client(platform) as acme, Client(platform, "apart") as globex:
        url = "/v1/contexts/plan.1"
        made = await acme.call("PUT", url, {"fields": {"step": 1, "who": "ada"}, "expected_version": 0}, status=201)
        assert (made["version"], made["fields"]) == (1, {"step": 1, "who": "ada"})
        refused = await acme.call("PUT", url, {"fields": {"step": 9}, "expected_version": 0}, status=409)
        assert refused["error"]["code"] == "version_conflict"
        assert (refused["current"]["version"], refused["current"]["fields"]["step"]) == (1, 1)
        merged = await acme.call("PATCH", url, {"fields": {"step": 2, "who": None}, "expected_version": 1})
        assert (merged["version"], merged["fields"]) == (2, {"step": 2})
        assert (await acme.call("GET", url))["fields"] == {"step": 2}
        assert (await acme.call("GET", f"{url}?version=1"))["fields"] == {"step": 1, "who": "ada"}
        assert [one["version"] for one in (await acme.call("GET", f"{url}/versions"))["data"]] == [2, 1]
        await globex.call("GET", url, status=404)
        await globex.call("PUT", url, {"fields": {}, "expected_version": 2}, status=409)
        assert [one["id"] for one in (await globex.call("GET", "/v1/contexts"))["data"]] == []
        assert [one["id"] for one in (await acme.call("GET", "/v1/contexts"))["data"]] == ["plan.1"]
        await acme.call("DELETE", f"{url}?expected_version=1", status=409)
        await acme.call("DELETE", f"{url}?expected_version=2")
        await acme.call("GET", url, status=404)
        await acme.call("GET", f"{url}?version=1", status=404)
        again = await acme.call("PUT", url, {"fields": {"step": 5}, "expected_version": 0})
        assert again["version"] == 4, "versions count on, so that none ever means two documents"
        await acme.call("PUT", url, {"fields": {"x": "y" * 300_000}}, status=413)


async def test_of_many_who_write_one_version_one_wins(platform):
    async with Client(platform) as acme:
        url = "/v1/contexts/race"
        await acme.call("PUT", url, {"fields": {"n": 0}, "expected_version": 0}, status=201)

        async def write(number: int) -> bool:
            body = {"fields": {"n": number}, "expected_version": 1}
            async with acme._http.put(url, json=body) as response:
                assert response.status in (200, 409)
                return response.status == 200

        won = await asyncio.gather(*(write(number) for number in range(1, 13)))
        assert sum(won) == 1
        stands = await acme.call("GET", url)
        assert (stands["version"], stands["fields"]["n"]) == (2, won.index(True) + 1)


async def test_a_conversation_is_listed_read_and_forgotten(platform, simulator):
    async with Client(platform) as acme, Client(platform, "apart") as globex:
        for text in ("My dog is Bruno.", "He is three."):
            last = await acme.chat(text, conversation="talk-1")
        listed = (await acme.call("GET", "/v1/conversations"))["data"]
        assert [(one["id"], one["turns"], one["messages"]) for one in listed if one["id"] == "talk-1"] == [
            ("talk-1", 2, 4)
        ]
        read = await acme.call("GET", "/v1/conversations/talk-1")
        assert [turn["messages"][0]["content"] for turn in read["data"]] == ["He is three.", "My dog is Bruno."]
        await globex.call("GET", "/v1/conversations/talk-1", status=404)
        await globex.call("DELETE", "/v1/conversations/talk-1", status=404)
        task = last["collegium"]["task_id"]
        assert (await acme.call("DELETE", f"/v1/conversations/talk-1/turns/{task}"))["turns"] == 1
        await acme.chat("Who is my dog?", conversation="talk-1")
        assert sent(simulator)[0].content == "My dog is Bruno."
        assert "He is three." not in [one.content for one in sent(simulator)]
        assert (await acme.call("DELETE", "/v1/conversations/talk-1"))["turns"] == 2
        await acme.call("GET", "/v1/conversations/talk-1", status=404)
        await acme.chat("Who is my dog?", conversation="talk-1")
        assert len(sent(simulator)) == 1


async def test_memory_off_reads_a_conversation_and_leaves_nothing_in_it(platform, simulator):
    async with Client(platform) as acme:
        await acme.chat("My dog is Bruno.", conversation="talk-2")
        answer = await acme.chat("My pin is 1234.", conversation="talk-2", memory="off")
        assert answer["collegium"]["memory"]["state"] == "off"
        assert len(sent(simulator)) == 3
        read = await acme.call("GET", "/v1/conversations/talk-2")
        assert len(read["data"]) == 1


async def test_a_short_window_gets_a_summary_of_what_does_not_fit_until_it_is_forgotten(platform, simulator):
    simulator.script(Rule(Behaviour(answer="Noted.")))
    filler = " ".join(f"This is sentence {number} of a long story without end." for number in range(60))
    async with Client(platform) as acme:
        first = await acme.chat(f"My passport number is X-7781. {filler}", model="short", conversation="long")
        for _ in range(3):
            await acme.chat(f"Go on. {filler}", model="short", conversation="long")

        async def summarised() -> bool:
            await acme.chat("What was my passport number?", model="short", conversation="long", memory="off")
            told = sent(simulator)
            return told[0].role == "system" and "X-7781" in told[0].content

        await eventually(summarised, every_seconds=0.5)
        assert "incomplete extract" in sent(simulator)[0].content
        size = sum(len(one.content) for one in sent(simulator))
        assert size < 4096 * 3, "it fits the window"
        await acme.call("DELETE", f"/v1/conversations/long/turns/{first['collegium']['task_id']}")
        await acme.chat("What was my passport number?", model="short", conversation="long", memory="off")
        assert not [one for one in sent(simulator) if "X-7781" in one.content]
        await acme.chat("What was my passport number?", model="sim", conversation="long", memory="off")
        assert sent(simulator)[0].role == "user", "a window that is long enough gets the turns"


async def test_an_erased_tenant_leaves_nothing_in_memory(platform):
    runtime: dict[str, Any] = msgspec.json.decode((platform.folder / "runtime.json").read_bytes())
    async with Client(platform, "leaving") as leaving:
        made = await leaving.remember(f"{CANARY} leaves", "web/ada")
        await leaving.call("POST", f"/v1/memories/{made['id']}/correct", {"text": f"{CANARY} has left"})
        await leaving.call("PUT", "/v1/contexts/one", {"fields": {"x": CANARY}}, status=201)
        await leaving.call("POST", "/v1/memories/grants", {"reader": "a", "source": "b"}, status=201)
        await leaving.call("PUT", "/v1/memories/paths", {"path": "a", "inherits": False})
        await leaving.chat(f"{CANARY}?", conversation="c", memory="web/ada")
    key = Path(platform.ready["admin_key_file"]).read_text().strip()  # noqa: ASYNC240 - a test's own file
    tables = ("memories", "shared", "memory_grants", "memory_paths", "recalls", "turns", "forgotten_turns")
    async with aiohttp.ClientSession(platform.http, headers={"Authorization": f"Bearer {key}"}) as operator:
        async with operator.post("/v1/admin/tenants/leaving/erasure", json={"confirm": "leaving"}) as response:
            assert response.status in (200, 202), await response.text()
        database = await asyncpg.connect(runtime["database"])
        try:

            async def erased() -> bool:
                left = [
                    await database.fetchval(f"SELECT count(*) FROM context.{table} WHERE tenant = 'leaving'")
                    for table in tables
                ]
                return not any(left)

            await eventually(erased)
        finally:
            await database.close()
