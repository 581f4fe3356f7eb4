"""What the door accepts, with which defaults, and every refusal with its parameter."""

import itertools
from typing import Any

import msgspec
import pytest
from collegium_contracts import codec
from collegium_contracts.content import decode_messages
from collegium_contracts.envelope import Envelope, IdentityKeyring
from collegium_contracts.errors import ERRORS
from collegium_contracts.messages import TaskSubmitted
from collegium_contracts.money import Price
from collegium_contracts.plans import RANKS_UP, cascade_ranks
from collegium_contracts.wording import words_opened
from collegium_contracts.worstcase import worst_picos
from collegium_gateway.admission.admission import (
    MAX_CHOICES,
    MAX_DEADLINE_SECONDS,
    MAX_MESSAGES,
    MAX_OUTPUT_TOKENS,
    MAX_PANEL,
    MAX_SEED,
    MAX_TAG_CHARS,
    MAX_TAGS,
    Asked,
    asked_by_chat,
    asked_by_task,
    submission,
)
from collegium_gateway.admission.requests import decode_chat, decode_task, options_of, parse
from collegium_gateway.errors import ApiError
from collegium_gateway.identity.principal import Principal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NOW_MS = 1_767_225_600_000
WHO = Principal("acme", "blue", "key00001", frozenset(("chat",)))
ASK = [{"role": "user", "content": "hello"}]


def chat(**fields: Any) -> Asked:
    return asked_by_chat(parse(decode_chat, msgspec.json.encode({"model": "auto", "messages": ASK} | fields)))


def later(**fields: Any) -> Asked:
    request = parse(decode_task, msgspec.json.encode({"input": "hello"} | fields))
    return asked_by_task(request, options_of(request))


class Reversing(IdentityKeyring):
    """A keyring whose sealed bytes show nothing of the plain ones, and that counts what it sealed."""

    def __init__(self) -> None:
        self.sealed = 0

    def seal(self, tenant: str, plain: bytes, purpose: str = "") -> Envelope:
        self.sealed += 1
        return Envelope(f"key of {tenant}", b"", plain[::-1])

    def open(self, tenant: str, envelope: Envelope, purpose: str = "") -> bytes:
        assert envelope.key_id == f"key of {tenant}"
        return envelope.body[::-1]


def test_options_that_hold_words_are_sealed_and_cost_nothing_without_them(model):
    def admitted(asked: Asked, keyring: Reversing) -> TaskSubmitted:
        return submission(asked, WHO, [model("m")], keyring, task_id="tsk_" + "1" * 26, reply="r1", now_ms=NOW_MS)

    plain = Reversing()
    assert admitted(chat(temperature=0.5, max_tokens=5), plain).sampling.words is None
    assert plain.sealed == 1, "the prompt alone"
    words = {
        "tools": [{"type": "function", "function": {"name": "canary"}}],
        "stop": ["canary"],
        "tool_choice": {"type": "function", "function": {"name": "canary"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "canary"}},
    }
    for name, value in words.items():
        ring, asked = Reversing(), chat(**{name: value})
        submitted = admitted(asked, ring)
        assert b"canary" not in codec.encode(submitted), name
        assert words_opened(ring, "acme", submitted.sampling) == asked.sampling, name
        assert worst_picos(submitted, [model("m")]) == worst_picos(
            msgspec.structs.replace(submitted, sampling=asked.sampling), [model("m")]
        ), name


@pytest.fixture
def admit(model):
    def admit(asked: Asked, *models) -> TaskSubmitted:
        return submission(
            asked,
            WHO,
            models or [model("m")],
            IdentityKeyring(),
            task_id="tsk_" + "1" * 26,
            reply="r1",
            now_ms=NOW_MS,
        )

    return admit


@pytest.fixture
def refusal(admit):
    def refusal(make, *models, **fields) -> tuple[str, str | None]:
        with pytest.raises(ApiError) as raised:
            admit(make(**fields), *models)
        assert raised.value.code in ERRORS
        assert raised.value.message
        return raised.value.code, raised.value.param

    return refusal


def test_the_defaults_are_the_designs(admit):
    submitted = admit(chat())
    task = submitted.task
    assert (task.tenant, task.project, task.key_id, task.reply) == ("acme", "blue", "key00001", "r1")
    assert (task.created_at_ms, task.deadline_ms) == (NOW_MS, NOW_MS + 50_000)
    assert (task.plan, task.priority, task.surface, task.conversation) == ("single", "normal", "chat", "")
    assert (submitted.sampling.n, submitted.sampling.max_tokens, submitted.sampling.stream) == (1, None, False)
    assert codec.journey.decode(codec.encode(submitted)) == submitted


def test_everything_that_is_carried_out_is_carried(admit):
    extension = {
        "plan": "panel",
        "panel_size": 5,
        "deadline_seconds": 1.5,
        "priority": "high",
        "domain": "law",
        "cache": "off",
        "conversation": "c-1:a.b_C",
        "tags": {"team": "x"},
    }
    submitted = admit(chat(model="m", collegium=extension, max_completion_tokens=9, stop="x", temperature=0, seed=3))
    task, sampling = submitted.task, words_opened(IdentityKeyring(), "acme", submitted.sampling)
    assert (task.plan, submitted.panel_size, task.deadline_ms) == ("panel", 5, NOW_MS + 1_500)
    assert (task.priority, task.domain, task.conversation, task.tags) == ("high", "law", "c-1:a.b_C", {"team": "x"})
    assert (sampling.max_tokens, sampling.stop, sampling.temperature, sampling.seed) == (9, ["x"], 0, 3)


def test_messages_and_tools_stay_as_they_came():
    body = b'{"model":"auto","messages":[ {"role":"user", "content":[{"type":"x", "u":1e3}]} ],"tools":[ {"a":1} ]}'
    asked = asked_by_chat(parse(decode_chat, body))
    assert asked.messages == b'[ {"role":"user", "content":[{"type":"x", "u":1e3}]} ]'
    assert asked.sampling.tools == b'[ {"a":1} ]'
    assert (asked.sampling.tool_choice, asked.sampling.response_format) == (None, None)


def test_null_is_like_absent():
    nulls = dict.fromkeys(("max_tokens", "stop", "n", "tools", "tool_choice", "response_format", "collegium", "seed"))
    assert chat(**nulls) == chat()


def test_max_tokens_goes_before_max_completion_tokens():
    assert chat(max_tokens=5, max_completion_tokens=9).sampling.max_tokens == 5


def test_several_choices_are_not_streamed_upstream():
    asked = chat(stream=True, n=2, stream_options={"include_usage": True})
    assert (asked.streamed, asked.include_usage, asked.sampling.stream) == (True, True, False)
    assert chat(stream=True).sampling.stream is True


@pytest.mark.parametrize("body", [b'{"input":"caf\\u00e9 \\"x\\""}', b'{"input" :   "caf\xc3\xa9 \\"x\\""}'])
def test_a_text_for_later_is_one_user_message(admit, body: bytes):
    request = parse(decode_task, body)
    submitted = admit(asked_by_task(request, options_of(request)))
    (message,) = decode_messages(submitted.prompt.body)
    assert (message.role, message.content) == ("user", 'café "x"')
    assert submitted.prompt_bytes == len(submitted.prompt.body)
    assert (submitted.task.surface, submitted.task.model, submitted.sampling.stream) == ("tasks", "auto", True)


def test_messages_for_later_stay_as_they_came(admit):
    assert admit(later(input=ASK)).prompt.body == msgspec.json.encode(ASK)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": "hello"}, "invalid_value", "messages"),
        ({"messages": None}, "invalid_value", "messages"),
        ({"messages": {"role": "user"}}, "invalid_value", "messages"),
        ({"messages": [{"content": "x"}]}, "invalid_value", "messages[0]"),
        ({"messages": [*ASK, {"role": 5}]}, "invalid_value", "messages[1].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "invalid_value", "messages[0].content"),
        ({"messages": [*ASK, {"role": "boss", "content": "x"}]}, "invalid_value", "messages[1].role"),
        ({"messages": ASK * (MAX_MESSAGES + 1)}, "invalid_value", "messages"),
        ({"model": "absent"}, "unknown_model", "model"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_completion_tokens": -1}, "invalid_value", "max_tokens"),
        ({"max_tokens": MAX_OUTPUT_TOKENS + 1}, "invalid_value", "max_tokens"),
        ({"seed": MAX_SEED + 1}, "invalid_value", "seed"),
        ({"seed": -MAX_SEED - 1}, "invalid_value", "seed"),
        ({"n": 0}, "invalid_value", "n"),
        ({"n": MAX_CHOICES + 1}, "invalid_value", "n"),
        ({"temperature": -0.1}, "invalid_value", "temperature"),
        ({"temperature": 2.1}, "invalid_value", "temperature"),
        ({"top_p": 1.1}, "invalid_value", "top_p"),
        ({"top_p": -1}, "invalid_value", "top_p"),
    ],
)
def test_a_bad_chat_is_refused_with_what_is_bad(refusal, fields, code, param):
    assert refusal(chat, **fields) == (code, param)


EXTENSION = [
    ({"deadline_seconds": 0}, "deadline_in_past", "deadline_seconds"),
    ({"deadline_seconds": -3}, "deadline_in_past", "deadline_seconds"),
    ({"deadline_seconds": MAX_DEADLINE_SECONDS + 1}, "invalid_value", "deadline_seconds"),
    ({"deadline_seconds": 1e308}, "invalid_value", "deadline_seconds"),
    ({"panel_size": 0}, "invalid_value", "panel_size"),
    ({"panel_size": MAX_PANEL + 1}, "invalid_value", "panel_size"),
    ({"conversation": ""}, "invalid_value", "conversation"),
    ({"conversation": "a b"}, "invalid_value", "conversation"),
    ({"conversation": "a>"}, "invalid_value", "conversation"),
    ({"conversation": "a\n"}, "invalid_value", "conversation"),
    ({"conversation": "a" * 129}, "invalid_value", "conversation"),
    ({"tags": {f"t{i}": "x" for i in range(MAX_TAGS + 1)}}, "invalid_value", "tags"),
    ({"tags": {"t": "x" * (MAX_TAG_CHARS + 1)}}, "invalid_value", "tags"),
    ({"tags": {"t" * (MAX_TAG_CHARS + 1): "x"}}, "invalid_value", "tags"),
    ({"quality_min": -0.1}, "invalid_value", "quality_min"),
    ({"quality_min": 1.1}, "invalid_value", "quality_min"),
    ({"plan": "cascade", "quality_min": 1e308}, "invalid_value", "quality_min"),
    ({"plan": "single", "quality_min": 0.5}, "unsupported_option", "quality_min"),
    ({"plan": "panel", "quality_min": 0.5}, "unsupported_option", "quality_min"),
    ({"budget_usd_max": "0"}, "invalid_value", "budget_usd_max"),
    ({"budget_usd_max": "-1"}, "invalid_value", "budget_usd_max"),
    ({"budget_usd_max": "much"}, "invalid_value", "budget_usd_max"),
    ({"budget_usd_max": "1e99"}, "invalid_value", "budget_usd_max"),
    ({"memory": "a//b"}, "invalid_value", "memory"),
    ({"memory": "notes"}, "insufficient_scope", None),
]


@pytest.mark.parametrize(("fields", "code", "param"), EXTENSION)
def test_a_bad_option_is_refused_at_both_doors(refusal, fields, code, param):
    assert refusal(chat, collegium=fields) == (code, param)
    assert refusal(later, **fields) == (code, param)


@pytest.mark.parametrize(
    "fields",
    [
        {"deadline_seconds": MAX_DEADLINE_SECONDS},
        {"panel_size": 1},
        {"panel_size": MAX_PANEL},
        {"conversation": "a" * 128},
        {"tags": {f"t{i}": "x" * MAX_TAG_CHARS for i in range(MAX_TAGS)}},
        {"cache": "exact"},
        {"cache": "off"},
        {"gates": [], "verified": {}, "off_peak": False},
        {"plan": "cascade"},
        {"plan": "cascade", "quality_min": 0},
        {"quality_min": 1.0},
    ],
)
def test_what_is_just_within_its_bound_is_accepted(admit, fields):
    admit(chat(collegium=fields))
    admit(later(**fields))


def test_whoever_states_a_quality_gets_the_plan_that_can_reach_it(admit):
    task = admit(chat(collegium={"quality_min": 0.8})).task
    assert (task.plan, task.quality_min) == ("cascade", 0.8)
    assert admit(later(plan="cascade")).task.quality_min == 0
    assert (admit(chat()).task.plan, admit(chat()).task.quality_min) == ("single", 0)


@pytest.mark.parametrize("options", [{"plan": "cascade"}, {"quality_min": 0.5}, {"plan": "cascade", "quality_min": 0}])
def test_a_named_model_is_never_cascaded(refusal, options):
    assert refusal(chat, model="m", collegium=options) == ("unsupported_plan", "plan")
    assert refusal(later, model="m", **options) == ("unsupported_plan", "plan")


RANKED = st.lists(
    st.tuples(st.sampled_from(RANKS_UP), st.integers(0, 1_000), st.integers(0, 1_000)), min_size=1, max_size=6
)


# The fixtures hold nothing.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RANKED)
def test_a_cascades_hold_covers_every_climb_that_its_models_allow(model, admit, roster):
    models = [
        model(f"m{place}", rank=rank, charge=Price(input_picos=first, output_picos=second))
        for place, (rank, first, second) in enumerate(roster)
    ]
    submitted = admit(chat(collegium={"plan": "cascade"}), *models)
    single = msgspec.structs.replace(submitted, task=msgspec.structs.replace(submitted.task, plan="single"))
    held = worst_picos(submitted, models)
    for count in range(1, 4):
        for present in itertools.combinations(RANKS_UP, count):
            left = [one for one in models if one.rank in present]
            climb = cascade_ranks(one.rank for one in left)
            most = {rank: worst_picos(single, [one for one in left if one.rank == rank]) for rank in climb}
            assert held >= sum(most[rank] for rank in climb)


def test_the_bounds_of_the_sampling_are_inclusive(admit):
    for fields in (
        {"max_tokens": 1},
        {"max_tokens": MAX_OUTPUT_TOKENS},
        {"seed": MAX_SEED},
        {"seed": -MAX_SEED},
        {"n": MAX_CHOICES},
        {"temperature": 2, "top_p": 0},
        {"temperature": 0, "top_p": 1},
    ):
        submitted = admit(chat(**fields))
        assert codec.journey.decode(codec.encode(submitted)) == submitted


def test_only_a_chat_may_be_made_anew(admit):
    admit(chat(collegium={"cache": "refresh"}))
    with pytest.raises(ApiError) as refused:
        later(cache="refresh")
    assert (refused.value.code, refused.value.param) == ("unsupported_option", "cache")


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"input": []}, "invalid_value", "input"),
        ({"input": 5}, "invalid_value", "input"),
        ({"input": None}, "invalid_value", "input"),
        ({"input": [{"role": "boss", "content": "x"}]}, "invalid_value", "input[0].role"),
        ({"input": "x" * 6_000}, "context_length_exceeded", "input"),
        ({"model": "absent"}, "unknown_model", "model"),
    ],
)
def test_a_bad_task_is_refused_with_what_is_bad(refusal, fields, code, param):
    assert refusal(later, **fields) == (code, param)


def test_an_unknown_model_is_refused_by_its_name(admit):
    with pytest.raises(ApiError, match="'gpt-9'") as raised:
        admit(chat(model="gpt-9"))
    assert raised.value.kind.http_status == 400


def test_a_disabled_model_is_as_unknown(refusal, model):
    assert refusal(chat, model("m", enabled=False), model="m") == ("unknown_model", "model")


def test_auto_needs_a_model_for_the_domain(refusal, admit, model):
    lawyer = model("lawyer", domains=["law"])
    assert refusal(chat, lawyer) == ("no_eligible_model", "model")
    assert refusal(chat, lawyer, collegium={"domain": "art"}) == ("no_eligible_model", "model")
    assert refusal(chat, model("m", enabled=False)) == ("no_eligible_model", "model")
    admit(chat(collegium={"domain": "law"}), lawyer)
    admit(chat(model="lawyer"), lawyer)


def test_a_prompt_that_no_eligible_model_can_hold_is_refused(refusal, admit, model):
    long = [{"role": "user", "content": "x" * 6_000}]
    assert refusal(chat, model("m"), messages=long) == ("context_length_exceeded", "messages")
    admit(chat(messages=long), model("m"), model("large", context_tokens=2_000))
    assert refusal(chat, model("m"), model("large", context_tokens=2_000), messages=long, model="m") == (
        "context_length_exceeded",
        "messages",
    )


def test_a_prompt_is_too_long_from_six_bytes_a_token_on(admit, refusal, model):
    """Counted on the JSON of the messages, for a model of a thousand tokens."""
    around = len(msgspec.json.encode([{"role": "user", "content": ""}]))
    just = [{"role": "user", "content": "x" * (5_999 - around)}]
    over = [{"role": "user", "content": "x" * (6_000 - around)}]
    admit(chat(messages=just), model("m"))
    assert refusal(chat, model("m"), messages=over) == ("context_length_exceeded", "messages")


def test_the_document_says_which_status_each_refusal_has():
    statuses = {code: ERRORS[code].http_status for _, code, _ in EXTENSION}
    assert statuses == {
        "deadline_in_past": 400,
        "invalid_value": 400,
        "unsupported_option": 400,
        "insufficient_scope": 403,
    }
    assert (ERRORS["context_length_exceeded"].http_status, ERRORS["no_eligible_model"].http_status) == (422, 422)
