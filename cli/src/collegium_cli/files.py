"""Files that verbs write. One rule: a file under its name is whole; what broke off leaves no file."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from collegium_cli.client import ClientError


def save(path: Path, content: Iterable[bytes]) -> int:
    """Writes what comes to a file and returns 0; what stood there is replaced at the end."""
    with whole(path) as draft, draft.open("wb") as file:
        for part in content:
            file.write(part)
    return 0


@contextmanager
def whole(path: Path) -> Generator[Path]:
    """Gives a draft beside a path, which becomes the path where nothing was raised; raises ClientError for the disk."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise ClientError(f"{path} cannot be written: {error.strerror}") from error
    draft = folder / path.name
    try:
        yield draft
        draft.replace(path)
    except OSError as error:
        raise ClientError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
        folder.rmdir()
