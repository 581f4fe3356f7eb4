"""Scenarios: processes that die, everywhere and anytime."""

from __future__ import annotations

import asyncio

from collegium_contracts.consumers import work_consumer
from collegium_runtime.platform import CLOCK_OFFSET_VARIABLE
from collegium_testing.faults.checker import Expected

from tests.chaos.stage import Stage

IN_FLIGHT = Expected(killed_in_flight=True)
NOTHING_IN_FLIGHT = Expected()


async def at_a_failpoint(stage: Stage, name: str, expected: Expected) -> None:
    """Kills the process that comes by a failpoint, somewhere in the middle of the work."""
    hit = stage.chance.randint(1, 3)
    await stage.up(fail=f"{name}=kill:{hit}")
    await stage.work()
    await stage.happened(name)
    await stage.recovered()
    await stage.checked(expected)


async def everything(stage: Stage) -> None:
    """Kills the supervisor and all its children at once, and starts anew on the same folder."""
    await stage.up()
    await stage.work()
    await stage.calls_running()
    assert stage.platform is not None
    stage.fault("kill -9 of everything")
    await asyncio.to_thread(stage.platform.kill_everything)
    await stage.up_again()
    await stage.recovered()
    await stage.checked(IN_FLIGHT)


async def broker_and_database(stage: Stage) -> None:
    """Kills the broker and the database; no service dies with them."""
    await stage.up()
    await stage.work()
    await stage.calls_running()
    stage.kill("nats", "postgres")
    await stage.recovered()
    await stage.checked(IN_FLIGHT)


async def worker(stage: Stage) -> None:
    """Kills one of two workers; the other completes what it held when its leases end."""
    await stage.up(without=["worker-pool"])
    first = await stage.serve("worker-pool")
    await stage.work(60)
    await stage.calls_running()
    await stage.serve("worker-pool")
    stage.fault(f"kill -9 of worker {first.pid}")
    first.kill()
    await stage.recovered()
    await stage.checked(IN_FLIGHT)


async def router(stage: Stage, *, ahead_seconds: int = 0) -> None:
    """Kills one of two routers; the other takes its shards and replays them, whatever the dead one's clock said."""
    # A gateway is ready once a router has published the roster.
    await stage.up(without=["router", "gateway"])
    first = await stage.serve("router", **{CLOCK_OFFSET_VARIABLE: str(ahead_seconds)} if ahead_seconds else {})
    await stage.serve("gateway")
    await stage.work(80, deadline_seconds=1500)
    await stage.calls_running()
    await stage.serve("router")
    stage.fault(f"kill -9 of router {first.pid}")
    first.kill()
    await stage.work(20, deadline_seconds=1500)
    await stage.recovered()
    await stage.checked(NOTHING_IN_FLIGHT)


async def gateway(stage: Stage) -> None:
    """Kills the gateway while chats wait in it; their tasks go on, and new clients are served."""
    await stage.up()
    asking = asyncio.create_task(stage.load.ask(20))
    await stage.calls_running()
    stage.kill("gateway")
    await stage.work(20)
    await asking
    await stage.recovered()
    await stage.checked(NOTHING_IN_FLIGHT)


async def zombie(stage: Stage) -> None:
    """Stops a worker after a result for two ack waits, lets another do the work, and lets the zombie go on."""
    await stage.up(without=["worker-pool"])
    name = "worker-pool.after-result"
    first = await stage.serve("worker-pool", fail=f"{name}=stop:{stage.chance.randint(2, 5)}")
    await stage.work(30)
    await stage.happened(name)
    await stage.serve("worker-pool")
    await stage.until_seconds_after_the_fault(2 * work_consumer("general").ack_wait_seconds + 1)
    first.resume()
    stage.note(f"worker {first.pid} goes on")
    await stage.recovered()
    collected = await stage.checked(NOTHING_IN_FLIGHT)
    wasted = [row for row in collected.booked.values() if row.wasted and row.picos]
    assert wasted, "the zombie's calls are booked as waste"
