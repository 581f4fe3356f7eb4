"""Where the plain shards of open parts lie: in memory, because the engine waits for the disk at every step.

Making one takes 300 ms on a disk and 10 ms in memory, and all of that time the interpreter stands still. Nothing is
lost with them: they are made again from the journals. One rule: where there is no room in memory, the disk is used.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it, which nobody else may read
# The file of a store that its owner locks, and the one in memory that says whose folder it is.
LOCK = "lock"
STORE = "store"
# A plain shard of 10,000 points with 384 dimensions takes 40 MB; this leaves room for others too.
FREE_BYTES_MIN = 512 * 1024 * 1024


def of_store(folder: Path) -> Path:
    """Returns the folder in memory that belongs to a store."""
    mark = hashlib.blake2b(os.fsencode(folder.resolve()), digest_size=8).hexdigest()
    return MEMORY / f"collegium-vectors-{os.getuid()}-{mark}"


def clear(folder: Path) -> None:
    """Takes away what an earlier owner of a store left in memory; the caller holds the store's lock."""
    shutil.rmtree(of_store(folder), ignore_errors=True)


def sweep() -> None:
    """Takes away what killed owners of other stores left in memory, where nobody has started them again."""
    for left in MEMORY.glob(f"collegium-vectors-{os.getuid()}-*"):
        try:
            store = Path((left / STORE).read_text())
        except FileNotFoundError:
            continue  # it does not say whose it is
        try:
            descriptor = os.open(store / LOCK, os.O_RDWR)
        except FileNotFoundError:
            shutil.rmtree(left, ignore_errors=True)
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except BlockingIOError:
            pass  # its owner lives
        finally:
            os.close(descriptor)


def place_of(part: Path) -> Path:
    """Returns an empty folder's path for the plain shard of a part; the folder itself is not there yet."""
    name = hashlib.blake2b(os.fsencode(part.resolve()), digest_size=8).hexdigest()
    place = _in_memory(part, name) or part / "live"
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


def _in_memory(part: Path, name: str) -> Path | None:
    try:
        if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < FREE_BYTES_MIN:
            return None
    except OSError:
        return None
    store = next((one for one in part.parents if (one / LOCK).exists()), part.parent)
    memory = of_store(store)
    if not memory.exists():
        # Under another name first, so that nobody sweeps away a folder that does not say yet whose it is.
        draft = memory.with_name(f".{memory.name}")
        draft.mkdir(mode=0o700, exist_ok=True)
        (draft / STORE).write_text(str(store.resolve()))
        draft.rename(memory)
    return memory / name
