"""Benchmarks: what they make of measurements, what they refuse, and what the command line takes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from collegium_cli.arguments import parser
from collegium_cli.bench import failover, fairness, figures, processes, profiles
from collegium_cli.bench.stage import StageError, StageOptions, child, stage
from collegium_cli.bench.watching import SettledTask


def settled(created_ms: float, settled_ms: float) -> SettledTask:
    return SettledTask(tenant="a", state="TaskCompleted", created_ms=created_ms, settled_ms=settled_ms)


def test_a_percentile_is_the_value_below_which_that_share_lies() -> None:
    ordered = [float(value) for value in range(100)]
    assert figures.percentile(ordered, 0.5) == 50.0
    assert figures.percentile(ordered, 0.99) == 99.0
    assert figures.percentile(ordered, 1.0) == 99.0
    assert figures.percentile([], 0.5) is None


def test_a_spread_of_nothing_has_no_figures_but_its_count() -> None:
    assert figures.spread([]) == {"count": 0, "p50_ms": None, "p90_ms": None, "p99_ms": None, "max_ms": None}
    assert figures.spread([3.0, 1.0, 2.0])["p50_ms"] == 2.0


def test_rates_are_none_where_nothing_happened() -> None:
    assert figures.per_second(500, 1_000, 3_000) == 250.0
    assert figures.per_second(0, 1_000, 3_000) is None
    assert figures.per_second(5, 1_000, 1_000) is None


def test_the_steady_rate_leaves_out_start_and_end() -> None:
    # Ten a second, but the first tenth and the last come much slower.
    times = [-5_000.0 + 500 * number for number in range(10)]
    times += [100.0 * number for number in range(80)]
    times += [8_000.0 + 900 * number for number in range(10)]
    assert figures.steady_rate(times) == pytest.approx(10, rel=0.02)
    assert figures.steady_rate(times[:9]) is None


def test_a_slope_is_that_of_the_line_through_the_points() -> None:
    assert figures.slope([(0, 5.0), (10, 25.0), (20, 45.0)]) == pytest.approx(2.0)
    assert figures.slope([(3, 1.0), (3, 2.0)]) is None


def test_a_settled_slope_leaves_out_what_fills_at_the_start() -> None:
    growing_then_flat = [(float(x), min(x, 30.0)) for x in range(90)]
    assert figures.settled_slope(growing_then_flat) == pytest.approx(0.0, abs=1e-9)
    assert figures.slope(growing_then_flat) > 0.1


def test_the_window_begins_when_all_queues_are_full_and_ends_before_the_first_is_empty() -> None:
    times = {"quick": [float(at) for at in range(0, 1_000, 10)], "slow": [float(at) for at in range(0, 400, 40)]}
    assert figures.contended_window(100.0, times, 100) == (100.0, 890.0)
    # None has come so far: to the last settlement.
    assert figures.contended_window(100.0, times, 1_000) == (100.0, 990.0)
    assert figures.contended_window(2_000.0, times, 100) is None


def weighted(light: int, middle: int, heavy: int) -> dict[str, list[float]]:
    counts = {"light": light, "middle": middle, "heavy": heavy}
    return {tenant: [1_000 * (number + 0.5) / count for number in range(count)] for tenant, count in counts.items()}


def test_shares_that_follow_the_weights_are_kept() -> None:
    report = fairness.judge_weights(0.0, weighted(50, 200, 800), 5_000)
    assert report["kept"]
    assert report["shares"]["heavy"] == pytest.approx(16 / 21, abs=0.001)


@pytest.mark.parametrize("counts", [(300, 300, 300), (50, 200, 700), (57, 200, 800)])
def test_a_share_more_than_a_tenth_off_its_promise_is_missed(counts: tuple[int, int, int]) -> None:
    assert not fairness.judge_weights(0.0, weighted(*counts), 5_000)["kept"]


def test_too_few_completions_tell_nothing_about_shares() -> None:
    report = fairness.judge_weights(0.0, weighted(2, 8, 32), 5_000)
    assert report["shares"] is None
    assert not report["kept"]


def test_the_limit_beside_a_neighbour_is_twice_alone_or_one_service_time_more() -> None:
    assert figures.wait_limit_ms(10, 50) == 60
    assert figures.wait_limit_ms(200, 50) == 400


def test_recovery_is_when_the_last_task_from_before_the_kill_settled() -> None:
    tasks = [settled(0, 150), settled(900, 1_100), settled(950, 21_000), settled(1_500, 1_700)]
    report = failover.recovery(tasks, 1_000.0, 200.0)
    assert report["held"] == 2
    assert report["recovered_seconds"] == pytest.approx(19.8)
    assert report["created_after"]["max_ms"] == 200
    # From the kill to the first settlement, up to the last submission only.
    assert report["longest_silence_seconds"] == pytest.approx(0.4)


def test_nothing_in_hand_is_recovered_at_once() -> None:
    assert failover.recovery([settled(0, 100)], 1_000.0, 200.0)["recovered_seconds"] == 0.0


def outcome(**changed: object) -> dict[str, object]:
    figures_of = {"lost": 0, "doubled": 0, "settled": 9, "booked": 9, "recovered_seconds": 3.0, "limit_seconds": 22.0}
    return {**figures_of, **changed}


@pytest.mark.parametrize("changed", [{"lost": 1}, {"doubled": 1}, {"booked": 10}, {"recovered_seconds": 22.1}])
def test_a_kill_is_not_survived_where_anything_is_off(changed: dict[str, object]) -> None:
    assert failover.kept(outcome())
    assert not failover.kept(outcome(**changed))


def test_every_part_that_is_killed_has_its_limit() -> None:
    assert failover.LIMIT_SECONDS["worker"] == 22.0
    assert set(failover.LIMIT_SECONDS) <= set(failover.PARTS)


FOLDED = """\
runpy:main;uvloop:run;collegium_bus.work:slot;collegium_worker_pool.running.attempts:handle;aiohttp.client:post 30
runpy:main;uvloop:run;collegium_bus.work:slot;collegium_worker_pool.running.attempts:handle 10
runpy:main;uvloop:run;nats.parser:parse 60
"""


def test_a_profile_names_the_function_of_ours_that_led_to_a_librarys() -> None:
    digest = profiles.digest(FOLDED, 1_000)
    sample_us = profiles.SAMPLE_SECONDS * 1e6 / 1_000
    assert digest["us_per_task"] == pytest.approx(100 * sample_us, rel=0.01)
    assert digest["itself"]["aiohttp.client:post < collegium_worker_pool.running.attempts:handle"] == round(
        30 * sample_us, 1
    )
    assert digest["itself"]["nats.parser:parse"] == round(60 * sample_us, 1)
    assert digest["packages"] == {
        "libraries": round(60 * sample_us, 1),
        "collegium_worker_pool": round(40 * sample_us, 1),
    }
    assert "uvloop:run" not in digest["within"]
    assert digest["within"]["collegium_worker_pool.running.attempts:handle"] == round(40 * sample_us, 1)


def test_processor_time_and_memory_are_those_of_a_process_and_its_descendants() -> None:
    own = {"own": os.getpid()}
    before = processes.cpu_seconds(own)["own"]
    while processes.cpu_seconds(own)["own"] < before + 0.02:
        sum(range(10_000))
    assert processes.memory_mb(own)["own"] > 5
    gone = {"gone": 2**22 + 1}
    assert processes.cpu_seconds(gone) == {"gone": 0.0}
    assert processes.memory_mb(gone) == {"gone": 0.0}


def test_services_that_share_a_process_are_one() -> None:
    assert processes.by_process({"router": 7, "gateway": 8, "worker-pool": 7}) == {
        "router+worker-pool": 7,
        "gateway": 8,
    }


def test_a_child_that_does_not_start_is_told() -> None:
    with pytest.raises(StageError, match="ended before it was ready"), child("collegium_testing.nothing"):
        pass


def test_a_folder_with_an_earlier_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(StageError, match="earlier run"), stage(StageOptions(tenants={}, keep=tmp_path)):
        pass


def test_the_kinds_and_their_options() -> None:
    options = parser().parse_args(
        ["bench", "tasks", "--tasks", "9", "--peers", "celery,taskiq", "--peer-python", sys.executable, "--memory"]
    )
    assert (options.tasks, options.peers, options.peer_python) == (9, ("celery", "taskiq"), Path(sys.executable))
    assert options.memory
    assert parser().parse_args(["bench", "fairness", "--part", "weights"]).part == "weights"
    assert parser().parse_args(["bench", "failover", "--kill", "worker,broker"]).kill == ("worker", "broker")


@pytest.mark.parametrize(
    "words", [["tasks", "--tasks", "0"], ["tasks", "--clients", "-1"], ["tasks", "--via", "smtp"], []]
)
def test_what_cannot_be_measured_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["bench", *words])
    assert ended.value.code == 2
    assert capsys.readouterr().err


def test_an_unknown_part_to_kill_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    options = parser().parse_args(["bench", "failover", "--kill", "moon"])
    assert options.run(options) == 2
    assert "moon" in capsys.readouterr().err
