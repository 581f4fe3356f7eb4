"""The demonstration, as the README's first command runs it: an endpoint that nobody here wrote, and a real model."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.model
@pytest.mark.timeout(300)
def test_the_demonstration_works_from_nothing(tmp_path):
    finished = subprocess.run(
        [sys.executable, "-m", "collegium_cli", "demo", "--data", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    steps = (
        "streamed",
        "panel of three",
        "A cascade",
        "conversation of two turns",
        "TaskCompleted",
        "all of it worked",
    )
    for step in steps:
        assert step in finished.stdout
    assert "smollm2-135m" in finished.stdout
