"""The command line: what it takes, what it refuses, and that help loads nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from collegium_cli.arguments import parser

HEAVY = ("aiohttp", "alembic", "asyncpg", "faststream", "grpc", "nats", "opentelemetry", "sqlalchemy", "structlog")
VERBS = (
    ["up"],
    ["demo"],
    ["serve", "router"],
    ["migrate"],
    ["check"],
    ["ask", "hi"],
    ["task", "ls"],
    ["tap", ">"],
    ["model", "ls"],
    ["tenant", "ls"],
    ["key", "ls"],
    ["spend"],
    ["bench", "gateway"],
)


def test_help_loads_nothing_heavy() -> None:
    program = "import sys; from collegium_cli.arguments import parser; parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in done.stdout.split()}.isdisjoint(HEAVY)


@pytest.mark.parametrize("words", VERBS, ids=lambda words: words[0])
def test_every_verb_takes_a_configuration_a_folder_and_json(words: list[str]) -> None:
    options = parser().parse_args([*words, "--json", "--config", "c.yaml", "--data", "d"])
    assert (options.json, options.config, options.data) == (True, Path("c.yaml"), Path("d"))


@pytest.mark.parametrize("port", ["-1", "65536", "http", "١"])
def test_a_port_that_is_none_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["up", f"--http-port={port}"])
    assert ended.value.code == 2
    assert "is no port" in capsys.readouterr().err


def test_admin_ports_are_given_to_one_service_or_named() -> None:
    assert parser().parse_args(["serve", "router", "--admin-port", "9100"]).admin_port == [("", 9100)]
    named = parser().parse_args(["serve", "router,gateway", "--admin-port=router=1", "--admin-port=gateway=2"])
    assert named.admin_port == [("router", 1), ("gateway", 2)]
    assert named.services == ("router", "gateway")


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "collegium_cli", *words, "--data", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("serve", "routr"), 2, "routr: not one of"),
        (("serve", "router"), 2, "no broker"),
        (("serve", "router", "--admin-port", "gateway=1"), 2, "not served here"),
        (("up", "--only", "routr"), 2, "routr"),
        (("migrate",), 2, "nats.url and database.url"),
        (("task", "show"), 2, "give the id"),
        (("task", "show", "a.>"), 2, "no id of a task"),
        (("task", "show", "tsk_" + "0" * 26), 1, "no broker known"),
        (("tap", "a b"), 2, "no subject"),
        (("tap", ">", "--since", "soon"), 2, "--since"),
        (("tap", ">"), 1, "no broker known"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(words: tuple[str, ...], code: int, said: str, tmp_path: Path) -> None:
    done = run(*words, folder=tmp_path)
    assert done.returncode == code
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "known", "said"),
    [
        (("tenant", "ls"), None, "no gateway known"),
        (("spend",), None, "no gateway known"),
        (("task", "show", "tsk_" + "0" * 26), "broker_unavailable", "no broker known"),
        (("tap", ">"), "broker_unavailable", "no broker known"),
    ],
)
def test_with_json_a_failure_is_the_contracts_error_object(
    words: tuple[str, ...], known: str | None, said: str, tmp_path: Path
) -> None:
    done = run(*words, "--json", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    told = json.loads(done.stderr)["error"]
    assert (told["type"], told["param"], told["code"]) == ("command_error", None, known)
    assert said in told["message"]


def test_with_json_an_unusable_configuration_is_an_error_object_and_ends_as_ever(tmp_path: Path) -> None:
    config = tmp_path / "collegium.yaml"
    config.write_text("http: {prt: 1}\n")
    done = run("tenant", "ls", "--json", "--config", str(config), folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    told = json.loads(done.stderr)["error"]
    assert told["code"] == "invalid_settings"
    assert "http.prt" in told["message"]


def test_an_unknown_key_of_the_configuration_ends_every_verb_with_its_path(tmp_path: Path) -> None:
    config = tmp_path / "collegium.yaml"
    config.write_text("http: {prt: 1}\n")
    done = run("up", "--config", str(config), folder=tmp_path)
    assert done.returncode == 2
    assert "http.prt" in done.stderr
