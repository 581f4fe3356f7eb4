"""The generated code is what the proto files say."""

import subprocess
import sys
from pathlib import Path

import collegium_protocol

GENERATE = Path(__file__).resolve().parents[3] / "proto" / "generate.py"


def test_the_generated_code_is_up_to_date(tmp_path: Path) -> None:
    made = subprocess.run([sys.executable, GENERATE, "--out", tmp_path], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr

    fresh = contents(tmp_path / "collegium_protocol" / "v1")
    standing = contents(Path(collegium_protocol.__file__).parent / "v1")
    assert fresh.keys() == standing.keys(), "run `python proto/generate.py`"
    stale = [name for name in fresh if fresh[name] != standing[name]]
    assert not stale, "run `python proto/generate.py`"


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
