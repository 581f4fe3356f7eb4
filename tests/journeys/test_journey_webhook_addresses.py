"""Callbacks may not go to private addresses unless the operator allows them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from collegium_testing import WebhookReceiver

from tests.conftest import LoopThread, Stage


@pytest.fixture
def hooks(loop_thread: LoopThread) -> Iterator[WebhookReceiver]:
    running = loop_thread.run(WebhookReceiver().__aenter__())
    yield running
    loop_thread.run(running.__aexit__(None, None, None))


async def test_a_private_address_is_refused_unless_it_is_allowed(stage: Stage, hooks: WebhookReceiver):
    body = {"input": "hello", "callback_url": hooks.url}
    async with stage.session() as http, http.post("/v1/tasks", json=body) as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"], error["param"]) == (400, "callback_address_refused", "callback_url")
    assert not hooks.received
    assert stage.simulator.counts().totals.started == 0
