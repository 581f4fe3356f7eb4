"""The replay's figures and pictures, and how a pool is priced and ranked; the running itself is not done here."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest
from collegium_cli.eval.reading import EvaluationError
from collegium_cli.eval.replaying import curve, figures, pricing
from collegium_cli.eval.replaying.asking import Replayed, Served


def served(count: int, cost: float, score: float, model: str = "mid") -> list[Served]:
    return [Served(str(one), "law", model, score, cost, 1.0, 1.0) for one in range(count)]


REPLAYED = Replayed([*served(300, 1.0, 1.0, "big"), *served(100, 0.1, 0.9)], [(200, 4.0), (400, 6.0)], 120, 7, None)


def test_figures_stand_beside_always_the_teacher():
    found = figures.figures(REPLAYED, 300, 1)
    marginal, cumulative = found["marginal"], found["cumulative"]
    assert marginal["queries"] == 100
    assert marginal["saving"] == {"value": 0.9, "low": 0.9, "high": 0.9}
    assert marginal["quality_change"]["value"] == -0.1
    assert cumulative["saving"]["value"] == 0.225
    assert cumulative["saving"]["low"] < 0.225 < cumulative["saving"]["high"]
    assert cumulative["probes_usd"] == 6.0
    assert cumulative["saving_with_probes"] == pytest.approx(1 - 316 / 400)
    assert [window["rows"] for window in found["windows"]] == [[0, 100], [100, 200], [200, 300], [300, 400]]
    assert found["share_after"] == {"mid": 1.0}
    assert figures.figures(REPLAYED, 400, 1)["marginal"] is None


def test_the_curve_is_a_table_and_a_picture():
    points = figures.curve_of(REPLAYED)
    assert [point["queries"] for point in points] == [200, 400]
    assert points[1]["cost_share"] == pytest.approx(0.55)
    assert points[1]["cumulative_cost_share_with_probes"] == pytest.approx(316 / 400)
    lines = curve.as_csv(points).splitlines()
    assert lines[0].startswith("queries,cost_share,")
    assert len(lines) == 3
    picture = ET.fromstring(curve.as_svg(points, "a <pool> & more"))
    assert len(picture.findall("{http://www.w3.org/2000/svg}polyline")) == 5
    assert curve.as_csv([]) == ""
    ET.fromstring(curve.as_svg([], "nothing"))


@pytest.fixture
def pool_file(tmp_path):
    rows = [
        {
            "input": f"q{one}",
            "outcomes": {
                "big": {"score": one % 10 > 0, "cost_usd": 0.01},
                "mid": {"score": one % 5 > 0, "cost_usd": 0.004},
                "tiny": {"score": one % 2, "cost_usd": 0.0001},
            },
        }
        for one in range(20)
    ]
    path = tmp_path / "pool.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_the_best_single_model_is_the_teacher_and_price_ranks_the_others(pool_file, tmp_path):
    found = pricing.read(pool_file, None, None, ())
    assert (found.teacher, found.ranks) == ("big", {"big": "teacher", "mid": "ta", "tiny": "student"})
    assert found.cost_usd(found.rows[0], "mid") == pytest.approx(0.004, rel=0.01)
    table = tmp_path / "prices.json"
    table.write_text('{"mid": {"output_usd_per_mtok": 5, "rank": "teacher"}, "tiny": {"call_usd": 0.001}}')
    two = pricing.read(pool_file, None, table, ("mid", "tiny"))
    assert (two.teacher, set(two.ranks)) == ("mid", {"mid", "tiny"})


def test_a_cascade_is_replayed_only_where_two_models_can_be_compared(pool_file, tmp_path):
    with pytest.raises(EvaluationError, match=r"tiny \(student\)"):
        pricing.check_cascade(pricing.read(pool_file, None, None, ()))
    with pytest.raises(EvaluationError, match=r"big \(teacher\)"):
        pricing.check_cascade(pricing.read(pool_file, None, None, ("big",)))
    table = tmp_path / "prices.json"
    prices = {"big": {"call_usd": 0.01}, "mid": {"call_usd": 0.004, "rank": "student"}, "tiny": {"call_usd": 0.0001}}
    table.write_text(json.dumps(prices))
    pricing.check_cascade(pricing.read(pool_file, None, table, ()))


@pytest.mark.parametrize(
    ("table", "models", "text"),
    [
        (None, ("nobody",), "no row has an outcome of nobody"),
        ('{"mid": {}}', (), "has no prices of big, tiny"),
        ('{"big": {"rank": "dean"}, "mid": {}, "tiny": {}}', (), "no rank"),
        ("no json", (), "prices.json"),
    ],
)
def test_what_cannot_be_served_is_said(pool_file, tmp_path, table, models, text):
    path = None
    if table is not None:
        path = tmp_path / "prices.json"
        path.write_text(table)
    with pytest.raises(EvaluationError, match=text):
        pricing.read(pool_file, None, path, models)
