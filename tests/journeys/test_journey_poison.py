"""Bytes that are no message, on every subject that is read: kept verbatim, and the service goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from collegium_bus.connection import Connection, connect
from collegium_bus.ordered import OrderedReader
from collegium_bus.publisher import Publisher
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.ids import shard_of
from collegium_contracts.messages import DeadLetter
from collegium_testing import eventually

from tests.conftest import Stage

TASK = "tsk_" + "z" * 26


async def operator(stage: Stage) -> Connection:
    seed = (stage.platform.folder / "credentials" / "operator.nk").read_text().strip()
    return await connect(stage.platform.ready["nats"], "operator", nkey_seed=seed)


@pytest.mark.parametrize(
    ("subject", "services"),
    [
        (s.task_submitted("normal", shard_of("acme"), "acme"), {"router"}),
        (s.work("general", "normal"), {"worker-pool"}),
        (s.task_settled("acme", TASK), {"billing", "context", "evolution", "gateway"}),
        (s.attempt_ended("acme", TASK, 1), {"billing", "consensus", "evolution"}),
        (s.attempt_started("acme", TASK, 1, 1), {"billing"}),
        (s.task_changed("acme", TASK), {"billing", "gateway"}),
        (s.cancel("acme", TASK), {"billing", "consensus"}),
    ],
)
async def test_garbage_is_kept_verbatim_and_work_goes_on(stage: Stage, subject: str, services: set[str]):
    garbage = b"\xc1\x00 no message " + os.urandom(8)
    connection = await operator(stage)
    letters: list[DeadLetter] = []

    def collect(delivery) -> None:
        letter = codec.journey.decode(delivery.payload)
        if letter.payload == garbage:
            letters.append(letter)

    reader = OrderedReader(connection, s.DEAD, [s.DEAD_ALL], collect)
    reader.start()
    await Publisher(connection).publish(subject, garbage, message_id=os.urandom(4).hex())
    await eventually(lambda: {letter.service for letter in letters} == services)
    assert all((letter.subject, letter.cause) == (subject, "undecodable_message") for letter in letters)
    await reader.stop()
    await connection.close()
    async with (
        stage.session() as session,
        session.post(
            "/v1/chat/completions",
            json={"model": "sim", "messages": [{"role": "user", "content": "still there?"}]},
        ) as response,
    ):
        assert response.status == 200


async def test_a_service_may_not_publish_what_is_not_its_own(stage: Stage):
    """Evolution's credentials can neither hand out work nor settle a task."""
    seed = Path(stage.platform.folder / "credentials" / "evolution.nk").read_text().strip()  # noqa: ASYNC240
    connection = await connect(stage.platform.ready["nats"], "evolution", nkey_seed=seed)
    violations: list[str] = []

    async def failed(error: Exception) -> None:
        violations.append(str(error))

    connection.client._error_cb = failed
    for subject in (s.work("general", "normal"), s.task_settled("acme", TASK), "$JS.API.STREAM.DELETE.EVENTS"):
        connection.publish(subject, b"x")
    await connection.flush()
    await eventually(lambda: len(violations) == 3)
    assert all("permissions violation" in violation.lower() for violation in violations)
    await connection.close()
