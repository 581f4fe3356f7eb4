"""The operator's key in the data folder.

One rule: the file is whole or absent, readable by its owner alone, and never overwritten.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from collegium_billing.identity import keys
from collegium_billing.identity.keys import ApiKey

FILE_NAME = "admin.key"


def read_or_make(data_dir: Path, make: Callable[[], ApiKey]) -> ApiKey:
    """Returns the key of the file, made first where it is absent; whoever makes it first wins.

    Raises MalformedKeyError where the file does not hold a key.
    """
    path = data_dir / FILE_NAME
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        _write(path, make())
    return keys.parse(path.read_text().strip(), str(path))


def _write(path: Path, key: ApiKey) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(f"{key.text}\n")
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, refuses to replace what another process put there meanwhile.
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
