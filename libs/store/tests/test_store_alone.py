"""Jobs that one replica does at a time."""

from __future__ import annotations

from collegium_store import open_pool
from collegium_store.alone import Job, alone


async def test_one_replica_does_a_job_at_a_time(database_url: str) -> None:
    pool = await open_pool(database_url, application_name="alone-test")
    mine = Job.PURGE_TASKS
    async with alone(pool, mine) as first, alone(pool, mine) as second, alone(pool, Job.BUDGET_ALERTS) as other:
        assert (first, second, other) == (True, False, True)
    async with alone(pool, mine) as again:
        assert again
    await pool.close()
