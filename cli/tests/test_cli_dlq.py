"""The verbs ``dlq`` and ``task retry``: what they ask of the gateway, and what they refuse to guess."""

from __future__ import annotations

import json
from typing import Any

import pytest
from collegium_cli.arguments import parser
from collegium_cli.tasks import dlq
from collegium_cli.tasks import verbs as tasks
from collegium_settings import Settings

TASK = "tsk_" + "0" * 26


class Gateway:
    """Answers with what the test prepared, by method and path, and keeps what was asked."""

    def __init__(self, answers: dict[tuple[str, str], list[Any]]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str, Any]] = []

    def call(self, method: str, path: str, body: Any = None) -> Any:
        self.asked.append((method, path, body))
        return self.answers[method, path.partition("?")[0]].pop(0)


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(answers: dict[tuple[str, str], list[Any]]) -> Gateway:
        made = Gateway(answers)
        for module in (dlq, tasks):
            monkeypatch.setattr(module, "connect", lambda _runtime: made)
            monkeypatch.setattr(module, "runtime_of", lambda _settings: None)
        return made

    return make


def run(*words: str) -> int:
    options = parser().parse_args(["dlq", *words])
    return dlq.run(Settings(), options)


@pytest.mark.parametrize(
    "words",
    [
        ("requeue",),
        ("discard", "--cause", "task_failed"),
        ("discard", "3", "--all"),
        ("requeue", "3", "--tenant", "acme"),
        ("show",),
        ("show", "3", "--tenant", "acme"),
        ("ls", "3"),
    ],
)
def test_what_is_not_said_is_not_guessed(gateway: Any, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]):
    asked = gateway({}).asked
    assert run(*words) == 2
    assert "collegium dlq" in capsys.readouterr().err
    assert asked == []


def test_an_id_is_a_number():
    with pytest.raises(SystemExit):
        parser().parse_args(["dlq", "show", "x"])


def row(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": number, "service": "router", "tenant": "acme", "cause": "task_failed", "detail": "no", **fields}


def test_a_list_follows_the_pages_up_to_its_limit(gateway: Any, capsys: pytest.CaptureFixture[str]):
    path = ("GET", "/v1/admin/dead-letters")
    pages = [{"data": [row(1), row(2)], "next_cursor": "2"}, {"data": [row(9, tenant=None)], "next_cursor": "9"}]
    asked = gateway({path: pages}).asked
    assert run("ls", "--tenant", "acme", "--limit", "3") == 0
    assert [path for _, path, _ in asked] == [
        "/v1/admin/dead-letters?tenant=acme&cursor=0&limit=3",
        "/v1/admin/dead-letters?tenant=acme&cursor=2&limit=1",
    ]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["id", "1", "2", "9"]


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (("3", "4"), {"ids": [3, 4], "dry_run": False}),
        (("--all", "--dry-run"), {"filter": {}, "limit": 100, "dry_run": True}),
        (
            ("--all", "--service", "router", "--cause", "c", "--task", TASK, "--since", "2026-01-01", "--tenant", ""),
            {
                "filter": {"service": "router", "tenant": "", "cause": "c", "task": TASK, "since": "2026-01-01"},
                "limit": 100,
                "dry_run": False,
            },
        ),
    ],
)
@pytest.mark.parametrize("action", ["requeue", "discard"])
def test_an_action_sends_ids_or_a_filter(gateway: Any, action: str, words: tuple[str, ...], body: Any):
    path = f"/v1/admin/dead-letters/{action}"
    asked = gateway({("POST", path): [{"data": [], "more": False, "dry_run": False}]}).asked
    assert run(action, *words) == 0
    assert asked == [("POST", path, body)]


def test_what_became_of_each_letter_is_told(gateway: Any, capsys: pytest.CaptureFixture[str]):
    outcomes = [
        {"id": 1, "state": "requeued", "task": "tsk_b", "retry_of": "tsk_a"},
        {"id": 2, "state": "requeued", "to": "work.general.low", "dry_run": True},
        {"id": 3, "state": "already_done", "reason": "it was requeued or discarded before"},
        {"id": 4, "state": "impossible", "reason": "no input"},
    ]
    answer = {"data": outcomes, "more": True, "dry_run": False}
    gateway({("POST", "/v1/admin/dead-letters/requeue"): [answer, answer]})
    assert run("requeue", "--all") == 1
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "1 requeued as task tsk_b (again tsk_a)",
        "2 would be requeued to work.general.low",
        "3 already_done: it was requeued or discarded before",
        "4 impossible: no input",
    ]
    assert "there are more letters" in told.err
    assert run("requeue", "--all", "--json") == 1
    assert json.loads(capsys.readouterr().out) == answer


def test_a_letter_is_shown_without_what_a_person_wrote(gateway: Any, capsys: pytest.CaptureFixture[str]):
    path = ("GET", "/v1/admin/dead-letters/7")
    readable = row(7, payload_base64="c2VjcmV0", message={"type": "RunAttempt"}, code=None)
    odd = row(7, payload_base64="/w==", message=None)
    gateway({path: [readable, odd]})
    assert run("show", "7") == 0
    shown = capsys.readouterr().out
    assert "RunAttempt" in shown
    assert "secret" not in shown
    assert "c2Vj" not in shown
    assert run("show", "7") == 0
    assert r"b'\xff'" in capsys.readouterr().out


def test_a_retry_names_the_new_task(gateway: Any, capsys: pytest.CaptureFixture[str]):
    answers = {
        ("POST", f"/v1/tasks/{TASK}/retry"): [{"id": "tsk_new", "state": "submitted"}],
        ("GET", f"/v1/tasks/{TASK}"): [{"id": TASK, "state": "failed"}],
    }
    asked = gateway(answers).asked
    for words in ((), ("--dry-run",)):
        assert tasks.run(Settings(), parser().parse_args(["task", "retry", TASK, *words])) == 0
    assert [method for method, _, _ in asked] == ["POST", "GET"]
    told = capsys.readouterr().out.splitlines()
    assert told == [f"tsk_new submitted (again {TASK})", f"{TASK} is failed and would be run again"]
