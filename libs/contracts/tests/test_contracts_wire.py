"""Old bytes still decode: the golden files were written once and are never written again."""

import contextlib
import importlib.util
from pathlib import Path

import msgspec
import pytest
from collegium_contracts import codec, journey, messages, routing
from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import UndecodableMessageError, UnknownVersionError
from hypothesis import given
from hypothesis import strategies as st

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("contract_samples", HERE / "samples.py")
assert _spec is not None
assert _spec.loader is not None
_samples = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_samples)
SAMPLES = _samples.SAMPLES
ROUTED = ("RunAttempt", "AttemptAnswered", "AttemptFailed", "TaskCompleted", "TaskFailed", "TaskCanceled")


def golden(name: str) -> bytes:
    return bytes.fromhex((HERE / "golden" / f"{name}.hex").read_text())


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_old_bytes_decode_to_what_they_meant(name):
    assert codec.journey.decode(golden(name)) == SAMPLES[name]


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_the_wire_form_has_not_changed(name):
    # As maps: msgspec writes a wider header for a struct of more than 15 fields, however few of them it sends.
    assert msgspec.msgpack.decode(codec.encode(SAMPLES[name])) == msgspec.msgpack.decode(golden(name))


def test_every_message_of_the_journey_has_a_golden_file_and_a_hop():
    in_hops = {name for hop in journey.HOPS for name in hop.messages}
    members = {member.__name__ for member in messages.JourneyMessage.__args__}
    assert members == set(SAMPLES) == in_hops


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_unknown_fields_pass(name):
    fields = msgspec.msgpack.decode(golden(name))
    later = msgspec.msgpack.encode({**fields, "field_of_a_later_version": [1, {"a": 2}]})
    assert codec.journey.decode(later) == SAMPLES[name]


def test_missing_fields_take_their_defaults():
    fields = msgspec.msgpack.decode(golden("TaskSubmitted"))
    del fields["panel_size"]
    del fields["task"]["project"]
    decoded = codec.journey.decode(msgspec.msgpack.encode(fields))
    assert (decoded.panel_size, decoded.task.project) == (3, "default")


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_an_unknown_major_version_is_refused_by_name(name):
    fields = msgspec.msgpack.decode(golden(name))
    with pytest.raises(UnknownVersionError, match=f"{name} has major version 2"):
        codec.journey.decode(msgspec.msgpack.encode({**fields, "v": 2}))


def test_a_later_version_of_another_shape_is_still_told_by_its_version():
    with pytest.raises(UnknownVersionError, match="major version 7"):
        codec.journey.decode(msgspec.msgpack.encode({"type": "TaskSubmitted", "v": 7, "task": 3}))


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"{}", msgspec.msgpack.encode({"task": 1}), msgspec.msgpack.encode({"type": "Nope"})]
)
def test_what_is_no_message_is_refused(payload):
    with pytest.raises(UndecodableMessageError):
        codec.journey.decode(payload)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(payload):
    with contextlib.suppress(UndecodableMessageError, UnknownVersionError):
        codec.journey.decode(payload)


@given(st.sampled_from(sorted(SAMPLES)), st.integers(0, 10_000), st.integers(0, 255))
def test_no_damage_raises_anything_else(name, position, value):
    payload = bytearray(golden(name))
    payload[position % len(payload)] = value
    with contextlib.suppress(UndecodableMessageError, UnknownVersionError):
        codec.journey.decode(bytes(payload))


def test_what_consensus_asks_for_has_a_wire_form_of_its_own():
    run = msgspec.structs.replace(SAMPLES["AttemptRequested"].run, try_number=0, earlier=[])
    asked = messages.AttemptRequested(run=run, asked=["sim", "other"])
    assert codec.journey.decode(golden("AttemptRequested-next")) == asked
    assert msgspec.msgpack.decode(codec.encode(asked)) == msgspec.msgpack.decode(golden("AttemptRequested-next"))


def test_sealed_options_have_a_wire_form_of_their_own():
    sealed = messages.Sampling(max_tokens=64, words=_samples.SEALED, words_bytes=21)
    submitted = msgspec.structs.replace(SAMPLES["TaskSubmitted"], sampling=sealed)
    assert codec.journey.decode(golden("TaskSubmitted-sealed")) == submitted
    assert msgspec.msgpack.decode(codec.encode(submitted)) == msgspec.msgpack.decode(golden("TaskSubmitted-sealed"))
    assert golden("TaskSubmitted") != golden("TaskSubmitted-sealed")


ROUTE = routing.Route(
    model="sim",
    rank="student",
    domain="law",
    policy_version=7,
    policy_of="tenant",
    propensity=0.985,
    explored=True,
    reasons=["good_enough"],
    quality=0.75,
    gain=0.125,
    candidates=["sim", "big"],
    embedder="mini",
    features=Envelope("k1", b"n", b"f"),
)


def test_a_route_travels_with_its_attempt_and_is_repeated_by_the_end_of_it():
    told = {name: msgspec.structs.replace(SAMPLES[name], route=ROUTE) for name in sorted(ROUTED)}
    assert {name: codec.journey.decode(codec.encode(message)) for name, message in told.items()} == told
    assert codec.journey.decode(golden("TaskCompleted-route")) == told["TaskCompleted"]


@pytest.mark.parametrize("name", sorted(ROUTED))
def test_messages_of_before_routes_have_none(name):
    assert codec.journey.decode(golden(name)).route is None
