"""The verbs about who may do what: which requests they make, and what they refuse before anybody is asked."""

from __future__ import annotations

import msgspec
import pytest
from collegium_cli.arguments import parser


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLEGIUM_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("COLLEGIUM_API_KEY", "none")


def run(*words: str) -> int:
    options = parser().parse_args(list(words))
    return options.run(options)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tenant", "suspend"], "give ids"),
        (["tenant", "tier", "acme"], "give --tier"),
        (["tenant", "create"], "new tenant's id"),
        (["project", "create", "web"], "give --tenant"),
        (["project", "archive", "--tenant", "acme"], "give ids"),
        (["key", "create"], "give --tenant"),
        (["key", "revoke"], "give ids"),
        (["limits", "set", "--tenant", "acme"], "at least one limit"),
        (["budget", "set", "--usd", "1"], "give --tenant"),
        (["budget", "set", "--tenant", "acme"], "give --usd"),
        (["budget", "show"], "give --tenant"),
        (["budget", "set", "a", "b", "--tenant", "acme", "--usd", "1"], "one budget"),
        (["budget", "set", "--tenant", "a", "--usd", "1", "--project", "p", "--key", "k"], "either"),
    ],
)
def test_a_wrong_command_says_what_to_give(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert run(*words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "requests"),
    [
        (["tenant", "suspend", "a", "b"], [("POST", "tenants/a/suspend"), ("POST", "tenants/b/suspend")]),
        (["tenant", "delete", "../x"], [("DELETE", "tenants/..%2Fx")]),
        (["key", "revoke", "k1", "k2"], [("POST", "keys/k1/revoke"), ("POST", "keys/k2/revoke")]),
        (["project", "restore", "web", "--tenant", "a/b"], [("POST", "projects/a%2Fb/web/restore")]),
        (["limits", "rm", "--key", "k1"], [("DELETE", "keys/k1/limits")]),
        (["budget", "set", "--tenant", "acme", "--usd", "1"], [("PUT", "budgets/acme/tenant")]),
        (["budget", "set", "--tenant", "acme", "--usd", "1", "--project", "w"], [("PUT", "budgets/acme/project-w")]),
        (["budget", "rm", "x", "--tenant", "acme"], [("DELETE", "budgets/acme/x")]),
    ],
)
def test_a_dry_run_shows_the_requests_and_sends_none(
    words: list[str], requests: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
):
    assert run(*words, "--dry-run", "--json") == 0
    shown = msgspec.json.decode(capsys.readouterr().out)
    assert [(one["method"], one["path"]) for one in shown] == [
        (method, f"/v1/admin/{path}") for method, path in requests
    ]


def test_an_amount_goes_as_it_was_written(capsys: pytest.CaptureFixture[str]):
    run("budget", "set", "--tenant", "acme", "--usd", "0.10", "--alerts", "80,100", "--dry-run", "--json")
    (request,) = msgspec.json.decode(capsys.readouterr().out)
    assert (request["body"]["usd"], request["body"]["alert_percents"]) == ("0.10", [80, 100])


def test_without_a_gateway_a_verb_says_so(capsys: pytest.CaptureFixture[str]):
    assert run("tenant", "ls") == 1
    assert "no gateway at 127.0.0.1:1" in capsys.readouterr().err
