"""Probes that cannot be stored, and those of what fine-tuned models were not trained on: what they may cost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
from collegium_bus.errors import BrokerUnavailableError
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.holds import Billed, billed_header
from collegium_contracts.parts import Probe
from collegium_contracts.students import HeldOutAsk, StudentOf
from collegium_contracts.worstcase import worst_cost_picos
from collegium_learning.probing import held_out_of, probe_of
from collegium_router.choosing.plan import eligible
from collegium_router.dispatching.probes import UNSETTLED_MS_MAX, Probes
from collegium_router.roster.fleet_models import Models
from collegium_settings import Settings
from collegium_settings.probes import ProbeSettings
from collegium_settings.settings import EvolutionSettings
from collegium_telemetry.tracing import Tracing


class Stored:
    """A publisher whose broker is away for its first message."""

    def __init__(self) -> None:
        self.subjects: list[str] = []

    async def publish(self, subject: str, _payload: bytes, **_fields: Any) -> None:
        self.subjects.append(subject)
        if len(self.subjects) == 1:
            raise BrokerUnavailableError("away")


async def test_a_probe_that_was_not_stored_gives_back_what_it_took(submission: Any, model: Any) -> None:
    fleet = {"sim": model("sim")}
    probing = ProbeSettings(audit_share=1.0, budget_share=1.0, all_tenants=True)
    publisher = Stored()
    platform: Any = SimpleNamespace(
        connection=None, publisher=publisher, now_ms=lambda: 1_767_225_600_000,
        settings=Settings(evolution=EvolutionSettings(probes=probing)),
    )  # fmt: skip
    resources: Any = SimpleNamespace(models=fleet)
    probes = Probes(platform, resources)
    first, second = submission(id="tsk_" + "1" * 26), submission(id="tsk_" + "2" * 26)
    # There is enough for one of them.
    probes.allowance("acme").earn(worst_cost_picos(first, fleet.values()))
    for one in (first, second, submission(id="tsk_" + "3" * 26)):
        await probes.draw(one, SimpleNamespace(traceparent=""))  # pyright: ignore[reportArgumentType]
    assert len(publisher.subjects) == 2


class Answered:
    """What settled: nothing, or anything."""

    def __init__(self) -> None:
        self.stored: Any = None

    async def last(self, _stream: str, _subject: str) -> Any:
        return self.stored


async def test_what_was_held_out_is_asked_once_within_what_was_earned(model: Any) -> None:
    of = StudentOf(kind="endpoint", tenants=["acme"])
    fleet = {
        "tuned": model("tuned", student=of),
        "other": model("other", student=StudentOf(kind="endpoint", tenants=["x"])),
    }
    publisher, direct = Stored(), Answered()
    publisher.subjects.append("the broker is there")
    platform: Any = SimpleNamespace(
        connection=None, publisher=publisher, now_ms=lambda: 1_767_225_600_000, direct=direct,
        tracing=Tracing(None, 0.0),
        settings=Settings(evolution=EvolutionSettings(probes=ProbeSettings(budget_share=1.0, tenants=("acme",)))),
    )  # fmt: skip
    probes = Probes(platform, SimpleNamespace(models=fleet))  # pyright: ignore[reportArgumentType]
    asked = HeldOutAsk(
        tenant="acme", of="tsk_" + "1" * 26, model="tuned", domain="desk", tier="pro",
        prompt=Envelope("identity", b"", b"[]"), answer="claim", gave="big", gave_rank="teacher", max_tokens=8,
    )  # fmt: skip
    assert not probes.is_on
    probes.examines = True
    assert probes.is_on, "what may be spent has to be earned"
    assert await probes.hold_out(msgspec.structs.replace(asked, tenant="globex")) == "not_allowed"
    assert await probes.hold_out(msgspec.structs.replace(asked, model="other")) == "no_model"
    assert await probes.hold_out(asked) == "not_covered"
    waiting = held_out_of(asked, "operator", platform.now_ms())
    probes.allowance("acme").earn(worst_cost_picos(waiting, [fleet["tuned"]]))
    assert await probes.hold_out(asked) == "taken"
    assert publisher.subjects[1:] == [s.schedule_task("acme", waiting.task.id)]
    assert await probes.hold_out(asked) == "taken", "the same question again is no second one"
    second = msgspec.structs.replace(asked, of="tsk_" + "2" * 26)
    assert await probes.hold_out(second) == "not_covered"
    ready = await probes.ready(waiting, "")
    assert ready is not None
    assert (ready.task.model, ready.task.plan, ready.panel_size) == ("tuned", "panel", 1)
    assert ready.task.probe is not None
    assert (ready.task.probe.answer, ready.task.probe.gave) == ("claim", "big")
    direct.stored, probes.allowance("acme")._out = object(), {}
    assert await probes.hold_out(asked) == "taken", "what was asked and has settled costs nothing again"
    again = held_out_of(msgspec.structs.replace(asked, number=2), "operator", platform.now_ms())
    anew = held_out_of(msgspec.structs.replace(asked, made_at_ms=5), "operator", platform.now_ms())
    assert len({waiting.task.id, again.task.id, anew.task.id}) == 3, "each try, and each model of a name, is another"
    del fleet["tuned"]
    assert await probes.ready(waiting, "") is None


async def test_what_was_taken_for_a_probe_that_was_never_called_is_given_back(submission: Any, model: Any) -> None:
    fleet = {"sim": model("sim")}
    probing = ProbeSettings(audit_share=1.0, budget_share=1.0, all_tenants=True)
    publisher, direct, clock = Stored(), Answered(), SimpleNamespace(now=1_767_225_600_000)
    publisher.subjects.append("the broker is there")
    platform: Any = SimpleNamespace(
        connection=None, publisher=publisher, now_ms=lambda: clock.now, direct=direct,
        settings=Settings(evolution=EvolutionSettings(probes=probing)),
    )  # fmt: skip
    probes = Probes(platform, SimpleNamespace(models=fleet))  # pyright: ignore[reportArgumentType]
    asked = submission()
    bound = worst_cost_picos(asked, fleet.values())
    allowance = probes.allowance("acme")
    allowance.earn(bound)
    await probes.draw(asked, SimpleNamespace(traceparent=""))  # pyright: ignore[reportArgumentType]
    ((probe, out),) = allowance.kept()[2].items()
    assert out.picos == allowance.kept()[1] == bound

    def hear(subject: str, headers: dict[str, str]) -> int:
        about = s.parse_event(subject)
        assert about is not None
        delivery: Any = SimpleNamespace(header=lambda name: headers.get(name, ""))
        probes.hear(about, delivery)
        return allowance.kept()[1]

    # Its deadline passed in a queue: its attempt called nothing, and then it settles.
    assert hear(s.attempt_ended("acme", probe, 1), {}) == bound
    used = billed_header(Billed(picos=0, tokens=5, project="default", key_id=""))
    assert hear(s.task_settled("acme", probe), {s.H_BILLED: used}) == bound, "something was called"
    unused = billed_header(Billed(picos=0, tokens=0, project="default", key_id=""))
    assert hear(s.task_settled("acme", "tsk_another"), {s.H_BILLED: unused}) == bound
    assert hear(s.task_settled("acme", probe), {s.H_BILLED: unused}) == 0
    assert allowance.spend(probe, bound, clock.now), "all of it may be spent again"
    # Nor is it asked where the task has not settled in all the time that there is.
    waiting = probe_of(asked, Probe(of=asked.task.id, kind="audit"), clock.now, 0)
    assert waiting.task.id == probe
    clock.now += UNSETTLED_MS_MAX
    assert await probes.ready(waiting, "") is None
    assert allowance.kept()[1] == 0


def test_no_fallback_answers_what_was_held_out_for_another(model: Any) -> None:
    of = StudentOf(kind="endpoint", tenants=["acme"])
    asked = HeldOutAsk(
        tenant="acme", of="tsk_" + "1" * 26, model="tuned", domain="desk", tier="pro",
        prompt=Envelope("identity", b"", b"[]"), answer="claim", gave="big", gave_rank="teacher", max_tokens=8,
    )  # fmt: skip
    task = held_out_of(asked, "operator", 1).task
    fleet = [model("tuned", student=of, fallbacks=["big"]), model("big")]
    found = eligible(task, 2, Models(fleet))
    assert isinstance(found, list)
    assert [one.name for one in found] == ["tuned"]
    drained = eligible(task, 2, Models([msgspec.structs.replace(fleet[0], drained=True), fleet[1]]))
    assert not isinstance(drained, list)
    assert drained.code == "model_not_allowed"
