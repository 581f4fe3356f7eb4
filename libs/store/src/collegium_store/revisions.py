"""What Alembic is asked for: the SQL of the revisions between two versions.

Loaded only when there is something to migrate. One rule: nothing here talks to a database.
"""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.dialects.postgresql.base import PGDialect

from collegium_store.errors import MigrationError

# ``alembic.op``, which revisions call, is one object of the process.
_op_in_use = threading.Lock()


def upgrade_sql(
    schema: str, location: Path, version: str | None, newest: str, version_table: str
) -> tuple[str, list[str]]:
    """Returns the SQL from ``version`` (None: nothing) to ``newest``, and the revisions it consists of, in order."""
    script = ScriptDirectory(str(location), version_locations=[str(location)])
    try:
        if script.get_heads() != [newest]:
            raise MigrationError(f"the revisions in {location} do not end in {newest}: {script.get_heads()}")
        steps: list[Any] = script._upgrade_revs(newest, version)  # pyright: ignore[reportPrivateUsage,reportArgumentType] - as Alembic's own command does
    except CommandError as error:
        raise MigrationError(f"the revisions in {location} cannot be followed from {version}: {error}") from error
    out = io.StringIO()
    context = MigrationContext(
        # Named parameters: with others the dialect doubles every percent sign.
        PGDialect(paramstyle="named"),
        None,
        {
            "as_sql": True,
            "starting_rev": version,
            "output_buffer": out,
            "version_table": version_table,
            "version_table_schema": schema,
            "fn": lambda _version, _context: steps,
        },
    )
    with _op_in_use, Operations.context(context):
        context.run_migrations()
    return out.getvalue(), [str(step.revision.revision) for step in steps]
