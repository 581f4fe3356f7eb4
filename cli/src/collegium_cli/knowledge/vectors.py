"""The verb ``vectors``: how the vector store stands, its snapshots, and its generations."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any

from collegium_bus.errors import BusError
from collegium_settings import Settings

from collegium_cli.client import ClientError, connect
from collegium_cli.environment import quiet_libraries, runtime_of
from collegium_cli.printing import failed, print_json, print_table
from collegium_cli.tasks.operator import operator

_NAMED = ("snapshot", "forget-snapshot", "restore", "switch", "rollback", "discard")
_COLUMNS = ("collection", "generation", "answers", "points", "built", "parts", "own shelves", "quantized")


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Runs one action; returns the exit code."""
    if options.action == "index":
        return _index(settings, options)
    if problem := _problem(options):
        print(f"collegium vectors {options.action}: {problem}", file=sys.stderr)
        return 2
    quiet_libraries()
    from collegium_context.vectors.interface import VectorStoreError

    try:
        return _print(asyncio.run(_do(settings, options)), options)
    except (BusError, VectorStoreError) as error:
        return failed(f"collegium vectors {options.action}", error)


def _index(settings: Settings, options: argparse.Namespace) -> int:
    """Shows how far documents are embedded, which the gateway is asked for."""
    try:
        told = connect(runtime_of(settings)).call("GET", "/v1/admin/search-index")
    except ClientError as error:
        return failed("collegium vectors index", error)
    if options.json:
        return print_json(told)
    columns = ("collection", "model", "dimensions", "state", "documents", "began")
    rows = [
        [
            one["collection"],
            one["model"],
            str(one["dimensions"]),
            one["state"],
            f"{one['documents']['done']}/{one['documents']['total']}",
            one["began_at"],
        ]
        for one in told["data"]
    ]
    return print_table(columns, rows)


def _problem(options: argparse.Namespace) -> str:
    if options.action != "status" and not options.collection:
        return "name a collection (`collegium vectors status` shows them)"
    if options.action in _NAMED and not options.name:
        return "name a snapshot or a generation"
    return ""


async def _do(settings: Settings, options: argparse.Namespace) -> Any:
    from collegium_context.vectors.embedded.client import EmbeddedStore
    from collegium_context.vectors.server import QdrantStore
    from collegium_context.vectors.server_generations import operate

    verb = "switch" if options.action == "rollback" else options.action
    if settings.qdrant.url is not None:
        key = settings.qdrant.api_key
        server = QdrantStore.connected(settings.qdrant.url, key.reveal() if key is not None else None)
        try:
            return await operate(server, verb, options.collection, options.name, quantized=options.quantized)
        finally:
            await server.close()
    async with operator(settings, runtime_of(settings), "context") as connection:
        store = EmbeddedStore(connection)
        return await store.operate(verb, options.collection, options.name, quantized=options.quantized)


def _print(told: Any, options: argparse.Namespace) -> int:
    if options.json:
        return print_json(told)
    if options.action == "status":
        return print_table(_COLUMNS, _rows(told))
    if isinstance(told, list):
        columns = ("name", "points", "made_at_ms")
        return print_table(columns, [[str(one[column]) for column in columns] for one in told])
    for key, value in told.items():
        print(f"{key}: {value}")
    return 0


def _rows(status: dict[str, Any]) -> list[list[str]]:
    return [
        [
            name,
            generation,
            "yes" if generation == one["serving"] else "no" if made["whole"] else "being built",
            str(made["points"]),
            str(made["built_points"]),
            str(made["parts"]),
            str(len(made["own_shelves"])),
            "yes" if made["quantized"] else "no",
        ]
        for name, one in status["collections"].items()
        for generation, made in one["generations"].items()
    ]
