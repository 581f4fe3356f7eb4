"""What the indexer is given to do, and how what it made is taken in.

One job at a time, because all of them read closed parts and one of them at most may replace them. Points that left a
part while a job read it are noted in the part's ``dead`` file; they leave what was made before anybody is asked to
search it. One rule: what a job made is swapped in within one turn of the loop, together with what it replaces.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import structlog
from collegium_children.child import start

from collegium_context.vectors.embedded import journal as journals
from collegium_context.vectors.embedded import snapshots
from collegium_context.vectors.embedded.collection import Collection, Generation, Place
from collegium_context.vectors.embedded.engine import Engine
from collegium_context.vectors.embedded.indexer import Input, Job
from collegium_context.vectors.embedded.part import DEAD, JOURNAL, Part, dead_keys
from collegium_context.vectors.embedded.shards import Graphs
from collegium_context.vectors.embedded.shelf import Added, Shelf, record_codec
from collegium_context.vectors.embedded.snapshots import Snapshot
from collegium_context.vectors.interface import CollectionSpec, StoreUnavailableError

log = structlog.get_logger(__name__)

TICK_SECONDS = 0.5
# So many closed parts at once are first put together without graphs, which takes a tenth of the time: what is asked
# meanwhile scans one large part faster than many small ones, and a start need not fill them again.
PLAIN_PARTS_MAX = 3
# More built parts than these on one shelf are built into fewer, the smallest first.
BUILT_PARTS_MAX = 6
# A part that lost this share of its points is built anew without them.
GONE_SHARE_MAX = 0.3
FAILED_AGAIN_SECONDS = 30.0


class Source(Protocol):
    """A closed part to read from: its folder, and its ``dead`` file."""

    @property
    def folder(self) -> Path:
        """Where it lies."""
        ...

    @property
    def dead_bytes(self) -> int:
        """How long its ``dead`` file is now."""
        ...


class Kept(msgspec.Struct, frozen=True):
    """A part of a snapshot, which changes no more."""

    folder: Path

    @property
    def dead_bytes(self) -> int:
        """How long its ``dead`` file is."""
        return (self.folder / DEAD).stat().st_size


class Jobs:
    """Runs the indexer where there is something to do."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._task: asyncio.Task[None] | None = None
        self._one = asyncio.Lock()
        self.running = ""
        self.done = 0
        self.failed = 0

    def start(self) -> None:
        """Looks for work until it is stopped."""
        self._task = asyncio.create_task(self._run(), name="indexing")

    async def stop(self) -> None:
        """Ends what is under way; it is begun anew at the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def waiting_points(self) -> int:
        """Points in closed parts that have no graphs yet."""
        return sum(
            part.points
            for collection in self._engine.collections.values()
            for shelf in collection.serving.shelves
            for part in shelf.parts[:-1]
            if not part.has_graphs
        )

    @property
    def is_due(self) -> bool:
        """Whether something is to be built."""
        return any(
            due(shelf)
            for collection in self._engine.collections.values()
            for generation in collection.generations.values()
            for shelf in generation.shelves
        ) or any(
            self._growing(generation) is not None
            for collection in self._engine.collections.values()
            for generation in collection.generations.values()
        )

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                async with self._one:
                    await self._next()
            except (StoreUnavailableError, OSError) as error:
                self.failed += 1
                log.error("indexing failed", error=str(error))
                await asyncio.sleep(FAILED_AGAIN_SECONDS)

    async def _next(self) -> None:
        for collection in list(self._engine.collections.values()):
            for name, generation in list(collection.generations.items()):
                if (tenant := self._growing(generation)) is not None:
                    await self._move(collection, name, tenant)
                    return
                for tenant, shelf in [("", generation.shared), *generation.own.items()]:
                    if parts := due(shelf):
                        await self._build(shelf, parts, graphs_of(parts, one_tenant=bool(tenant)))
                        return

    def _growing(self, generation: Generation) -> str | None:
        for tenant, place in generation.state.tenants.items():
            if place == "moving":
                return tenant
        points: dict[str, int] = {}
        for part in generation.shared.parts:
            for tenant, counted in part.frequencies.tenants.items():
                points[tenant] = points.get(tenant, 0) + counted.points
        for tenant, count in points.items():
            is_large = count > generation.sizes.own_points and tenant not in generation.state.tenants
            if is_large and generation.shared.count(tenant, None) > generation.sizes.own_points:
                return tenant
        return None

    async def _build(self, shelf: Shelf, parts: Sequence[Part], graphs: Graphs) -> None:
        made = await self.make(shelf, parts, graphs)
        await _discard(shelf.adopt(made, [part.name for part in parts]))

    async def _move(self, collection: Collection, name: str, tenant: str) -> None:
        generation = collection.generations[name]
        if tenant not in generation.own:
            generation.own[tenant] = generation.open_own(tenant)
            generation.shared.rotate()
            moving: dict[str, Place] = {**generation.state.tenants, tenant: "moving"}
            collection.change(name, tenants=moving)
        shared, own = generation.shared, generation.own[tenant]
        closed = [part for part in shared.parts[:-1] if tenant in part.frequencies.tenants]
        made = await self.make(own, closed, "one", only=tenant)
        own.adopt(made, [])
        settled: dict[str, Place] = {**generation.state.tenants, tenant: "own"}
        collection.change(name, tenants=settled)
        log.info("tenant moved to a shelf of its own", collection=collection.spec.name, tenant=tenant)
        while keys := shared.keys(tenant, None):
            shared.drop(keys)
            await asyncio.sleep(0)

    async def reindex(self, collection: Collection, spec: CollectionSpec) -> str:
        """Builds a further generation while the old one answers, and returns its name; nothing is switched."""
        async with self._one:
            source = collection.serving
            for tenant, place in source.state.tenants.items():
                if place == "moving":
                    await self._move(collection, collection.state.serving, tenant)
            for shelf in source.shelves:
                shelf.rotate()
            closed = {_place(shelf, source): list[Source](shelf.parts[:-1]) for shelf in source.shelves}
            return await self._generation(collection, spec, source.state.tenants, closed)

    async def restore(self, collection: Collection, snapshot: Snapshot) -> str:
        """Builds a generation from a snapshot, and returns its name; what is written from now on stands in it too."""
        async with self._one:
            closed: dict[str, list[Source]] = {
                place: [Kept(snapshots.part_folder(self._engine.folder, snapshot, place, part)) for part in parts]
                for place, parts in snapshot.shelves.items()
            }
            return await self._generation(collection, snapshot.spec, snapshot.tenants, closed)

    async def _generation(
        self, collection: Collection, spec: CollectionSpec, tenants: dict[str, Place], closed: dict[str, list[Source]]
    ) -> str:
        name = collection.begin(spec, tenants)
        generation = collection.generations[name]
        try:
            for shelf in generation.shelves:
                if sources := closed.get(_place(shelf, generation)):
                    graphs: Graphs = "by_tenant" if shelf is generation.shared else "one"
                    made = await self.make(shelf, sources, graphs)
                    shelf.supersede(made)
                    shelf.adopt(made, [])
        except BaseException:
            collection.discard(name)
            raise
        collection.change(name, is_whole=True)
        return name

    async def forget(self, tenant: str) -> None:
        """Removes a tenant from every generation and snapshot, its bytes on disk included."""
        for name, collection in list(self._engine.collections.items()):
            # Collections are made and taken away meanwhile.
            more = True
            while more and self._engine.collections.get(name) is collection:
                more = collection.drop_page(tenant, None)
                await asyncio.sleep(0)  # others are answered between two pages
        async with self._one:
            for collection in list(self._engine.collections.values()):
                for name, generation in list(collection.generations.items()):
                    collection.close_tenant(name, tenant)
                    await self._purge(generation.shared, tenant)
                for snapshot in snapshots.listed(self._engine.folder, collection.spec.name):
                    await self._purge_snapshot(snapshot, tenant)

    async def unmake(self, name: str) -> None:
        """Takes a collection away; one that is not there is gone."""
        async with self._one:
            folder = self._engine.unmake(name)
        await asyncio.to_thread(_remove, folder)

    async def _purge(self, shelf: Shelf, tenant: str) -> None:
        if tenant in shelf.open.frequencies.tenants:
            shelf.rotate()
        for part in [part for part in shelf.parts[:-1] if tenant in part.frequencies.tenants]:
            await self._build(shelf, [part], "by_tenant")

    async def _purge_snapshot(self, snapshot: Snapshot, tenant: str) -> None:
        root = self._engine.folder
        for place, parts in snapshot.shelves.items():
            for part in parts:
                folder = snapshots.part_folder(root, snapshot, place, part)
                if not await asyncio.to_thread(holds, folder, tenant):
                    continue
                draft = folder.with_name(f"{part}.draft")
                shutil.rmtree(draft, ignore_errors=True)
                source = Input(str(folder), (folder / DEAD).stat().st_size)
                job = Job(parent=os.getpid(), inputs=(source,), output=str(draft), spec=snapshot.spec)
                await self.run(msgspec.structs.replace(job, without=(tenant,), graphs=None))
                (draft / DEAD).touch()
                # Both files at once would need a third name; a ``dead`` file of points that are no more is harmless.
                (draft / JOURNAL).replace(folder / JOURNAL)
                (draft / DEAD).replace(folder / DEAD)
                shutil.rmtree(draft)

    async def make(self, shelf: Shelf, parts: Sequence[Source], graphs: Graphs, *, only: str | None = None) -> Part:
        """Returns a built part with the points that are left of others; the caller adopts it in the same turn."""
        places = {part.folder: part.dead_bytes for part in parts}
        name = shelf.next_name()
        draft, folder = shelf.folder / f"{name}.draft", shelf.folder / name
        shutil.rmtree(draft, ignore_errors=True)
        job = Job(
            parent=os.getpid(),
            inputs=tuple(Input(str(part.folder), places[part.folder]) for part in parts),
            output=str(draft),
            spec=shelf.spec,
            graphs=graphs,
            only=only,
        )
        began = time.monotonic()
        await self.run(job)
        draft.rename(folder)
        made = Part(folder, shelf.spec)
        late = _catch_up(made, parts, places)
        while late:
            await asyncio.sleep(0)
            late = _catch_up(made, parts, places)
        self.done += 1
        log.info("part built", folder=str(folder), points=made.points, seconds=round(time.monotonic() - began, 1))
        return made

    async def run(self, job: Job) -> None:
        """Runs the indexer; raises StoreUnavailableError with its last words."""
        process = await start("collegium_context.vectors.embedded.indexer", words=PIPE)
        self.running = job.output
        try:
            _, said = await process.converse(msgspec.json.encode(job))
        except BaseException:
            await process.end()
            raise
        finally:
            self.running = ""
        if process.code != 0:
            shutil.rmtree(job.output, ignore_errors=True)
            raise StoreUnavailableError(f"the indexer ended with {process.code}: {said.decode()[-500:]}")


def due(shelf: Shelf) -> list[Part]:
    """Returns the closed parts of a shelf that should be built into one now; none: nothing is to be done."""
    closed = shelf.parts[:-1]
    if plain := [part for part in closed if not part.is_built]:
        return _up_to(plain, shelf.sizes.job_points)
    if flat := [part for part in closed if not part.has_graphs]:
        return _up_to(flat, shelf.sizes.job_points)
    worn = [part for part in closed if part.gone > GONE_SHARE_MAX * max(1, part.points)]
    if worn:
        return worn[:1]
    if len(closed) > BUILT_PARTS_MAX:
        smallest = _up_to(sorted(closed, key=lambda part: part.points), shelf.sizes.job_points)
        return smallest if len(smallest) > 1 else []
    return []


def graphs_of(parts: Sequence[Part], *, one_tenant: bool) -> Graphs:
    """Returns with which graphs the parts that are due should be built."""
    if sum(not part.is_built for part in parts) > PLAIN_PARTS_MAX:
        return "none"
    return "one" if one_tenant else "by_tenant"


def holds(folder: Path, tenant: str) -> bool:
    """Whether a journal has points of a tenant."""
    for body, _ in journals.records(folder / JOURNAL):
        record = record_codec.decode(body)
        if isinstance(record, Added) and record.tenant == tenant:
            return True
    return False


def _place(shelf: Shelf, generation: Generation) -> str:
    return str(shelf.folder.relative_to(generation.folder))


def _up_to(parts: Sequence[Part], most: int) -> list[Part]:
    chosen: list[Part] = []
    points = 0
    for part in parts:
        if chosen and points + part.points > most:
            break
        chosen.append(part)
        points += part.points
    return chosen


def _catch_up(made: Part, parts: Sequence[Source], places: dict[Path, int]) -> bool:
    """Takes out of a new part what left the old ones since; true where something did."""
    late = False
    for part in parts:
        if part.dead_bytes > places[part.folder]:
            for keys, end in dead_keys(part.folder / DEAD, places[part.folder], part.dead_bytes):
                made.drop(keys, note=True)
                places[part.folder] = end
            late = True
    return late


async def _discard(gone: Sequence[Part]) -> None:
    for part in gone:
        part.close()
        await asyncio.to_thread(_remove, part.folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
