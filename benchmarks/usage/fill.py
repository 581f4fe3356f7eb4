"""Fills the books of a database that was migrated: `python benchmarks/usage/fill.py postgresql://… 5000000`."""

from __future__ import annotations

import asyncio
import sys

from collegium_cli.bench.usage_rows import fill
from collegium_store import open_connection


async def main(url: str, rows: int) -> None:
    connection = await open_connection(url, application_name="collegium-bench")
    try:
        await fill(connection, rows)
    finally:
        await connection.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
