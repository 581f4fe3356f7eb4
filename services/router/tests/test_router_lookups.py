"""What a plan is told by context, and what becomes of a task where context is away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from collegium_bus.connection import connect
from collegium_bus.shell import Answering
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.memory_requests import NOTE_BYTES_MAX, RecallReply, RecallRequest
from collegium_contracts.messages import RunAttempt, TaskRef
from collegium_contracts.parts import MemoryUse
from collegium_contracts.requests import TurnsReply, TurnsRequest
from collegium_router.choosing.lookups import Added, needs, recall_bytes, window_bytes
from collegium_testing import eventually
from collegium_testing.platform import RunningPlatform

NOTE = Envelope("identity", b"", b"Bob is allergic to peanuts.")
SUMMARY = Envelope("identity", b"", b"Earlier: hello.")
TURNS = Envelope("identity", b"", b'[{"role":"user","content":"before"}]')


async def run_of(running: RunningPlatform, task: TaskRef) -> RunAttempt:
    async def found() -> RunAttempt | None:
        for _, payload in await running.read(s.WORK, s.WORK_ALL):
            run = codec.journey.decode(payload)
            if isinstance(run, RunAttempt) and run.task.id == task.id:
                return run
        return None

    run = await eventually(found)
    assert run is not None
    return run


async def test_without_context_a_task_goes_on_without_memory_and_says_so(clean_nats_url: str, tmp_path: Path):
    async with RunningPlatform(clean_nats_url, folder=tmp_path, services=("router",)) as running:
        run = await run_of(running, await running.submit("hello", memory="web/ada"))
        assert run.task.recalled == MemoryUse(state="unavailable")
        assert (run.notes, run.history) == ([], None)
        run = await run_of(running, await running.submit("hello", memory="off"))
        assert run.task.recalled is None


async def test_turns_a_summary_and_memories_go_with_the_attempt(clean_nats_url: str, tmp_path: Path):
    asked: list[Any] = []

    async def turns(question: TurnsRequest, _traceparent: str) -> TurnsReply:
        asked.append(question)
        return TurnsReply(history=TURNS, messages=1, history_bytes=10, summary=SUMMARY, summary_bytes=5)

    async def recall(question: RecallRequest, _traceparent: str) -> RecallReply:
        asked.append(question)
        return RecallReply(use=MemoryUse(ids=["mem_1"]), note=NOTE, note_bytes=7)

    async with RunningPlatform(clean_nats_url, folder=tmp_path, services=("router",)) as running:
        connection = await connect(clean_nats_url, "context")
        answering = Answering(connection, {s.SVC_CONTEXT_TURNS: turns, s.SVC_CONTEXT_RECALL: recall})
        await answering.start()
        task = await running.submit("hello", memory="web/ada", conversation="c1")
        run = await run_of(running, task)
        await answering.stop()
        await connection.close()
    assert run.task == msgspec.structs.replace(task, recalled=MemoryUse(ids=["mem_1"]))
    assert (run.history, run.notes) == (TURNS, [SUMMARY, NOTE])
    (turned,) = (one for one in asked if isinstance(one, TurnsRequest))
    (recalled,) = (one for one in asked if isinstance(one, RecallRequest))
    assert (recalled.tenant, recalled.path, recalled.task) == ("acme", "web/ada", task.id)
    assert turned.max_bytes > 0


@pytest.mark.parametrize(
    ("conversation", "memory", "wanted"), [("", "", False), ("", "off", False), ("c", "off", True), ("", "/", True)]
)
def test_a_task_that_asks_for_nothing_needs_nothing(submission, conversation: str, memory: str, wanted: bool):
    assert needs(submission(conversation=conversation, memory=memory).task) is wanted


def test_the_window_leaves_room_for_the_prompt_the_notes_and_the_answer(model):
    small = model("small", context_tokens=4096, max_output_tokens=1024)
    assert window_bytes(small, 96, 300) == (4096 - 96) * 3 - 300
    assert window_bytes(small, 96, 300, 1_000) == (4096 - 96) * 3 - 300 - 1_000
    assert window_bytes(small, None, 10**9, NOTE_BYTES_MAX) == 1
    tiny = model("tiny", context_tokens=2048, max_output_tokens=256)
    assert window_bytes(tiny, None, 100, NOTE_BYTES_MAX) == ((2048 - 256) * 3 - 100) // 2, "turns have half of it"
    greedy = model("small", context_tokens=4096, max_output_tokens=100_000)
    assert window_bytes(greedy, None, 0) == 2048 * 3, "an answer never takes all of it"


def test_what_memory_adds_leaves_room_for_the_prompt_the_answer_and_the_turns(model):
    large = model("large", context_tokens=128_000, max_output_tokens=1024)
    assert recall_bytes(large, None, 300, has_turns=False) == NOTE_BYTES_MAX
    tiny = model("tiny", context_tokens=512, max_output_tokens=256)
    assert recall_bytes(tiny, None, 100, has_turns=False) == 256 * 3 - 100
    for prompt in range(0, 2_000, 37):
        note = recall_bytes(tiny, 64, prompt, has_turns=True)
        turns = window_bytes(tiny, 64, prompt, NOTE_BYTES_MAX)
        assert note + turns + turns // 4 <= max(2, (512 - 64) * 3 - prompt), "turns, a summary and notes fit together"
    assert recall_bytes(tiny, None, 10**9, has_turns=False) == 0


def test_what_was_added_counts_to_the_prompt():
    turns = TurnsReply(history=None, messages=0, history_bytes=10, summary_bytes=5)
    recalled = RecallReply(use=MemoryUse(), note_bytes=7)
    assert Added(turns, recalled).bytes == 22
    assert (Added().bytes, Added().notes, Added().history) == (0, [], None)
