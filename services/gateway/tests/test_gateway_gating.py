"""The door's part of gates: which rules a request passes, and what of it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from collegium_bus.holding import Holds
from collegium_contracts import codec
from collegium_contracts.content import ChatMessage, encode_content
from collegium_contracts.envelope import IdentityKeyring
from collegium_contracts.messages import Sampling, TaskRef, TaskSubmitted
from collegium_contracts.requests import HoldAnswer, HoldsRelease, HoldsReply
from collegium_contracts.wording import words_sealed
from collegium_gateway.admission.admitting import Admitting
from collegium_gateway.admission.gating import Gating
from collegium_gateway.admission.holding import Admission
from collegium_gateway.errors import ApiError
from collegium_gateway.identity.principal import Principal
from collegium_gateway.reuse.hits import Hits
from collegium_settings import Settings
from collegium_settings.gates import GateSettings
from collegium_telemetry.metrics import Metrics
from collegium_testing import eventually

KEYRING = IdentityKeyring()


class Trail:
    """What would be told to the audit trail."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    def entry(self, tenant: str, actor: str, action: str, outcome: str, **fields: Any) -> Any:
        self.told.append((action, outcome, fields["details"]["rule"]))

    def record(self, entry: Any) -> None:
        """Nothing is stored."""


@pytest_asyncio.fixture
async def gating() -> AsyncGenerator[Gating]:
    rules = {
        "secret": GateSettings(kind="regex", patterns=("bluebird",), at=("request",), everyone=False),
        "mail": GateSettings(kind="pii", action="tokenise", at=("request",), everyone=False),
        "both": GateSettings(kind="topics", deny=("nightfall",), everyone=False),
        "jwt_only": GateSettings(kind="age", trust=("jwt",), claim="birthdate", everyone=False),
    }
    platform: Any = SimpleNamespace(
        settings=Settings(gates=rules), connection=None, metrics=Metrics("gateway"), on_settings=[], keyring=KEYRING,
        service="gateway", now_ms=lambda: 1_800_000_000_000,
    )  # fmt: skip
    made = Gating(platform, Trail())  # pyright: ignore[reportArgumentType] - as far as it is asked
    made._known.update(made.registry.by_reference)
    yield made
    await made.stop()


def who(**fields: Any) -> Principal:
    return Principal("acme", "default", "key1", frozenset({"chat"}), **fields)


def asking(text: str, *, tools: bytes | None = None) -> TaskSubmitted:
    prompt = encode_content([ChatMessage(role="user", content=text)])
    task = TaskRef(id="tsk_1", tenant="acme", created_at_ms=0, deadline_ms=1, model="auto", key_id="key1")
    sampling = words_sealed(KEYRING, "acme", Sampling(tools=tools))
    return TaskSubmitted(task=task, prompt=KEYRING.seal("acme", prompt), sampling=sampling, prompt_bytes=len(prompt))


async def test_a_request_that_no_rule_concerns_is_passed_on_as_it_is(gating: Gating) -> None:
    submitted = asking("hello")
    assert gating.take(submitted, who(), None, None) is submitted
    assert await gating.check(submitted) is submitted
    assert gating.take(submitted, who(), ["age_21"], {"age": 30}).task.gated is None


@pytest.mark.parametrize(("names", "code"), [(["nothing"], "unknown_gate"), (["secret"] * 51, "invalid_value")])
async def test_names_of_a_request_are_checked(gating: Gating, names: list[str], code: str) -> None:
    with pytest.raises(ApiError) as raised:
        gating.take(asking("hello"), who(), names, None)
    assert (raised.value.code, raised.value.param) == (code, "gates")


async def test_a_rule_of_the_tenant_that_is_gone_blocks(gating: Gating) -> None:
    with pytest.raises(ApiError) as raised:
        gating.take(asking("hello"), who(gates=("gone",)), None, None)
    assert (raised.value.code, raised.value.shown_code, raised.value.kind.http_status) == ("gate_blocked", "gone", 403)
    assert raised.value.task_id == "", "no task was kept that could be looked up"
    assert gating._audit.told == [("gate.failed_closed", "refused", "gone")]  # pyright: ignore[reportAttributeAccessIssue]


async def test_a_token_vouches_where_the_rule_trusts_it_alone(gating: Gating) -> None:
    with pytest.raises(ApiError) as raised:
        gating.take(asking("hello"), who(verified={"age": 50}), ["jwt_only"], {"age": 50})
    assert raised.value.shown_code == "jwt_only"
    gating.take(asking("hello"), who(claims={"birthdate": "1990-01-01"}), ["jwt_only"], None)


async def test_texts_beside_the_messages_are_read(gating: Gating) -> None:
    tools = msgspec.json.encode([{"type": "function", "function": {"name": "f", "description": "the blueb\u200bird"}}])
    taken = gating.take(asking("hello", tools=tools), who(), ["secret"], None)
    with pytest.raises(ApiError) as raised:
        await gating.check(taken)
    assert (raised.value.shown_code, raised.value.task_id) == ("secret", "")
    assert (await gating.check(gating.take(asking("hello"), who(), ["secret"], None))).task.gated is None


async def test_what_goes_on_holds_no_words_and_the_way_back_to_them(gating: Gating) -> None:
    taken = gating.take(asking("I am j@example.com"), who(), ["mail", "both"], None)
    assert gating.rewrites(taken.task)
    passed = await gating.check(taken)
    (message,) = msgspec.json.decode(KEYRING.open("acme", passed.prompt))
    token = message["content"].removeprefix("I am ")
    gated = passed.task.gated
    assert gated is not None
    assert gated.vault is not None
    assert msgspec.json.decode(KEYRING.open("acme", gated.vault)) == {token: "j@example.com"}
    assert [one.partition("@")[0] for one in gated.rules] == ["both"]
    assert passed.prompt_bytes == len(KEYRING.open("acme", passed.prompt))
    assert gating._audit.told == [("gate.tokenised", "done", "mail")]  # pyright: ignore[reportAttributeAccessIssue]


async def test_a_key_that_stands_twice_means_one_thing_to_gate_and_model(gating: Gating) -> None:
    submitted = asking("hello")
    raw = b'[{"role":"user","content":[{"type":"text","text":"bluebird","text":"hello"}]}]'
    taken = gating.take(msgspec.structs.replace(submitted, prompt=KEYRING.seal("acme", raw)), who(), ["secret"], None)
    assert b"bluebird" not in KEYRING.open("acme", (await gating.check(taken)).prompt)


class Billing:
    """Grants a hold a turn of the loop after it was asked, and takes down what it was asked and given back."""

    def __init__(self, order: list[str]) -> None:
        self.order = order

    async def request_raw(self, *_: Any, **__: Any) -> Any:
        self.order.append("asked")
        reply = HoldsReply(answers=[HoldAnswer()])
        await asyncio.sleep(0)
        return codec.encode(reply), b""

    def publish(self, _subject: str, payload: bytes) -> None:
        message = codec.request.decode(payload)
        assert isinstance(message, HoldsRelease)
        self.order.append("given back")


def deciding(gating: Gating, billing: Billing) -> Admitting:
    admission = Admission.__new__(Admission)
    admission._holds = Holds(billing)  # pyright: ignore[reportArgumentType] - as far as it is asked
    admission.hits = Hits(admission._holds, lambda: 0.0)
    nothing = SimpleNamespace(added_bytes=lambda _task: 0)
    admission._directory = SimpleNamespace(models=[], trials=nothing)  # pyright: ignore[reportAttributeAccessIssue]
    return Admitting(admission, gating)


async def test_the_hold_is_asked_for_before_rules_are_evaluated(gating: Gating) -> None:
    order: list[str] = []

    class Checked(Gating):
        async def check(self, submitted: TaskSubmitted) -> TaskSubmitted:
            order.append("checked")
            return submitted

    gating.__class__ = Checked
    taken = gating.take(asking("hello"), who(), ["both"], None)
    held = await deciding(gating, Billing(order)).admit(taken, None, stores=False)
    assert order == ["asked", "checked"]
    assert held.task.hold_expires_ms > 0


@pytest.mark.parametrize("end", ["the client goes", "a rule's defect", "a refusal"])
async def test_whatever_ends_the_rules_gives_the_hold_back(gating: Gating, end: str) -> None:
    order: list[str] = []
    begun = asyncio.Event()

    class Ended(Gating):
        async def check(self, submitted: TaskSubmitted) -> TaskSubmitted:
            begun.set()
            if end == "the client goes":
                await asyncio.Event().wait()
            raise ApiError("gate_blocked", "no") if end == "a refusal" else ZeroDivisionError

    gating.__class__ = Ended
    taken = gating.take(asking("hello"), who(), ["both"], None)
    under_way = asyncio.create_task(deciding(gating, Billing(order)).admit(taken, None, stores=False))
    await begun.wait()
    if end == "the client goes":
        under_way.cancel()
    with pytest.raises((asyncio.CancelledError, ZeroDivisionError, ApiError)):
        await under_way
    await eventually(lambda: order == ["asked", "given back"])
