"""The verbs about memory: what is asked of a gateway, what is shown, what is refused before anything is asked."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from collegium_cli.arguments import parser
from collegium_cli.knowledge import contexts as context_verbs
from collegium_cli.knowledge import conversations as conversation_verbs
from collegium_cli.knowledge import memory as memory_verbs
from collegium_settings import Settings

PLAN = {"id": "plan", "version": 3, "updated_at": "2026-01-01T00:00:00.000Z", "updated_by": None, "bytes": 9}
TALK = {"id": "talk", "turns": 2, "messages": 4, "bytes": 99, "updated_at": "2026-01-01T00:00:00.000Z"}
TASK = "tsk_" + "0" * 26


def turn(number: int) -> dict[str, Any]:
    said = [
        {"role": "user", "content": f"q{number}"},
        {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
    ]
    return {"task_id": f"tsk_{number:026}", "created_at": "2026-01-01T00:00:00.000Z", "messages": said}


class Gateway(BaseHTTPRequestHandler):
    """Answers as the doors of memory do, and takes down what it was asked."""

    asked: list[tuple[str, str, Any]]

    def _answer(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        self.asked.append((self.command, self.path, body))
        status, answer = self._reply(body)
        sent = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_PUT = do_PATCH = do_DELETE = do_POST = _answer  # noqa: N815 - the names of the standard library

    def _reply(self, body: Any) -> tuple[int, Any]:
        path = self.path.partition("?")[0]
        if body is not None and body.get("expected_version") == 1:
            return 409, {"error": {"code": "version_conflict", "message": "version 3 stands"}, "current": PLAN}
        if path == "/v1/contexts":
            second = "cursor=" in self.path
            return 200, {"data": [{**PLAN, "id": "b" if second else "a"}], "next_cursor": None if second else "a"}
        if path == "/v1/contexts/plan/versions":
            return 200, {"data": [PLAN]}
        if path == "/v1/contexts/plan":
            return 200, {**PLAN, "fields": body["fields"] if body else {"step": 1}}
        if path == "/v1/conversations":
            return 200, {"data": [TALK], "next_cursor": None}
        if path == "/v1/conversations/talk" and self.command == "GET":
            second = "cursor=7" in self.path
            return 200, {"data": [turn(1)] if second else [turn(3), turn(2)], "next_cursor": None if second else "7"}
        if path == "/v1/memories/recall":
            return 200, {"data": [], "degraded": []}
        return 200, {"id": "x", "deleted": True, "turns": 2, "data": []}

    def log_message(self, *_arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str, Any]]]:
    taken: list[tuple[str, str, Any]] = []
    server = HTTPServer(("127.0.0.1", 0), type("Taking", (Gateway,), {"asked": taken}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("COLLEGIUM_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("COLLEGIUM_API_KEY", "sk-clg-testkey00001-" + "a" * 48)
    yield taken
    server.shutdown()
    server.server_close()
    thread.join()


def run(*words: str) -> int:
    options: argparse.Namespace = parser().parse_args(list(words))
    verbs = {"context": context_verbs, "conversation": conversation_verbs, "memory": memory_verbs}
    return verbs[words[0]].run(Settings(), options)


def test_a_context_is_put_merged_shown_listed_and_removed(
    asked: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run("context", "put", "plan", '{"step": 1}', "--expect", "0") == 0
    assert asked.pop() == ("PUT", "/v1/contexts/plan", {"fields": {"step": 1}, "expected_version": 0})
    file = tmp_path / "fields.json"
    file.write_text('{"who": null}')
    assert run("context", "put", "plan", "--file", str(file), "--merge") == 0
    assert asked.pop() == ("PATCH", "/v1/contexts/plan", {"fields": {"who": None}})
    assert run("context", "get", "plan", "--version", "2") == 0
    assert asked.pop()[1] == "/v1/contexts/plan?version=2"
    assert capsys.readouterr().out.endswith('{"step":1}\n'), "the fields alone, to be put again"
    assert run("context", "get", "plan", "--versions") == 0
    assert run("context", "ls", "--json") == 0
    assert [one["id"] for one in json.loads(capsys.readouterr().out.splitlines()[-1])] == ["a", "b"]
    assert run("context", "rm", "plan", "--expect", "3") == 0
    assert asked[-1] == ("DELETE", "/v1/contexts/plan?expected_version=3", None)


def test_a_context_of_another_version_is_a_failure_that_says_what_stands(
    asked: list[Any], capsys: pytest.CaptureFixture[str]
):
    assert run("context", "put", "plan", "{}", "--expect", "1") == 1
    assert "version 3 stands" in capsys.readouterr().err


def test_a_conversation_is_shown_in_the_order_in_which_it_was_said(
    asked: list[Any], capsys: pytest.CaptureFixture[str]
):
    assert run("conversation", "show", "talk") == 0
    assert [path for _, path, _ in asked] == [
        "/v1/conversations/talk?limit=100",
        "/v1/conversations/talk?limit=98&cursor=7",
    ]
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "user:" in line] == ["  user: q1", "  user: q2", "  user: q3"]
    assert "  assistant: a" in lines
    assert run("conversation", "ls") == 0
    assert "talk" in capsys.readouterr().out


def test_what_is_removed_of_conversations_is_named(asked: list[Any]):
    assert run("conversation", "rm", "talk", "other") == 0
    assert run("conversation", "rm", "talk", "--turn", TASK) == 0
    assert [(method, path) for method, path, _ in asked] == [
        ("DELETE", "/v1/conversations/talk"),
        ("DELETE", "/v1/conversations/other"),
        ("DELETE", f"/v1/conversations/talk/turns/{TASK}"),
    ]


def test_a_dry_run_changes_nothing(asked: list[Any]):
    for words in (
        ("context", "put", "plan", "{}"),
        ("context", "rm", "plan"),
        ("conversation", "rm", "talk"),
    ):
        assert run(*words, "--dry-run") == 0
    assert {method for method, _, _ in asked} <= {"GET"}


def test_a_memory_without_a_path_is_where_the_key_belongs(asked: list[Any]):
    assert run("memory", "recall", "trains?") == 0
    assert run("memory", "ls") == 0
    assert "path" not in asked[0][2]
    assert "path" not in asked[1][1]


@pytest.mark.parametrize(
    "words",
    [
        ("context", "put", "plan"),
        ("context", "put", "plan", "{}", "more"),
        ("context", "get"),
        ("context", "get", "a/b"),
        ("context", "rm"),
        ("context", "ls", "x"),
        ("conversation", "show", "a", "b"),
        ("conversation", "rm", "../tasks"),
        ("conversation", "rm", "a", "--turn", "b"),
        ("conversation", "ls", "a"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(words, asked, capsys: pytest.CaptureFixture[str]):
    assert run(*words) == 2
    assert asked == []
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("fields", ["[1]", "{", '"text"'])
def test_fields_that_are_no_object_are_refused(fields: str, asked, capsys: pytest.CaptureFixture[str]):
    assert run("context", "put", "plan", fields) == 1
    assert asked == []
    assert "JSON object" in capsys.readouterr().err
