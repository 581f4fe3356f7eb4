"""Memory of two projects of one tenant, over both doors: whose keys reach what, and what a grant opens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest
from collegium_protocol.v1 import memory_pb2 as pb
from collegium_protocol.v1.memory_pb2_grpc import MemoriesStub
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from tests.journeys.conftest import Knowing

pytestmark = pytest.mark.timeout(240)
Metadata = tuple[tuple[str, str], ...]


class Client:
    """One key's view of HTTP."""

    def __init__(self, knowing: Knowing, name: str) -> None:
        self._http = knowing.session(name)

    async def close(self) -> None:
        await self._http.close()

    async def call(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        async with self._http.request(method, path, json=body) as response:
            text = await response.text()
            assert response.status == status, f"{method} {path}: {response.status} {text}"
            return msgspec.json.decode(text)

    async def remember(self, text: str, path: str | None = None, *, status: int = 201) -> Any:
        where = {} if path is None else {"path": path}
        return await self.call("POST", "/v1/memories", {"text": text, **where}, status=status)

    async def recall(self, question: str, path: str | None = None, *, status: int = 200) -> Any:
        where = {} if path is None else {"path": path}
        answer = await self.call("POST", "/v1/memories/recall", {"question": question, **where}, status=status)
        return [one["text"] for one in answer["data"]] if status == 200 else answer["error"]["code"]

    async def listed(self, path: str = "") -> list[str]:
        query = f"?path={path}" if path else ""
        return [one["text"] for one in (await self.call("GET", f"/v1/memories{query}"))["data"]]


@pytest.fixture
async def clients(knowing: Knowing) -> AsyncIterator[dict[str, Client]]:
    made = {name: Client(knowing, name) for name in knowing.keys}
    yield made
    for one in made.values():
        await one.close()


@pytest.fixture
async def stub(knowing: Knowing) -> AsyncIterator[MemoriesStub]:
    async with grpc.aio.insecure_channel(knowing.platform.ready["grpc"]) as channel:
        yield MemoriesStub(channel)


@pytest.fixture
def of(knowing: Knowing) -> Callable[..., Metadata]:
    """The metadata of a call with a key."""
    return lambda name, **more: (("authorization", f"Bearer {knowing.keys[name]}"), *more.items())


async def refused(call: Any) -> tuple[grpc.StatusCode, str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    trailing = dict(raised.value.trailing_metadata() or ())
    info = ErrorInfo()
    assert Status.FromString(trailing["grpc-status-details-bin"]).details[0].Unpack(info)  # pyright: ignore[reportArgumentType]
    return raised.value.code(), info.reason, info.metadata["param"]


async def test_a_key_of_a_project_reaches_the_memories_of_its_project_alone(clients, knowing):
    red, blue, acme, chief = (clients[name] for name in ("red", "blue", "acme", "chief"))
    own = await red.remember("The red engine is diesel.")
    assert own["path"] == "red", "without a path it is the project's"
    deeper = await red.remember("The red wheels are wood.", "red/ada")
    theirs = await blue.remember("The blue engine is steam.", "blue/secret")
    everybody = await acme.remember("The engine hall opens at eight.", "/")
    free = await acme.remember("The garden engine is silent.", "garden")

    for path in ("blue", "blue/secret", "garden", "redder"):
        assert await red.recall("engine", path, status=403) == "insufficient_scope"
        refusal = await red.remember("no", path, status=403)
        assert (refusal["error"]["code"], refusal["error"]["param"]) == ("insufficient_scope", "path")
        await red.call("GET", f"/v1/memories?path={path}", status=403)
        await red.call("DELETE", f"/v1/memories?path={path}", status=403)
        await red.call("PUT", "/v1/memories/paths", {"path": path, "off": True}, status=403)
        body = {"model": "sim", "messages": [{"role": "user", "content": "engine?"}], "collegium": {"memory": path}}
        refusal = await red.call("POST", "/v1/chat/completions", body, status=403)
        assert refusal["error"]["param"] == "memory"
        task = {"model": "sim", "input": "engine?", "memory": path}
        await red.call("POST", "/v1/tasks", task, status=403)
    for foreign in (theirs, free):
        url = f"/v1/memories/{foreign['id']}"
        await red.call("GET", url, status=404)
        await red.call("GET", f"{url}/explain?question=engine", status=404)
        await red.call("POST", f"{url}/correct", {"text": "no"}, status=404)
        await red.call("DELETE", url, status=404)
    # What is the tenant's itself is read, and not written.
    assert everybody["text"] in await red.recall("when does the engine hall open", "red/ada")
    await red.call("GET", f"/v1/memories/{everybody['id']}")
    await red.call("DELETE", f"/v1/memories/{everybody['id']}", status=404)
    for method, url, body in (
        ("POST", "/v1/memories", {"text": "no", "path": "/"}),
        ("GET", "/v1/memories?path=/", None),
        ("DELETE", "/v1/memories?path=/", None),
        ("PUT", "/v1/memories/paths", {"path": "/", "off": True}),
    ):
        await red.call(method, url, body, status=403)
    # Who is of no project reaches what is of none.
    texts = {one["text"] for one in (own, deeper, theirs, everybody, free)}
    assert set(await acme.listed("/")) & texts == {everybody["text"], free["text"]}
    await acme.call("GET", f"/v1/memories/{own['id']}", status=404)
    assert await acme.recall("engine", "red", status=403) == "insufficient_scope"
    await acme.call("PUT", "/v1/memories/paths", {"path": "/", "off": True}, status=403)
    # Other journeys of this platform remember there too: all that is listed goes, and nothing of a project.
    there = await acme.listed("/")
    assert (await acme.call("DELETE", "/v1/memories?path=/"))["versions"] >= len(there) >= 2
    assert await acme.listed("/") == []
    assert await red.listed() == [deeper["text"], own["text"]]
    # Who administrates reaches all.
    assert set(await chief.listed("/")) & texts == {own["text"], deeper["text"], theirs["text"]}
    assert theirs["text"] in await blue.recall("engine", "blue/secret")
    assert knowing.simulator.counts().requests == [], "nobody was asked"


async def test_a_grant_across_projects_opens_reading_and_is_given_by_who_administrates(clients):
    red, blue, chief = (clients[name] for name in ("red", "blue", "chief"))
    shared = await blue.remember("Spare boilers stand in hall nine.", "blue/stock")
    hidden = await blue.remember("The boiler recipe is secret.", "blue/recipes")
    wanted = {"reader": "red", "source": "blue/stock"}
    for client in (red, blue):
        refusal = await client.call("POST", "/v1/memories/grants", wanted, status=403)
        assert refusal["error"]["code"] == "insufficient_scope"
    assert shared["text"] not in await red.recall("boilers")
    grant = await chief.call("POST", "/v1/memories/grants", wanted, status=201)
    told = await red.recall("boilers in the hall, and their recipe", "red/ada")
    assert shared["text"] in told
    assert hidden["text"] not in told
    await red.call("GET", f"/v1/memories/{shared['id']}")
    await red.call("GET", f"/v1/memories/{hidden['id']}", status=404)
    await red.call("DELETE", f"/v1/memories/{shared['id']}", status=404)
    own = await red.call("POST", "/v1/memories/grants", {"reader": "red/a", "source": "red/b"}, status=201)
    for client, ids in ((red, {grant["id"], own["id"]}), (blue, {grant["id"]})):
        assert {one["id"] for one in (await client.call("GET", "/v1/memories/grants"))["data"]} == ids
    await blue.call("DELETE", f"/v1/memories/grants/{own['id']}", status=404)
    await blue.call("DELETE", f"/v1/memories/grants/{grant['id']}")
    assert shared["text"] not in await red.recall("boilers")
    await red.call("GET", f"/v1/memories/{shared['id']}", status=404)


async def test_memories_over_grpc_are_those_over_http(clients, stub, of, knowing):
    red = clients["red"]
    since = Timestamp()
    since.FromJsonString("2020-01-01T00:00:00Z")
    asked = pb.RememberRequest(
        text="The signal box is green.", kind="fact", valid_from=since, source=pb.MemorySource(user="ada")
    )
    made = await stub.Remember(asked, metadata=of("red"))
    http = await red.call("GET", f"/v1/memories/{made.id}")
    assert (made.path, made.text, made.kind, made.state) == ("red", http["text"], "fact", "current")
    assert made.valid_from == since
    assert (made.source.user, made.source.key_id) == ("ada", knowing.keys["red"].split("-")[2])
    assert not made.HasField("valid_to")
    assert (await stub.Remember(asked, metadata=of("red"))).refreshes == 1

    found = await stub.Recall(pb.RecallRequest(question="which colour is the signal box"), metadata=of("red"))
    assert (found.path, [one.id for one in found.data]) == ("red", [made.id])
    assert found.data[0].signals.score > 0

    fixed = pb.CorrectRequest(id=made.id, text="The signal box is grey.")
    once = await stub.Correct(fixed, metadata=of("red", **{"idempotency-key": "repaint"}))
    again = await stub.Correct(fixed, metadata=of("red", **{"idempotency-key": "repaint"}))
    assert (once.id, once.supersedes) == (again.id, made.id)
    why = await stub.Explain(pb.ExplainRequest(id=once.id, question="signal box"), metadata=of("red"))
    assert (why.memory.text, why.recall.recalled, why.recall.rank) == ("The signal box is grey.", True, 1)
    assert {one.text for one in why.versions} == {"The signal box is green.", "The signal box is grey."}
    assert not why.HasField("task")
    listed = await stub.List(pb.ListMemoriesRequest(limit=1), metadata=of("red"))
    assert len(listed.data) == 1
    more = await stub.List(pb.ListMemoriesRequest(path="red", cursor=listed.next_cursor), metadata=of("red"))
    assert once.id in {one.id for one in (*listed.data, *more.data)}
    gone = await stub.Forget(pb.ForgetRequest(id=once.id), metadata=of("red"))
    assert (gone.id, gone.deleted, gone.versions) == (once.id, True, 3)
    shown = await stub.Explain(pb.ExplainRequest(id=made.id), metadata=of("red"))
    assert (shown.memory.state, shown.memory.HasField("text")) == ("forgotten", False)


async def test_what_http_refuses_of_memories_grpc_refuses_with_the_same_words(clients, stub, of):
    blue = (await clients["blue"].remember("The depot is full.", "blue"))["id"]
    own = (await clients["red"].remember("The depot is empty.", "red"))["id"]
    missing, forbidden = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    cases: list[tuple[Any, Message, tuple[grpc.StatusCode, str, str]]] = [
        (stub.Explain, pb.ExplainRequest(id=blue), (missing, "not_found", "id")),
        (stub.Forget, pb.ForgetRequest(id=blue), (missing, "not_found", "id")),
        (stub.Correct, pb.CorrectRequest(id=blue, text="x"), (missing, "not_found", "id")),
        (stub.Recall, pb.RecallRequest(question="x", path="blue"), (forbidden, "insufficient_scope", "path")),
        (stub.Remember, pb.RememberRequest(text="x", path="blue"), (forbidden, "insufficient_scope", "path")),
        (stub.List, pb.ListMemoriesRequest(path="/"), (forbidden, "insufficient_scope", "path")),
        (stub.Remember, pb.RememberRequest(), (invalid, "invalid_value", "text")),
        (stub.Remember, pb.RememberRequest(text="x", path="red//x"), (invalid, "invalid_value", "path")),
        (
            stub.Remember,
            pb.RememberRequest(text="x", valid_to=Timestamp(seconds=10**15)),
            (invalid, "invalid_value", ""),
        ),
        (stub.Recall, pb.RecallRequest(question="x", limit=51), (invalid, "invalid_value", "limit")),
        (stub.Forget, pb.ForgetRequest(), (invalid, "invalid_value", "path")),
        (stub.Forget, pb.ForgetRequest(id=own, path="red"), (invalid, "invalid_value", "path")),
        (stub.Correct, pb.CorrectRequest(text="x"), (invalid, "invalid_value", "id")),
    ]
    for method, request, expected in cases:
        status, code, param = await refused(method(request, metadata=of("red")))
        assert (status, code) == expected[:2], request
        assert param == expected[2] or code == "not_found", request
    assert (await refused(stub.Explain(pb.ExplainRequest(id=own), metadata=of("globex"))))[1] == "not_found"
    assert (await refused(stub.Recall(pb.RecallRequest(question="x"))))[0] is grpc.StatusCode.UNAUTHENTICATED


async def test_contexts_of_one_name_are_as_many_as_projects(clients):
    red, blue, acme, chief = (clients[name] for name in ("red", "blue", "acme", "chief"))
    url = "/v1/contexts/hand-over"
    for client, word in ((red, "rouge"), (blue, "azure"), (acme, "nobody's")):
        assert (await client.call("PUT", url, {"fields": {"said": word}}, status=201))["id"] == "hand-over"
    for client, word in ((red, "rouge"), (blue, "azure"), (acme, "nobody's")):
        assert (await client.call("GET", url))["fields"] == {"said": word}
        # Other journeys of this platform keep contexts of no project too.
        listed, cursor = [], ""
        while cursor is not None:
            page = await client.call("GET", f"/v1/contexts?limit=1&cursor={cursor}")
            listed += [one["id"] for one in page["data"]]
            cursor = page["next_cursor"]
        assert (listed.count("hand-over"), len(set(listed))) == (1, len(listed))
    for path in (url, f"{url}/versions", "/v1/contexts"):
        refusal = await red.call("GET", f"{path}?project=blue", status=403)
        assert (refusal["error"]["code"], refusal["error"]["param"]) == ("insufficient_scope", "project")
    refusal = await chief.call("GET", f"{url}?project=red/hand-over", status=400)
    assert refusal["error"]["param"] == "project"
    await chief.call("PATCH", f"{url}?project=red", {"fields": {"by": "chief"}, "expected_version": 1})
    assert (await red.call("GET", url))["fields"] == {"said": "rouge", "by": "chief"}
    await red.call("DELETE", url)
    await red.call("GET", url, status=404)
    assert (await blue.call("GET", url))["version"] == (await acme.call("GET", url))["version"] == 1
    for project in ("default", "blue"):
        await chief.call("DELETE", f"{url}?project={project}")


async def test_conversations_of_one_name_are_as_many_as_projects(clients, knowing):
    async def say(name: str, text: str) -> list[str]:
        """Asks as a key, and returns what the model was shown."""
        before = len(knowing.simulator.counts().requests)
        body = {"model": "sim", "messages": [{"role": "user", "content": text}], "collegium": {"conversation": "desk"}}
        await clients[name].call("POST", "/v1/chat/completions", body)
        (seen,) = knowing.simulator.counts().requests[before:]
        return [str(message.content) for message in seen.messages if message.role == "user"]

    assert await say("red", "The red word.") == ["The red word."]
    assert await say("blue", "The blue word.") == ["The blue word."]
    assert await say("acme", "A free word.") == ["A free word."]
    assert await say("red", "Again.") == ["The red word.", "Again."]
    for name, turns in (("red", 2), ("blue", 1), ("acme", 1)):
        listed = (await clients[name].call("GET", "/v1/conversations"))["data"]
        assert [one["turns"] for one in listed if one["id"] == "desk"] == [turns]
    await clients["red"].call("DELETE", "/v1/conversations/desk?project=blue", status=403)
    assert (await clients["chief"].call("DELETE", "/v1/conversations/desk?project=red"))["turns"] == 2
    await clients["red"].call("GET", "/v1/conversations/desk", status=404)
    for name in ("blue", "acme"):
        assert (await clients[name].call("DELETE", "/v1/conversations/desk"))["turns"] == 1
