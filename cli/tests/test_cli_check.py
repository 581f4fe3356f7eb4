"""``check``: one line for each dependency, failures told, no secret shown."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from collegium_cli import check
from collegium_cli.arguments import parser
from collegium_settings import Settings, load
from collegium_testing import ModelSimulator
from collegium_testing.otlp import OtlpReceiver

MODEL_KEY = "mk-very-secret-of-a-model"
PASSWORD = "very-secret-of-the-database"
_HEAD = "FAIL"


def settings_of(folder: Path, **sections: object) -> Settings:
    config = folder / "collegium.yaml"
    config.write_text(json.dumps({"data_dir": str(folder), **sections}))
    return load(config, {})


def model(base_url: str) -> dict[str, object]:
    return {"name": "glm-4.5", "base_url": base_url, "api_key": MODEL_KEY, "rank": "ta", "price": {}}


def checked(settings: Settings, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, tuple[bool, str]]]:
    code = check.run(settings, as_json=True)
    output = capsys.readouterr()
    assert MODEL_KEY not in output.out + output.err
    assert PASSWORD not in output.out + output.err
    assert output.err == ""
    found = [json.loads(line) for line in output.out.splitlines()]
    return code, {one["what"]: (one["ok"], one["found"]) for one in found}


def test_with_nothing_configured_there_is_nothing_to_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = checked(settings_of(tmp_path), capsys)
    assert code == 0
    assert set(found) == {"configuration", "broker", "database"}


def test_what_does_not_answer_is_named_and_the_rest_is_checked_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(
        tmp_path,
        nats={"url": "nats://127.0.0.1:1"},
        database={"url": f"postgresql://me:{PASSWORD}@127.0.0.1:1/x"},
        models=[model("http://127.0.0.1:1/v1")],
        telemetry={"otlp_endpoint": "http://127.0.0.1:1"},
    )
    code, found = checked(settings, capsys)
    assert code == 1
    assert {what for what, (well, _) in found.items() if not well} == {"broker", "database", "model glm-4.5", "traces"}


def test_servers_that_answer_are_well(
    tmp_path: Path, nats_url: str, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with OtlpReceiver() as receiver:
        settings = settings_of(
            tmp_path,
            nats={"url": nats_url},
            database={"url": database_url},
            telemetry={"otlp_endpoint": receiver.endpoint},
        )
        code, found = checked(settings, capsys)
    assert code == 0, found
    assert found["broker"][1].startswith("nats-server 2.")
    assert found["database"][1].startswith("PostgreSQL ")


async def test_a_model_is_asked_with_its_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with ModelSimulator() as simulator:
        settings = settings_of(tmp_path, models=[model(simulator.base_url)])
        code, found = await asyncio.to_thread(checked, settings, capsys)
        assert code == 0, found
        assert found["model glm-4.5"][0]


def test_for_people_each_finding_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_of(tmp_path, models=[model("http://127.0.0.1:1/v1")])
    assert check.run(settings, as_json=False) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "ok", "ok", _HEAD]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("htp: {port: 1}", "htp: read an unknown key"),
        ("http: {port: 70000}", "http.port: read 70000; accepted: a whole number from 0 to 65535"),
        ("tenants: [{id: acme, api_key: ${NOT_THERE}}]", "tenants[0].api_key: read ${NOT_THERE}"),
        (f"tenants: [{{id: acme, api_key: sk-clg-{'s' * 80}}}]", "tenants[0].api_key"),
        ("http: [", "line 2, column 1"),
        (None, "No such file"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_configuration_that_cannot_be_used_is_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, told: str, as_json: bool
) -> None:
    config = tmp_path / "collegium.yaml"
    if text is not None:
        config.write_text(text)
    words = ["check", "--config", str(config), "--data", str(tmp_path), *(["--json"] if as_json else [])]
    options = parser().parse_args(words)
    assert options.run(options) == 1
    output = capsys.readouterr()
    assert output.err == ""
    (line,) = output.out.splitlines()
    assert "ssss" not in line
    if as_json:
        found = json.loads(line)
        assert (found["what"], found["ok"]) == ("configuration", False)
        assert told in found["found"]
    else:
        assert line.startswith(f"{_HEAD}  configuration: ")
        assert told in line


def test_each_problem_of_a_configuration_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "collegium.yaml"
    config.write_text("http: {port: 70000, hots: x}\ncache: {wrong_max: 2}")
    assert check.read_and_run(config, tmp_path, as_json=False) == 1
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [_HEAD] * 3
