"""The verb ``schedule`` refuses what is no command before it asks anybody."""

from __future__ import annotations

import pytest
from collegium_cli.arguments import parser


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create"], "cron expression and a question"),
        (["create", "* * * * *"], "cron expression and a question"),
        (["create", "*", "*", "*"], "cron expression and a question"),
        (["ls", "sch_1"], "takes no id"),
        (["show"], "give the id"),
        (["rm", "sch_1/../../x"], "no id of a schedule"),
        (["pause", "tsk_" + "0" * 26], "no id of a schedule"),
    ],
)
def test_a_wrong_command_says_what_to_give(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    options = parser().parse_args(["schedule", *words])
    assert options.run(options) == 2
    assert said in capsys.readouterr().err


def test_a_policy_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parser().parse_args(["schedule", "create", "* * * * *", "x", "--missed", "perhaps"])
    assert "perhaps" in capsys.readouterr().err


def test_a_dry_run_shows_the_request(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLLEGIUM_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("COLLEGIUM_API_KEY", "none")
    words = ["schedule", "create", "0 9 * * *", "Good morning?", "--dry-run", "--json", "--max-tokens", "5"]
    options = parser().parse_args(words)
    assert options.run(options) == 0
    assert '"cron":"0 9 * * *"' in capsys.readouterr().out
