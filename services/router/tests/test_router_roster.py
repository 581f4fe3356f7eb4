"""The roster over restarts, and where it comes from."""

from decimal import Decimal

import msgspec
from collegium_contracts import codec
from collegium_contracts.state import Roster
from collegium_contracts.students import StudentOf
from collegium_router.roster.configured import records
from collegium_router.roster.roster import merge
from collegium_runtime.runtime_file import EmbeddedModel
from collegium_settings import ModelSettings, PriceSettings, Secret, Settings
from collegium_settings.embeddings import BUNDLED_EMBEDDER


def test_the_first_start_introduces_what_is_configured(model):
    assert merge(None, [model("a"), model("b")], 1) == Roster(version=1, models=[model("a"), model("b")])


def test_a_rank_that_was_earned_survives_a_restart(model):
    standing = Roster(version=4, models=[model("a", rank="teacher"), model("b")])
    merged = merge(standing, [model("a", rank="student"), model("b")], 1)
    assert merged is standing
    assert merged.models[0].rank == "teacher"


def test_everything_but_the_rank_comes_from_the_configuration(model):
    standing = Roster(version=4, models=[model("a", rank="ta", max_output_tokens=5)])
    merged = merge(standing, [model("a", rank="student", max_output_tokens=7, pool="gpu")], 1)
    assert merged == Roster(version=5, models=[model("a", rank="ta", max_output_tokens=7, pool="gpu")])


def test_a_model_that_is_no_longer_configured_is_kept_and_disabled(model):
    standing = Roster(version=1, models=[model("gone", rank="ta"), model("stays")])
    merged = merge(standing, [model("stays")], 1)
    assert merged.version == 2
    assert {one.name: one.enabled for one in merged.models} == {"stays": True, "gone": False}
    assert next(one for one in merged.models if one.name == "gone").rank == "ta"
    assert merge(merged, [model("stays")], 1) is merged, "and disabling it again changes nothing"


def test_a_model_that_comes_back_is_enabled_with_the_rank_it_had(model):
    standing = Roster(version=2, models=[model("back", rank="teacher", enabled=False)])
    assert merge(standing, [model("back")], 1) == Roster(version=3, models=[model("back", rank="teacher")])


def test_the_version_grows_only_when_something_changed(model):
    roster = merge(None, [model("a")], 1)
    for _ in range(3):
        roster = merge(codec.state.decode(codec.encode(roster)), [model("a")], 1)
    assert roster.version == 1
    assert merge(roster, [model("a"), model("b")], 1).version == 2


def test_no_endpoint_and_no_key_leaves_the_configuration():
    settings = Settings(
        models=(
            ModelSettings(
                name="m",
                base_url="https://models.example/v1",
                api_key=Secret("sk-very-secret"),
                upstream_model="inner-name",
                rank="ta",
                domains=("law",),
                price=PriceSettings(input_usd_per_mtok=Decimal("0.02")),
            ),
        )
    )
    record, _embedder = records(settings, None)
    shown = msgspec.json.encode(record).decode()
    assert (record.name, record.rank, record.domains) == ("m", "ta", ["law"])
    assert record.price.input_picos == 20_000, "0.02 dollars a million tokens"
    for hidden in ("sk-very-secret", "models.example", "inner-name"):
        assert hidden not in shown


def test_the_embedded_model_is_one_of_the_roster_unless_its_name_is_taken():
    embedded = EmbeddedModel("small", "http://127.0.0.1:1/v1")
    assert [record.name for record in records(Settings(), embedded)] == ["small", BUNDLED_EMBEDDER]
    taken = Settings(
        models=(ModelSettings(name="small", base_url="https://models.example/v1", rank="ta", price=PriceSettings()),)
    )
    assert [(record.name, record.rank) for record in records(taken, embedded)][:-1] == [("small", "ta")]


def test_a_configured_model_that_takes_a_students_name_is_another_model(model):
    student = model(
        "tuned", rank="ta", drained=True, registered=True, student=StudentOf(kind="endpoint", tenants=["acme"])
    )
    merged = merge(Roster(version=1, models=[student]), [model("tuned", rank="student")], 1)
    (found,) = merged.models
    assert (found.student, found.rank, found.drained, found.registered) == (None, "student", False, False)
