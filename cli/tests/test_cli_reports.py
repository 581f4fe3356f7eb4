"""The verbs of reports: what they ask, what they write, and that a broken download leaves no file."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from collegium_cli.arguments import parser

ROWS = [
    {
        "task_id": f"tsk_{number}", "project": "p", "key_id": "k", "created_at": None if number == 1 else
        "2026-01-01T00:00:00.000Z", "settled_at": "2026-01-01T00:00:01.250Z", "state": "completed",
        "stop_reason": "completed", "error_code": "", "model": "m", "rank": "student", "plan": "single", "calls": 1,
        "input_tokens": number, "cached_input_tokens": 0, "output_tokens": 2**40, "reasoning_tokens": 0,
        "estimated": number == 2, "cost_usd": "0.000000000001", "charged_usd": "12345678.5", "reference_model": "",
        "reference_usd": "0", "tags": {"b": "2", "a": "é"},
    }
    for number in range(5)
]  # fmt: skip
PAGE = 2


class Gateway(BaseHTTPRequestHandler):
    """Answers pages of ROWS, a CSV, and a CSV that breaks off."""

    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        query = parse_qs(urlsplit(self.path).query)
        if query.get("format") == ["csv"]:
            self._send(b"a,b\r\n" * 3, 15 if query.get("state") != ["failed"] else 99)
            return
        begin = int(query.get("cursor", ["0"])[0])
        more = str(begin + PAGE) if begin + PAGE < len(ROWS) else None
        self._send(msgspec.json.encode({"data": ROWS[begin : begin + PAGE], "next_cursor": more}))

    def _send(self, body: bytes, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Says nothing."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    Gateway.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("COLLEGIUM_URL", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("COLLEGIUM_API_KEY", "k")
    yield Gateway.asked
    server.shutdown()
    thread.join()
    server.server_close()


def run(tmp_path: Path, *words: str) -> int:
    options: argparse.Namespace = parser().parse_args([*words, "--data", str(tmp_path / "data")])
    code: int = options.run(options)
    return code


def test_parquet_holds_every_row_exactly(asked: list[str], tmp_path: Path) -> None:
    from arro3.io import read_parquet

    path = tmp_path / "log.parquet"
    assert run(tmp_path, "requests", "export", "--model", "m", "--parquet", str(path)) == 0
    assert [parse_qs(urlsplit(one).query)["model"] for one in asked] == [["m"]] * 3
    table = read_parquet(path).read_all()
    assert table.column_names == [*ROWS[0], "cache_write_tokens"]
    assert [value.as_py() for value in table.column("cache_write_tokens")] == [0] * 5, "of a gateway that tells none"
    columns = {name: [value.as_py() for value in table.column(name)] for name in table.column_names}
    assert columns["task_id"] == [row["task_id"] for row in ROWS]
    assert [str(value) for value in columns["charged_usd"]] == ["12345678.500000000000"] * 5
    assert [f"{value:f}" for value in columns["cost_usd"]] == ["0.000000000001"] * 5
    assert columns["output_tokens"] == [2**40] * 5
    assert columns["estimated"] == [False, False, True, False, False]
    assert [value is None for value in columns["created_at"]] == [False, True, False, False, False]
    assert columns["tags"] == ['{"a":"é","b":"2"}'] * 5
    assert sorted(path.parent.iterdir()) == [path]


def test_csv_is_saved_whole_or_not_at_all(asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.csv"
    assert run(tmp_path, "requests", "export", "--csv", str(path)) == 0
    assert path.read_bytes() == b"a,b\r\n" * 3
    path.unlink()
    assert run(tmp_path, "requests", "export", "--state", "failed", "--csv", str(path)) == 1
    assert "broke" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert run(tmp_path, "spend", "--csv", str(path), "--group-by", "day") == 0
    assert path.read_bytes() == b"a,b\r\n" * 3
    assert asked[-1] == "/v1/usage?group_by=day&format=csv"


@pytest.mark.parametrize(
    "words",
    [
        ["requests", "export"],
        ["requests", "export", "--csv", "a", "--parquet", "b"],
        ["requests", "export", "--csv", "/proc/none/a"],
        ["invoice", "create", "--tenant", "acme"],
        ["invoice", "show"],
    ],
)
def test_what_cannot_be_done_is_one_line(
    asked: list[str], tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, *words) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_list_is_a_table_or_json(asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "requests", "ls", "--limit", "2") == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["task_id", "tsk_0", "tsk_1"]
    assert run(tmp_path, "requests", "ls", "--json") == 0
    assert msgspec.json.decode(capsys.readouterr().out) == ROWS[:2]
