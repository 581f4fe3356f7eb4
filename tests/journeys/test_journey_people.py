"""People asked about tasks on a running platform: before they begin, before their answers leave, and in their place."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import grpc.aio
import msgspec
import pytest
from collegium_cli.arguments import parser
from collegium_protocol.v1.chat_pb2 import ChatMessage, ChatRequest, Options
from collegium_protocol.v1.chat_pb2_grpc import ChatStub
from collegium_protocol.v1.tasks_pb2 import ProvideInputRequest, SubmitRequest, WatchRequest
from collegium_protocol.v1.tasks_pb2_grpc import TasksStub
from collegium_testing import ModelSimulator, eventually
from collegium_testing.platforms import PlatformProcess, configuration, make_key, running_platform
from collegium_testing.simulator import Behaviour, Rule
from collegium_testing.webhooks import WebhookReceiver

from tests.conftest import LoopThread

pytestmark = pytest.mark.timeout(240)

CHAT = "/v1/chat/completions"
APPROVALS = "/v1/admin/approvals"
PHRASE = "operation nightfall"
PEOPLE = {
    "queues": {
        "experts": {"labels": ["law"], "usd": "0.50", "claim": "5m"},
        "acme-staff": {"staff": "tenant", "tenants": ["acme"]},
    },
    "rules": [{"when": "unsure", "ask": "experts", "domains": ["escalated"], "below": 1.0}],
}
JUDGED = {"kind": "llm", "model": "little", "criteria": "It asks for no poem.", "everyone": False}
RULES = {
    "judged": JUDGED,
    "judged-answers": {**JUDGED, "at": ["answer"], "criteria": "It is no poem."},
    "judged-in-vain": {**JUDGED, "at": ["answer"], "timeout_seconds": 0.2, "required": False},
    "code-name": {
        "kind": "topics", "deny": [PHRASE], "at": ["request"], "action": "ask", "ask": "experts", "everyone": False,
    },
    "answer-names-it": {
        "kind": "topics", "deny": [PHRASE], "at": ["answer"], "action": "ask", "ask": "client", "everyone": False,
    },
}  # fmt: skip
SCHOOL = (("small", "student"), ("little", "student"), ("large", "teacher"))


class Asked:
    """A platform, its simulator, and keys: two tenants', acme's staff, and two reviewers of the operator."""

    def __init__(self, platform: PlatformProcess, sim: ModelSimulator, keys: dict[str, str]) -> None:
        self.platform = platform
        self.sim = sim
        self.keys = keys | {"operator": platform.admin_key}

    def session(self, who: str = "acme") -> aiohttp.ClientSession:
        return aiohttp.ClientSession(self.platform.http, headers={"Authorization": f"Bearer {self.keys[who]}"})

    async def call(
        self, method: str, path: str, body: Any = None, who: str = "acme", status: int = 200, **headers: str
    ) -> Any:
        async with self.session(who) as http, http.request(method, path, json=body, headers=headers) as response:
            answer = await response.json()
            assert response.status == status, answer
            return answer

    async def text(self, path: str, body: Any) -> str:
        async with self.session() as http, http.post(path, json=body) as response:
            return await response.text()

    async def submit(self, status: int = 202, who: str = "acme", **fields: Any) -> Any:
        body = {"model": "auto", "input": "Which is it?", "max_tokens": 8} | fields
        return await self.call("POST", "/v1/tasks", body, who, status)

    async def task(self, task_id: str, state: str, who: str = "acme") -> Any:
        """Waits until a task is in a state, and returns it."""

        async def there() -> Any:
            view = await self.call("GET", f"/v1/tasks/{task_id}", who=who)
            return view if view["state"] == state else None

        return await eventually(there)

    async def question(self, task_id: str, who: str = "expert") -> str:
        """Waits until a task's question is in the book, and returns its id."""

        async def there() -> str | None:
            rows = (await self.call("GET", f"{APPROVALS}?state=open&limit=200", who=who))["data"]
            return next((row["id"] for row in rows if row["task_id"] == task_id), None)

        return await eventually(there)

    def says(self, **by_model: str) -> None:
        self.sim.script(*(Rule(Behaviour(answer=text), model=name) for name, text in by_model.items()))

    @property
    def calls(self) -> int:
        return sum(count.started for count in self.sim.counts().models.values())


@pytest.fixture(scope="module")
def _asked(
    tmp_path_factory: pytest.TempPathFactory, simulator: ModelSimulator, loop_thread: LoopThread
) -> Iterator[Asked]:
    keys = {name: make_key(name) for name in ("acme", "globex", "staff", "other", "expert", "second")}
    config = configuration(simulator.base_url, tenants={name: keys[name] for name in ("acme", "globex")})
    config["models"] = [
        {
            "name": name,
            "base_url": simulator.base_url,
            "rank": rank,
            "timeout_seconds": 30,
            "limits": {"concurrency": 1 if name == "little" else 8},
            "price": {"input_usd_per_mtok": "1", "output_usd_per_mtok": "2"},
        }
        for name, rank in SCHOOL
    ]
    config |= {"people": PEOPLE, "gates": RULES, "webhooks": {"allow_private_addresses": True}}
    config["tenants"][0]["budget"] = {"usd": "1000", "window": "30d"}
    config["tenants"][0]["keys"] = [{"api_key": keys["staff"], "scopes": ["approvals"]}]
    config["tenants"][1]["keys"] = [{"api_key": keys["other"], "scopes": ["approvals"]}]
    reviewers = [{"api_key": keys[name], "scopes": ["approvals"]} for name in ("expert", "second")]
    config["tenants"].append({"id": "operator", "tier": "enterprise", "keys": reviewers})
    with running_platform(tmp_path_factory.mktemp("people") / "data", config) as platform:
        yield Asked(platform, simulator, keys)


@pytest.fixture
def asked(_asked: Asked) -> Asked:
    _asked.sim.script()
    _asked.sim.reset()
    return _asked


async def test_a_task_begins_when_its_client_has_agreed(asked: Asked):
    asked.says(large="It is this.")
    made = await asked.submit(approval={"before": "client"})
    assert made["state"] == "input_required"
    assert made["input_required"]["questions"][0]["of"] == "client"
    assert asked.calls == 0
    path = f"/v1/tasks/{made['id']}/input"
    answered = await asked.call("POST", path, {"decision": "approve", "comment": "go on"})
    assert answered["state"] in ("working", "completed", "submitted")
    done = await asked.task(made["id"], "completed")
    assert (done["output"], done["stop_reason"]) == ("It is this.", "completed")
    again = await asked.call("POST", path, {"decision": "deny"}, status=409)
    assert again["error"]["code"] == "task_terminal"
    assert asked.calls == 1


async def test_a_no_rejects_a_task_before_anything_was_called_and_costs_nothing(asked: Asked):
    made = await asked.submit(approval={"before": ["experts", "acme-staff"]})
    assert [one["queue"] for one in made["input_required"]["questions"]] == ["experts", "acme-staff"]
    refused = await asked.call("POST", f"/v1/tasks/{made['id']}/input", {"decision": "approve"}, status=409)
    assert refused["error"]["code"] == "no_question"
    mine = await asked.question(made["id"], "staff")
    experts = await asked.question(made["id"], "expert")
    assert mine != experts
    # Another tenant's staff sees neither, the operator's nothing of a tenant's own.
    for who, name in (("other", mine), ("other", experts), ("expert", mine), ("staff", experts)):
        await asked.call("GET", f"{APPROVALS}/{name}", who=who, status=404)
    await asked.call("POST", f"{APPROVALS}/{experts}/answer", {"decision": "approve"}, "expert")
    await asked.task(made["id"], "input_required")
    await asked.call("POST", f"{APPROVALS}/{mine}/answer", {"decision": "deny"}, "staff")
    done = await asked.task(made["id"], "rejected")
    assert (done["stop_reason"], done["error"]["code"]) == ("denied", "approval_denied")
    assert done["usage"]["charged_usd"] == "0"
    assert asked.calls == 0


async def test_an_answer_leaves_when_staff_has_agreed_and_nobody_sees_it_before(asked: Asked):
    asked.says(large="It is that.")
    made = await asked.submit(approval={"after": "experts"}, model="large")
    waiting = await asked.task(made["id"], "input_required")
    assert waiting["output"] is None
    assert "candidate" not in waiting["input_required"]
    name = await asked.question(made["id"])
    shown = await asked.call("GET", f"{APPROVALS}/{name}", who="expert")
    assert shown["candidate"][0]["text"] == "It is that."
    assert shown["messages"][0]["content"] == "Which is it?"
    # An auditor's reach without the right to answer, and an owner, see what is asked.
    assert (await asked.call("GET", f"{APPROVALS}/{name}", who="operator"))["candidate"] is not None
    await asked.call("POST", f"{APPROVALS}/{name}/answer", {"decision": "answer", "text": "Mine."}, "expert", 400)
    await asked.call("POST", f"{APPROVALS}/{name}/answer", {"decision": "approve"}, "expert")
    done = await asked.task(made["id"], "completed")
    assert (done["output"], done["collegium"]["model"]) == ("It is that.", "large")
    assert asked.calls == 1


async def test_one_who_claims_a_question_has_it_for_himself_until_it_is_returned(asked: Asked):
    made = await asked.submit(approval={"before": "experts"}, domain="tax")
    name = await asked.question(made["id"])
    none = await asked.call("POST", f"{APPROVALS}/claim", {"labels": ["medicine"]}, "expert", 404)
    assert none["error"]["code"] == "not_found"
    taken = await asked.call("POST", f"{APPROVALS}/claim", {"queues": ["experts"], "labels": ["tax"]}, "expert")
    assert taken["id"] == name
    assert taken["claimed_by"] == asked.keys["expert"].split("-")[2]
    for act in ("claim", "return"):
        refused = await asked.call("POST", f"{APPROVALS}/{name}/{act}", None, "second", 409)
        assert refused["error"]["code"] == "claimed_by_another"
    await asked.call("POST", f"{APPROVALS}/{name}/answer", {"decision": "approve"}, "second", 409)
    await asked.call("POST", f"{APPROVALS}/{name}/return", None, "expert")
    assert (await asked.call("POST", f"{APPROVALS}/{name}/claim", None, "second"))["claimed_by"] is not None
    await asked.call("POST", f"/v1/tasks/{made['id']}/cancel")
    done = await asked.task(made["id"], "canceled")
    assert done["usage"]["charged_usd"] == "0"

    async def closed() -> bool:
        return (await asked.call("GET", f"{APPROVALS}/{name}", who="second"))["state"] == "closed"

    await eventually(closed)
    late = await asked.call("POST", f"{APPROVALS}/{name}/answer", {"decision": "approve"}, "second", 409)
    assert late["error"]["code"] == "already_answered"


async def test_a_question_is_escalated_and_handed_back_and_the_audit_trail_says_so(asked: Asked):
    asked.says(large="It is this.")
    made = await asked.submit(model="large", approval={"before": "acme-staff"}, domain="tax")
    name = await asked.question(made["id"], who="staff")
    for wrong in ("nobody", "acme-staff"):
        refused = await asked.call("POST", f"{APPROVALS}/{name}/move", {"queue": wrong}, "staff", 400)
        assert refused["error"]["code"] == "unknown_queue"
    up = {"queue": "experts", "comment": "beyond us"}
    await asked.call("POST", f"{APPROVALS}/{name}/move", up, "expert", 404)
    moved = await asked.call("POST", f"{APPROVALS}/{name}/move", up, "staff")
    assert (moved["queue"], moved["of"], set(moved["labels"])) == ("experts", "operator", {"law", "tax"})
    await asked.call("POST", f"{APPROVALS}/{name}/answer", {"decision": "approve"}, "staff", 404)
    await asked.call("POST", f"{APPROVALS}/{name}/claim", None, "second")
    theirs = await asked.call("POST", f"{APPROVALS}/{name}/move", {"queue": "acme-staff"}, "expert", 409)
    assert theirs["error"]["code"] == "claimed_by_another"
    back = await asked.call("POST", f"{APPROVALS}/{name}/move", {"queue": "acme-staff"}, "second")
    assert (back["queue"], back["of"], back["labels"], back["claimed_by"]) == ("acme-staff", "tenant", ["tax"], None)
    await asked.call("POST", f"{APPROVALS}/{name}/answer", {"decision": "approve"}, "staff")
    await asked.task(made["id"], "completed")

    async def told() -> Any:
        page = await asked.call("GET", "/v1/admin/audit?action=question.moved&tenant=acme", who="operator")
        found = [one["details"] for one in page["data"] if one["object"] == made["id"]]
        return found if len(found) == 2 else None

    found = await eventually(told)
    assert {(one["queue"], one["to"]) for one in found} == {("acme-staff", "experts"), ("experts", "acme-staff")}


async def test_a_person_answers_where_models_are_unsure_and_is_paid_once(asked: Asked):
    asked.says(small="red", little="blue", large="green")
    made = await asked.submit(plan="cascade", domain="escalated", quality_min=0.99)
    await asked.task(made["id"], "input_required")
    name = await asked.question(made["id"])
    own = {"text": "violet", "comment": "none of them"}
    answered = await asked.call("POST", f"{APPROVALS}/{name}/answer", own, "expert")
    assert answered["decision"] == "answer"
    again = await asked.call("POST", f"{APPROVALS}/{name}/answer", {"text": "violet"}, "second", 409)
    assert again["error"]["code"] == "already_answered"
    done = await asked.task(made["id"], "completed")
    about = done["collegium"]
    assert done["output"] == "violet"
    assert (about["model"], about["rank"], about["stop_reason"]) == ("person:experts", "person", "answered_by_person")
    calls = sum(float(one["usage"]["charged_usd"]) for one in done["attempts"])
    assert float(done["usage"]["charged_usd"]) == pytest.approx(calls + 0.5)

    async def booked() -> Any:
        rows = (await asked.call("GET", "/v1/usage?group_by=model"))["data"]
        return next((row for row in rows if row["model"] == "person:experts"), None)

    assert float((await eventually(booked))["charged_usd"]) == pytest.approx(calls + 0.5)

    async def learned() -> Any:
        models = (await asked.call("GET", "/v1/admin/models", who="operator"))["data"]
        large = next(row for row in models if row["name"] == "large")
        return [score for score in large["scores"] if score["domain"] == "escalated" and score["judged"]]

    scores = await eventually(learned)
    assert scores


async def test_a_chat_is_told_at_once_that_people_are_asked(asked: Asked):
    asked.says(large="Well.")
    chat = {
        "model": "large",
        "messages": [{"role": "user", "content": "hello"}],
        "collegium": {"approval": {"after": "client"}},
    }
    told = await asked.call("POST", CHAT, chat, status=428)
    assert (told["error"]["code"], told["error"]["type"]) == ("input_required", "input_required")
    async with asked.session() as http, http.post(CHAT, json=chat | {"stream": True}) as response:
        assert response.status == 428
        task_id = response.headers["x-collegium-task-id"]
    waiting = await asked.task(task_id, "input_required")
    assert waiting["input_required"]["candidate"][0]["text"] == "Well."
    await asked.call("POST", f"/v1/tasks/{task_id}/input", {"decision": "approve"})
    assert (await asked.task(task_id, "completed"))["output"] == "Well."


async def test_rules_of_gates_ask_in_place_of_refusing(asked: Asked):
    asked.says(large=f"It is {PHRASE}.")
    made = await asked.submit(
        model="large", input=f"What is {PHRASE}?", gates=["code-name", "answer-names-it"], max_tokens=20
    )
    assert made["state"] == "input_required"
    assert made["input_required"]["questions"][0]["rule"] == "code-name"
    name = await asked.question(made["id"])
    await asked.call("POST", f"{APPROVALS}/{name}/answer", {"decision": "approve"}, "expert")

    async def second() -> Any:
        view = await asked.call("GET", f"/v1/tasks/{made['id']}")
        about = view["input_required"]
        return about if about is not None and about["stage"] == "answer" else None

    about = await eventually(second)
    assert about["questions"][0]["rule"] == "answer-names-it"
    await asked.call("POST", f"/v1/tasks/{made['id']}/input", {"decision": "deny"})
    done = await asked.task(made["id"], "rejected")
    assert done["error"]["code"] == "answer-names-it"
    # The call was made and is cost; what did not leave is not charged.
    assert (asked.calls, done["usage"]["charged_usd"]) == (1, "0")


async def test_a_model_decides_a_rule_as_a_task_of_the_tenant(asked: Asked):
    chat = {
        "model": "large",
        "max_tokens": 8,
        "messages": [{"role": "user", "content": "Write a poem."}],
        "collegium": {"gates": ["judged"]},
    }
    asked.says(large="Roses.", little='{"allow": false, "reason": "it asks for one"}')
    refused = await asked.call("POST", CHAT, chat, status=403)
    assert refused["error"]["code"] == "judged"
    assert "it asks for one" in refused["error"]["message"]
    asked.says(large="Roses.", little="I cannot say.")
    unsure = await asked.call("POST", CHAT, chat, status=403)
    assert "could not be evaluated" in unsure["error"]["message"]
    asked.says(large="Roses.", little='{"allow": true}')
    answer = await asked.call("POST", CHAT, chat)
    assert answer["choices"][0]["message"]["content"] == "Roses."

    async def booked() -> Any:
        rows = (await asked.call("GET", "/v1/usage?group_by=tag"))["data"]
        return next((row for row in rows if row["tag"] == "gate=judged" and row["requests"] == 3), None)

    assert await eventually(booked)


async def test_a_model_decides_about_answers_before_anybody_has_them(asked: Asked):
    chat = {
        "model": "large",
        "max_tokens": 8,
        "messages": [{"role": "user", "content": "Write a poem."}],
        "collegium": {"gates": ["judged-answers"], "cache": "off"},
    }
    asked.says(large="Roses.", little='{"allow": true}')
    answer = await asked.call("POST", CHAT, chat)
    assert (answer["choices"][0]["message"]["content"], asked.calls) == ("Roses.", 2)
    streamed = await asked.text(CHAT, chat | {"stream": True})
    # Read as a whole for its stream and for its end, and asked about once.
    assert ("Roses." in streamed, asked.calls) == (True, 4)
    asked.says(large="Roses.", little='{"allow": false, "reason": "it is one"}')
    refused = await asked.call("POST", CHAT, chat, status=403)
    assert (refused["error"]["code"], "it is one" in refused["error"]["message"]) == ("judged-answers", True)
    assert "Roses." not in await asked.text(CHAT, chat | {"stream": True})
    asked.says(large="Roses.", little="I cannot say.")
    unsure = await asked.call("POST", CHAT, chat, status=403)
    assert "could not be evaluated" in unsure["error"]["message"]
    vain = chat | {"collegium": {"gates": ["judged-in-vain"], "cache": "off"}}
    asked.says(large="Roses.", little="")
    assert (await asked.call("POST", CHAT, vain))["choices"][0]["message"]["content"] == "Roses."
    # A model that takes one call at a time decides about its own answer: the place is the attempt's.
    asked.says(little='{"allow": true}')
    own = await asked.call("POST", CHAT, chat | {"model": "little"})
    assert own["choices"][0]["message"]["content"] == '{"allow": true}'

    async def booked() -> Any:
        rows = (await asked.call("GET", "/v1/usage?group_by=tag"))["data"]
        return next((row for row in rows if row["tag"] == "gate=judged-answers" and row["requests"] >= 5), None)

    assert await eventually(booked)


async def test_what_nobody_answers_goes_by_its_rule(asked: Asked):
    asked.says(large="Best.")
    soon: dict[str, Any] = {"model": "large", "input_expires_seconds": 1, "approval": {"after": "client"}}
    ends = {"fail": "failed", "best": "completed", "deny": "rejected"}
    made = {rule: await asked.submit(on_expiry=rule, **soon) for rule in ends}
    done = {rule: await asked.task(made[rule]["id"], state) for rule, state in ends.items()}
    assert done["fail"]["error"]["code"] == "input_expired"
    assert done["best"]["output"] == "Best."
    assert done["deny"]["error"]["code"] == "approval_denied"


async def test_grpc_clients_answer_and_watch_what_their_task_waits_for(asked: Asked):
    asked.says(large="Called.")
    metadata = (("authorization", f"Bearer {asked.keys['acme']}"),)
    async with grpc.aio.insecure_channel(asked.platform.ready["grpc"]) as channel:
        tasks = TasksStub(channel)
        made = await tasks.Submit(
            SubmitRequest(model="large", input="x", approval_before=["client"]), metadata=metadata
        )
        assert made.state == "input_required"
        assert dict(made.input_required)["stage"] == "request"
        watch = tasks.Watch(WatchRequest(id=made.id), metadata=metadata)
        asking = ProvideInputRequest(id=made.id, decision="approve")
        await tasks.ProvideInput(asking, metadata=(*metadata, ("idempotency-key", "input-1")))
        again = await tasks.ProvideInput(asking, metadata=(*metadata, ("idempotency-key", "input-1")))
        assert again.id == made.id
        events = [event async for event in watch]
        states = [event.state for event in events if event.HasField("state")]
        assert [one.questions[0].of for one in states if one.questions] == ["client"]
        assert "approve" in [one.decision for one in states]
        assert events[-1].done.output == "Called."
        chat = ChatRequest(
            model="large",
            messages=[ChatMessage(role="user", content="hi")],
            collegium=Options(approval_after=["client"], on_expiry="deny", input_expires_seconds=60),
        )
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await ChatStub(channel).Complete(chat, metadata=metadata)
        assert told.value.code() == grpc.StatusCode.FAILED_PRECONDITION


async def test_a_callback_tells_of_the_wait_and_of_the_end(asked: Asked):
    asked.says(large="Later.")
    secret = (await asked.call("GET", "/v1/webhooks/secret"))["secret"]
    async with WebhookReceiver(secret=secret) as receiver:
        made = await asked.submit(model="large", approval={"before": "client"}, callback_url=receiver.url)
        await eventually(lambda: len(receiver.received) == 1)
        await asked.call("POST", f"/v1/tasks/{made['id']}/input", {"decision": "approve"})
        await asked.task(made["id"], "completed")
        await eventually(lambda: len(receiver.received) == 2)
        told = [msgspec.json.decode(one.body) for one in receiver.received]
    assert [one["type"] for one in told] == ["task.input_required", "task.completed"]
    assert told[0]["data"]["input_required"]["questions"][0]["of"] == "client"
    assert all(one.verified for one in receiver.received)
    assert len({one.id for one in receiver.received}) == 2


async def test_events_and_an_idempotency_key_know_of_the_wait(asked: Asked):
    asked.says(large="Told.")
    body = {"model": "large", "input": "x", "max_tokens": 8, "approval": {"before": "client"}}
    first = await asked.call("POST", "/v1/tasks", body, status=202, **{"Idempotency-Key": "people-1"})
    again = await asked.call("POST", "/v1/tasks", body, status=202, **{"Idempotency-Key": "people-1"})
    assert again["id"] == first["id"]
    assert again["state"] == "input_required"
    await asked.call("POST", f"/v1/tasks/{first['id']}/input", {"decision": "approve"})
    async with asked.session() as http, http.get(f"/v1/tasks/{first['id']}/events") as response:
        raw = (await response.text()).split("\n")
    states = [msgspec.json.decode(line[5:]) for line in raw if line.startswith("data:")]
    told = [one for one in states if one.get("state") == "input_required"]
    assert told[0]["questions"][0]["of"] == "client"
    assert told[1]["decision"] == "approve"
    assert states[-1]["output"] == "Told."


async def test_an_operator_answers_from_the_terminal_and_reads_the_ladder(asked: Asked, capsys, monkeypatch):
    asked.says(large="Shown.")
    made = await asked.submit(model="large", approval={"after": "experts"}, domain="terminal")
    name = await asked.question(made["id"])
    runtime = msgspec.json.decode((asked.platform.folder / "runtime.json").read_bytes())
    monkeypatch.setenv("COLLEGIUM_URL", asked.platform.http)
    monkeypatch.setenv("COLLEGIUM_API_KEY", asked.keys["operator"])

    async def run(*words: str) -> str:
        options = parser().parse_args([*words, "--data", str(asked.platform.folder)])
        assert await asyncio.to_thread(options.run, options) == 0
        return capsys.readouterr().out

    assert runtime["http"]
    assert name in await run("approval", "ls", "--label", "terminal")
    assert "Shown." in await run("approval", "show", name)
    assert name in await run("approval", "claim", "--label", "terminal")
    assert "would answer" in await run("approval", "answer", name, "--approve", "--dry-run")
    assert "approve" in await run("approval", "answer", name, "--approve", "--comment", "fine")
    await asked.task(made["id"], "completed")
    shown = await run("task", "show", made["id"])
    assert "before its answer leaves: answer-1 experts" in shown
    assert "(operator)" in shown
    trail = (await asked.call("GET", "/v1/admin/audit?tenant=acme&limit=200", who="operator"))["data"]
    assert {"approvals.read", "task.approve"} <= {one["action"] for one in trail}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"approval": {"after": "nobody"}}, "ask"),
        ({"ask_below": 2}, "ask_below"),
        ({"ask": "acme-staff", "input_expires_seconds": 300_000}, "input_expires_seconds"),
    ],
)
async def test_who_cannot_be_asked_is_refused_at_the_door(asked: Asked, fields: dict[str, Any], param: str):
    refused = await asked.submit(status=400, **fields)
    assert refused["error"]["param"] == param
    other = await asked.submit(status=400, who="globex", approval={"before": "acme-staff"})
    assert other["error"]["code"] == "unknown_queue"
