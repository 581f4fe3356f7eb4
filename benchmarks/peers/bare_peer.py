"""The bare journey: submitter → router → worker → result, straight on Collegium's bus, without any of its guarantees.

Three stored hops with message ids; a router that only copies; a worker that calls the endpoint and stores the answer.
The difference to the platform's figure is what its door, fences, books and views cost.
"""

import asyncio
import os
import subprocess
import sys
import time

import aiohttp
import msgspec
import uvloop
from collegium_bus.connection import connect
from collegium_bus.dead import DeadLetters
from collegium_bus.publisher import Publisher
from collegium_bus.work import WorkLoop
from collegium_contracts.consumers import Consumer
from measuring import BODY, STALLED_SECONDS, options, report, tree_cpu_seconds

STREAMS = {"IN": ("bare.in", "workqueue"), "OUT": ("bare.out", "workqueue"), "END": ("bare.end.>", "limits")}
SLOTS = 128


async def declare(connection):
    for name, (subject, retention) in STREAMS.items():
        stream = {"name": name, "subjects": [subject], "retention": retention, "storage": "file", "allow_direct": True}
        await connection.api(f"STREAM.CREATE.{name}", msgspec.json.encode(stream))
    for stream in ("IN", "OUT"):
        consumer = {"durable_name": "all", "ack_policy": "explicit", "ack_wait": int(20e9), "max_ack_pending": 10_000}
        body = msgspec.json.encode({"stream_name": stream, "config": consumer})
        await connection.api(f"CONSUMER.DURABLE.CREATE.{stream}.all", body)


async def serve(chosen):
    connection = await connect(chosen.broker, chosen.part)
    publisher = Publisher(connection)
    http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    body = msgspec.json.encode(BODY)

    async def route(delivery):
        await publisher.publish("bare.out", delivery.payload, message_id=f"{delivery.sequence}.out")
        delivery.ack()

    async def work(delivery):
        headers = {"content-type": "application/json"}
        async with http.post(chosen.url, data=body, headers=headers) as response:
            answer = msgspec.json.decode(await response.read())["choices"][0]["message"]["content"]
        task = msgspec.msgpack.decode(delivery.payload)
        result = msgspec.msgpack.encode({**task, "answer": answer, "ended": time.time()})
        await publisher.publish(f"bare.end.{task['id']}", result, message_id=str(task["id"]))
        delivery.ack()

    stream, handle = ("IN", route) if chosen.part == "router" else ("OUT", work)
    consumer = Consumer(durable="all", stream=stream, service=chosen.part, filters=(), ack_wait_seconds=20.0)
    WorkLoop(connection, consumer, handle, DeadLetters(publisher, chosen.part), slots=SLOTS).start()
    await asyncio.Event().wait()


async def run(chosen, parts):
    connection = await connect(chosen.broker, "bench")
    await declare(connection)
    start(parts)
    publisher = Publisher(connection)
    prompt = os.urandom(100)

    async def submit(number):
        task = {"id": number, "submitted": time.time(), "prompt": prompt, "messages": BODY}
        await publisher.publish("bare.in", msgspec.msgpack.encode(task), message_id=str(number))

    await submit("warm-up")
    await stored(connection, 1)
    cpu, began = sum(tree_cpu_seconds(part.pid) for part in parts), time.time()
    left = iter(range(chosen.tasks))

    async def submitter():
        for number in left:
            await submit(number)

    await asyncio.gather(*(submitter() for _ in range(chosen.clients)))
    submitted = time.time()
    completed = await stored(connection, chosen.tasks + 1) - 1
    values = []
    for sequence in range(2, completed + 2, max(1, completed // 1000)):
        raw, _ = await connection.request_raw("$JS.API.DIRECT.GET.END", b'{"seq": %d}' % sequence)
        values.append(msgspec.msgpack.decode(raw))
    last, _ = await connection.request_raw("$JS.API.DIRECT.GET.END", b'{"seq": %d}' % (completed + 1))
    report(
        tasks=chosen.tasks,
        began=began,
        submitted=submitted,
        ended=msgspec.msgpack.decode(last)["ended"],
        completed=completed,
        latencies=[value["ended"] - value["submitted"] for value in values],
        workers_cpu=sum(tree_cpu_seconds(part.pid) for part in parts) - cpu,
    )
    await connection.close()


def start(parts):
    for name in ("router", "worker-pool"):
        parts.append(subprocess.Popen([sys.executable, *sys.argv, "--part", name]))


async def stored(connection, expected):
    count, changed = 0, time.time()
    while count < expected and time.time() - changed < STALLED_SECONDS:
        info = msgspec.json.decode(await connection.api("STREAM.INFO.END"))
        if info["state"]["messages"] != count:
            count, changed = info["state"]["messages"], time.time()
        await asyncio.sleep(0.05)
    return count


def main():
    chosen = options()
    if chosen.part:
        uvloop.run(serve(chosen))
        return
    parts = []
    try:
        uvloop.run(run(chosen, parts))
    finally:
        for part in parts:
            part.kill()
            part.wait()


if __name__ == "__main__":
    main()
