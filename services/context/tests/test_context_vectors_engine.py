"""The embedded engine and its indexer in one process: parts, shelves, generations, snapshots, and starts anew."""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collegium_context.vectors import wire
from collegium_context.vectors.embedded import scratch, snapshots
from collegium_context.vectors.embedded.engine import Engine
from collegium_context.vectors.embedded.jobs import Jobs
from collegium_context.vectors.embedded.journal import DamagedJournalError, Journal, records
from collegium_context.vectors.embedded.owner import lock
from collegium_context.vectors.embedded.shards import prepared
from collegium_context.vectors.embedded.shelf import Sizes
from collegium_context.vectors.interface import CollectionSpec, InvalidQuestionError, Point, Where

SPEC = CollectionSpec(name="chunks", dimensions=8, integer_fields=("version",))
SIZES = Sizes(open_points=100, own_points=10_000)


def unit(number: int) -> Any:
    vector = np.random.default_rng(number).normal(size=8).astype(np.float32)
    return vector / np.linalg.norm(vector)


class Store:
    """An engine with its jobs, opened again at will."""

    def __init__(self, folder: Path, sizes: Sizes = SIZES) -> None:
        self.folder, self.sizes = folder, sizes
        self.reopen()
        self.engine.ensure(SPEC)

    def reopen(self) -> None:
        """Opens the folder as after a kill: nothing was closed, nothing flushed."""
        self.engine = Engine(self.folder, self.sizes)
        self.jobs = Jobs(self.engine)

    def put(self, numbers: range, version: int = 1, tenant: str = "acme") -> None:
        for start in range(numbers.start, numbers.stop, 50):
            some = range(start, min(start + 50, numbers.stop))
            points = [Point(str(uuid.UUID(int=n)), unit(n), f"word{n} common", {"version": version}) for n in some]
            rows = wire.make_rows(points, SPEC)
            question = wire.Put(collection="chunks", tenant=tenant, rows=rows)
            self.engine.put(question, [prepared(tenant, one) for one in self.engine.collect(question)])

    def drop(self, numbers: range, tenant: str = "acme") -> None:
        ids = b"".join(uuid.UUID(int=n).bytes for n in numbers)
        self.engine.drop(wire.Drop(collection="chunks", tenant=tenant, ids=ids))

    def versions(self, tenant: str = "acme") -> dict[int, int]:
        """Every point that is found, with its version; a point found twice is an error."""
        question = wire.Look(collection="chunks", tenant=tenant, vector=unit(1).tobytes(), limit=1_000)
        found = self.engine.look(question)
        assert len(found.dense) == len(found.points) == self.count(tenant)
        return {int.from_bytes(point.id): int(point.payload["version"]) for point in found.points}  # type: ignore[arg-type]

    def count(self, tenant: str = "acme") -> int:
        return self.engine.count(wire.Count(collection="chunks", tenant=tenant))

    async def index(self) -> None:
        """Runs jobs until nothing is due."""
        while self.jobs.is_due:
            await self.jobs._next()

    @property
    def collection(self) -> Any:
        return self.engine.collection("chunks")

    @property
    def built(self) -> list[bool]:
        return [part.is_built for part in self.collection.serving.shared.parts]


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own in the place of the machine's memory."""
    folder = tmp_path / "memory"
    folder.mkdir()
    monkeypatch.setattr(scratch, "MEMORY", folder)
    return folder


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "store")
    yield store
    store.engine.close()


def expected(*parts: tuple[range, int]) -> dict[int, int]:
    return {number: version for numbers, version in parts for number in numbers}


async def test_points_are_the_same_before_and_after_indexing_and_a_start(store: Store) -> None:
    store.put(range(1, 350))
    store.put(range(40, 60), version=2)
    store.drop(range(100, 120))
    want = expected((range(1, 40), 1), (range(40, 60), 2), (range(60, 100), 1), (range(120, 350), 1))
    assert store.versions() == want
    store.reopen()
    assert store.versions() == want
    await store.index()
    assert store.built == [True, False]
    assert store.versions() == want
    store.reopen()
    assert (store.built, store.versions()) == ([True, False], want)
    store.put(range(50, 70), version=3)
    store.drop(range(1, 10))
    want |= expected((range(50, 70), 3))
    want = {number: version for number, version in want.items() if number >= 10}
    assert store.versions() == want
    store.reopen()
    assert store.versions() == want


async def test_much_at_once_is_put_together_first_and_gets_its_graphs_later(store: Store) -> None:
    store.put(range(1, 650))
    await store.jobs._next()
    first = store.collection.serving.shared.parts[0]
    assert (first.is_built, first.has_graphs, store.jobs.waiting_points) == (True, False, 600)
    want = expected((range(1, 650), 1))
    store.reopen()
    assert store.versions() == want
    await store.index()
    first = store.collection.serving.shared.parts[0]
    assert (first.has_graphs, store.jobs.waiting_points, store.versions()) == (True, 0, want)


async def test_what_changes_while_a_part_is_built_is_in_what_comes_of_it(store: Store) -> None:
    store.put(range(1, 320))
    run = store.jobs.run

    async def with_changes(job: Any) -> None:
        store.put(range(1, 50), version=2)
        store.drop(range(60, 70))
        await run(job)
        store.put(range(45, 55), version=3)
        store.drop(range(1, 3))

    store.jobs.run = with_changes  # type: ignore[method-assign]
    await store.jobs._next()
    want = expected((range(3, 45), 2), (range(45, 55), 3), (range(55, 60), 1), (range(70, 320), 1))
    assert store.versions() == want
    assert store.built[0]
    store.reopen()
    assert store.versions() == want


async def test_an_indexer_that_fails_leaves_everything_as_it_was(store: Store) -> None:
    store.put(range(1, 320))
    journal = store.collection.serving.shared.parts[0].folder / "journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:2_000] + b"\0" + whole[2_001:])
    with pytest.raises(Exception, match="damaged"):
        await store.jobs._next()
    assert (len(store.versions()), any(store.built)) == (319, False)
    journal.write_bytes(whole)
    await store.index()
    assert (len(store.versions()), store.built) == (319, [True, False])


async def test_worn_and_many_parts_are_built_anew(store: Store) -> None:
    for start in range(0, 800, 100):
        store.put(range(start + 1, start + 101))
        await store.index()
    assert store.built.count(True) <= 7
    store.drop(range(1, 701))
    await store.index()
    parts = store.collection.serving.shared.parts
    assert sum(part.points for part in parts if part.is_built) < 300
    assert store.versions() == expected((range(701, 801), 1))


async def test_a_growing_tenant_moves_out_while_it_is_read_and_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", Sizes(open_points=100, own_points=300))
    store.put(range(1, 100), tenant="other")
    store.put(range(1, 350))
    run = store.jobs.run
    counted: list[int] = []

    async def with_changes(job: Any) -> None:
        store.put(range(300, 400), version=2)
        store.drop(range(1, 11))
        counted.append(len(store.versions()))
        await run(job)
        store.put(range(395, 410), version=3)
        counted.append(len(store.versions()))

    store.jobs.run = with_changes  # type: ignore[method-assign]
    await store.jobs._next()
    want = expected((range(11, 300), 1), (range(300, 395), 2), (range(395, 410), 3))
    assert counted == [389, 399]
    assert store.versions() == want
    generation = store.collection.serving
    assert generation.state.tenants == {"acme": "own"}
    assert generation.shared.count("acme", None) == 0
    store.jobs.run = run  # type: ignore[method-assign]
    await store.index()
    store.reopen()
    assert store.versions() == want
    assert len(store.versions("other")) == 99
    store.engine.close()


async def test_a_move_that_was_cut_off_is_done_at_the_next_start(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", Sizes(open_points=100, own_points=300))
    store.put(range(1, 350))
    change = store.collection.change

    def killed(name: str, **fields: Any) -> None:
        if fields["tenants"]["acme"] == "own":
            raise KeyboardInterrupt
        change(name, **fields)

    store.collection.change = killed
    with pytest.raises(KeyboardInterrupt):
        await store.jobs._next()
    store.reopen()
    assert store.versions() == expected((range(1, 350), 1))
    await store.index()
    assert store.collection.serving.state.tenants == {"acme": "own"}
    assert store.versions() == expected((range(1, 350), 1))
    store.engine.close()


async def test_a_generation_is_built_switched_and_rolled_back_and_loses_nothing(store: Store) -> None:
    import msgspec

    store.put(range(1, 250))
    run = store.jobs.run

    async def with_changes(job: Any) -> None:
        store.put(range(1, 20), version=2)
        store.drop(range(30, 40))
        await run(job)
        store.put(range(300, 310), version=2)

    store.jobs.run = with_changes  # type: ignore[method-assign]
    name = await store.jobs.reindex(store.collection, msgspec.structs.replace(SPEC, quantized=True))
    want = expected((range(1, 20), 2), (range(20, 30), 1), (range(40, 250), 1), (range(300, 310), 2))
    assert (store.collection.state.serving, store.versions()) == ("g1", want)
    store.collection.switch(name)
    assert (store.collection.spec.quantized, store.versions()) == (True, want)
    store.put(range(400, 410), version=4)
    want |= expected((range(400, 410), 4))
    store.reopen()
    assert store.versions() == want
    store.collection.switch("g1")
    assert store.versions() == want
    store.collection.discard(name)
    with pytest.raises(InvalidQuestionError):
        store.collection.switch(name)


async def test_a_generation_that_was_not_whole_at_a_kill_is_gone(store: Store) -> None:
    store.put(range(1, 250))
    store.collection.begin(SPEC, {})
    store.reopen()
    assert list(store.collection.generations) == ["g1"]
    assert len(store.versions()) == 249


async def test_a_snapshot_is_restored_beside_what_answers(store: Store) -> None:
    store.put(range(1, 250))
    taken = snapshots.take(store.folder, store.collection, "before", 1)
    assert taken.points == 249
    store.drop(range(1, 200))
    store.put(range(200, 210), version=2)
    await store.index()
    restored = await store.jobs.restore(store.collection, taken)
    assert len(store.versions()) == 50
    store.collection.switch(restored)
    assert store.versions() == expected((range(1, 250), 1))
    with pytest.raises(InvalidQuestionError):
        snapshots.take(store.folder, store.collection, "before", 2)
    snapshots.remove(store.folder, "chunks", "before")
    assert snapshots.listed(store.folder, "chunks") == []


async def test_a_forgotten_tenant_is_in_no_file(store: Store) -> None:
    marked = "f0rg0tten"
    for tenant in ("acme", "other"):
        store.put(range(1, 250), tenant=tenant)
        point = Point(str(uuid.UUID(int=999)), unit(1), None, {"version": 1, "mark": f"{marked}-{tenant}"})
        rows = wire.make_rows([point], SPEC)
        store.engine.put(wire.Put(collection="chunks", tenant=tenant, rows=rows), [prepared(tenant, rows)])
    snapshots.take(store.folder, store.collection, "before", 1)
    await store.index()
    await store.jobs.forget("acme")
    assert (store.count(), store.count("other")) == (0, 250)
    texts = [path.read_bytes() for path in store.folder.rglob("*") if path.is_file()]
    assert not any(f"{marked}-acme".encode() in text for text in texts)
    assert any(f"{marked}-other".encode() in text for text in texts)
    restored = await store.jobs.restore(store.collection, snapshots.find(store.folder, "chunks", "before"))
    store.collection.switch(restored)
    assert (store.count(), store.count("other")) == (0, 250)


async def test_a_large_deletion_goes_by_pages(store: Store) -> None:
    store.put(range(1, 2_500))
    question = wire.Drop(collection="chunks", tenant="acme", where=Where())
    pages = 0
    while store.engine.drop(question):
        pages += 1
        await asyncio.sleep(0)
    assert (pages, store.count()) == (3, 0)


def test_a_record_that_was_not_finished_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    for body in (b"one", b"two", b"three"):
        journal.append(body)
    journal.close()
    whole = path.read_bytes()
    for size in range(len(whole) - 12, len(whole)):
        path.write_bytes(whole[:size])
        read = list(records(path))
        assert [body for body, _ in read] == [b"one", b"two"]
        journal = Journal(path)
        journal.cut(read[-1][1])
        journal.append(b"four")
        journal.close()
        assert [body for body, _ in records(path)] == [b"one", b"two", b"four"]
    path.write_bytes(whole[:9] + b"?" + whole[10:])
    with pytest.raises(DamagedJournalError):
        list(records(path))


def test_what_killed_owners_left_in_memory_is_swept_away(tmp_path: Path, memory: Path) -> None:
    stores = [tmp_path / name for name in ("alive", "dead", "deleted")]
    held = [lock(folder) for folder in stores]
    left = [scratch.place_of(folder / "part").parent for folder in stores]
    for descriptor in held[1:]:
        os.close(descriptor)
    shutil.rmtree(stores[2])
    scratch.sweep()
    assert [folder.exists() for folder in left] == [True, False, False]
    assert list(memory.iterdir()) == [left[0]]
    os.close(held[0])
    scratch.clear(stores[0])
    assert not left[0].exists()


def test_without_room_in_memory_the_disk_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "MEMORY", tmp_path / "nowhere")
    store = Store(tmp_path / "store")
    store.put(range(1, 50))
    assert len(store.versions()) == 49
    store.engine.close()
