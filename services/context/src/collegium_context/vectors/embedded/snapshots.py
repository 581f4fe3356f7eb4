"""Snapshots: a collection's journals as they stand at one moment, by hard link, and what had left them by then.

Journals of closed parts never change, so a snapshot is taken in milliseconds and takes no room until its parts are
built anew. One rule: a snapshot has a name of its own, and is whole when its ``snapshot.json`` is there.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import msgspec

from collegium_context.vectors.embedded.collection import Collection, Place
from collegium_context.vectors.embedded.part import DEAD, JOURNAL
from collegium_context.vectors.interface import CollectionSpec, InvalidQuestionError

NAME = re.compile(r"[a-z0-9-]{1,40}\Z")
NOTE = "snapshot.json"
# Each keeps the room of what was replaced since.
SNAPSHOTS_MAX = 20


class Snapshot(msgspec.Struct, frozen=True):
    """What a snapshot says of itself; ``shelves`` are the folders of its shelves with the names of their parts."""

    name: str
    collection: str
    made_at_ms: int
    points: int
    spec: CollectionSpec
    shelves: dict[str, tuple[str, ...]]
    tenants: dict[str, Place] = {}


def _folder(root: Path, collection: str) -> Path:
    return root / "snapshots" / collection


def listed(root: Path, collection: str) -> list[Snapshot]:
    """Returns the snapshots of a collection, oldest first."""
    notes = _folder(root, collection).glob(f"*/{NOTE}")
    made = [msgspec.json.decode(note.read_bytes(), type=Snapshot) for note in notes]
    return sorted(made, key=lambda one: one.made_at_ms)


def find(root: Path, collection: str, name: str) -> Snapshot:
    """Returns a snapshot; raises InvalidQuestionError where there is none."""
    for snapshot in listed(root, collection):
        if snapshot.name == name:
            return snapshot
    raise InvalidQuestionError(f"collection {collection} has no snapshot {name!r}")


def part_folder(root: Path, snapshot: Snapshot, shelf: str, part: str) -> Path:
    """Returns where a part of a snapshot lies."""
    return _folder(root, snapshot.collection) / snapshot.name / shelf / part


def take(root: Path, collection: Collection, name: str, now_ms: int) -> Snapshot:
    """Takes a snapshot of the generation that answers; raises InvalidQuestionError for a name that cannot be used."""
    standing = listed(root, collection.spec.name)
    if NAME.match(name) is None or any(one.name == name for one in standing):
        raise InvalidQuestionError(f"{name!r} is no name for a snapshot, or is taken")
    if len(standing) >= SNAPSHOTS_MAX:
        raise InvalidQuestionError(f"collection {collection.spec.name} has {SNAPSHOTS_MAX} snapshots; remove one")
    generation = collection.serving
    folder = _folder(root, collection.spec.name) / name
    shutil.rmtree(folder, ignore_errors=True)
    shelves: dict[str, tuple[str, ...]] = {}
    for shelf in generation.shelves:
        shelf.rotate()
        place = str(shelf.folder.relative_to(generation.folder))
        shelves[place] = tuple(part.name for part in shelf.parts[:-1])
        for part in shelf.parts[:-1]:
            target = folder / place / part.name
            target.mkdir(parents=True)
            os.link(part.folder / JOURNAL, target / JOURNAL)
            shutil.copyfile(part.folder / DEAD, target / DEAD)
    snapshot = Snapshot(
        name=name,
        collection=collection.spec.name,
        made_at_ms=now_ms,
        points=sum(shelf.points for shelf in generation.shelves),
        spec=generation.state.spec,
        shelves=shelves,
        tenants=generation.state.tenants,
    )
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{NOTE}.new"
    draft.write_bytes(msgspec.json.encode(snapshot))
    draft.replace(folder / NOTE)
    return snapshot


def remove_all(root: Path, collection: str) -> None:
    """Takes all snapshots of a collection away."""
    shutil.rmtree(_folder(root, collection), ignore_errors=True)


def remove(root: Path, collection: str, name: str) -> None:
    """Takes a snapshot away."""
    find(root, collection, name)
    folder = _folder(root, collection) / name
    (folder / NOTE).unlink()
    shutil.rmtree(folder)
