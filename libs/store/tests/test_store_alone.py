"""Jobs that one replica does at a time."""

from __future__ import annotations

from collegium_store import open_pool
from collegium_store.alone import Job, Rounds, alone
from collegium_testing import eventually


async def test_one_replica_does_a_job_at_a_time(database_url: str) -> None:
    pool = await open_pool(database_url, application_name="alone-test")
    mine = Job.PURGE_TASKS
    async with alone(pool, mine) as first, alone(pool, mine) as second, alone(pool, Job.BUDGET_ALERTS) as other:
        assert (first, second, other) == (True, False, True)
    async with alone(pool, mine) as again:
        assert again
    await pool.close()


async def test_rounds_go_on_after_one_that_failed_and_only_where_nobody_else_is_at_it(database_url: str) -> None:
    pool = await open_pool(database_url, application_name="alone-test")
    done: list[int] = []

    async def work() -> None:
        done.append(len(done))
        if len(done) == 1:
            raise OSError("away")

    rounds = Rounds(pool, Job.PURGE_TASKS, work, every_seconds=0.01)
    async with alone(pool, Job.PURGE_TASKS) as mine:
        assert mine
        rounds.start()
        elsewhere = Rounds(pool, Job.BUDGET_ALERTS, work, every_seconds=60.0)
        elsewhere.start()
        await eventually(lambda: done == [0])
        await elsewhere.stop()
    await eventually(lambda: len(done) >= 3)
    await rounds.stop()
    await pool.close()
