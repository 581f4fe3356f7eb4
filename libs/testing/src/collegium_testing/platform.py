"""A platform in the test's own process: real broker and database, real services, the simulator as its model.

    async with RunningPlatform(clean_nats_url, database_url, folder=tmp_path) as platform:
        async with platform.session() as http: ...
        assert platform.sim.counts().totals.completed == 1

Here: `RunningPlatform`, which declares streams, migrates schemas, introduces tenants and starts any of the services as
`collegium up` would, so that a test can also start, stop and double single ones, and stand in for those it leaves out.
Not here: a platform in processes of its own (platforms.py). The one rule: services meet over the broker alone.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec
from collegium_bus import topology
from collegium_bus.claims import ClaimStore
from collegium_bus.connection import Connection, connect
from collegium_bus.direct import DirectReader, Stored
from collegium_bus.kv import Bucket
from collegium_bus.publisher import Publisher
from collegium_bus.wire import decode_headers
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.content import ChatMessage, decode_answer, encode_content
from collegium_contracts.envelope import Envelope, Keyring
from collegium_contracts.ids import API_KEY
from collegium_contracts.journey import Service
from collegium_contracts.messages import (
    CancelRequested,
    DeadLetter,
    JourneyMessage,
    Sampling,
    SettledMessage,
    TaskRef,
    TaskSubmitted,
)
from collegium_contracts.state import Breaker, KeyRecord, TenantRecord
from collegium_runtime.datakeys import DataKeys
from collegium_runtime.host import Hosted, start_service, stop_service
from collegium_runtime.platform import unix_ms
from collegium_runtime.runtime_file import Runtime
from collegium_settings import ModelSettings, PriceSettings, Settings
from collegium_settings.settings import CacheSettings, GrpcSettings, HttpSettings

from collegium_testing.eventually import eventually
from collegium_testing.granting import GrantingHolds
from collegium_testing.platforms import make_key
from collegium_testing.simulator import ModelSimulator

PLAIN_SERVICES: tuple[Service, ...] = ("router", "worker-pool", "gateway")
_WITH_TABLES = ("billing", "context", "evolution", "gateway")
_SCOPES = ["chat", "tasks", "usage"]


class RunningPlatform:
    """Some services of the platform, running on this event loop from `async with` to its end.

    `models` are fields of ModelSettings; what is left out makes a teacher named ``sim`` on the simulator. `tenants`
    get a key each (``keys``; ``key`` is the first one's) with the scopes chat, tasks and usage. `settings` are further
    fields of Settings. Without a database URL, services that need one cannot be started.
    """

    def __init__(
        self,
        nats_url: str,
        database_url: str = "",
        *,
        folder: Path,
        services: Sequence[Service] = PLAIN_SERVICES,
        models: Sequence[Mapping[str, Any]] = ({},),
        tenants: Sequence[str] = ("acme", "globex"),
        **settings: Any,
    ) -> None:
        self._runtime = Runtime(nats=nats_url, database=database_url)
        self._services = tuple(services)
        self._models = models
        self._more_settings: dict[str, Any] = {"data_dir": folder, **settings}
        self._stack = AsyncExitStack()
        self._hosted: list[Hosted] = []
        self.sim = ModelSimulator()
        self.keys = {tenant: make_key(tenant.replace("-", "")) for tenant in tenants}
        self.settings = Settings()
        self.connection: Connection
        self.publisher: Publisher
        self.direct: DirectReader

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.sim)
            self.settings = self._make_settings()
            self.connection = await connect(self._runtime.nats, "operator")
            stack.push_async_callback(self.connection.close)
            self.publisher = Publisher(self.connection)
            self.direct = DirectReader(self.connection)
            self._claims = ClaimStore(self.connection)
            await self._declare()
            if "billing" not in self._services:
                self.holds = GrantingHolds(self.connection)
                stack.callback(self.holds.stop)
            await self._make_data_keys(stack)
            stack.push_async_callback(self._stop_all)
            for service in self._services:
                await self.start(service)
            if "gateway" in self._services:
                await eventually(lambda: all(self.app("gateway").readiness().values()))
            self._stack = stack.pop_all()
        return self

    async def _make_data_keys(self, stack: AsyncExitStack) -> None:
        """Makes the tenants' data keys as a gateway would, for services that run without one."""
        self.data_keys = DataKeys(
            self.connection, Path(self.settings.data_dir), self.settings.encryption, unix_ms, may_write=True
        )
        await self.data_keys.start()
        stack.push_async_callback(self.data_keys.stop)
        for tenant in self.keys:
            await self.data_keys.ensure(tenant)

    @property
    def keyring(self) -> Keyring:
        """Seals and opens what the tenants write, as the services do."""
        return self.data_keys.ring

    def text(self, tenant: str, envelope: Envelope | None) -> str:
        """The text of a sealed answer, empty where there is none."""
        if envelope is None:
            return ""
        return decode_answer(self.keyring.open(tenant, envelope)).choices[0].text or ""

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def key(self) -> str:
        """The first tenant's key."""
        return next(iter(self.keys.values()))

    @property
    def http(self) -> str:
        """The gateway's address."""
        return f"http://127.0.0.1:{self.app('gateway').port}"

    def session(self, tenant: str | None = None) -> aiohttp.ClientSession:
        """An HTTP session of a tenant (the first unless another is named)."""
        key = self.key if tenant is None else self.keys[tenant]
        return aiohttp.ClientSession(self.http, headers={"Authorization": f"Bearer {key}"})

    def hosted(self, service: Service) -> Hosted:
        """The running service of this name, the newest where there are several."""
        return next(one for one in reversed(self._hosted) if one.platform.service == service)

    def app(self, service: Service) -> Any:
        """The service's own object."""
        return self.hosted(service).app

    async def start(self, service: Service) -> Hosted:
        """Starts one more service, also a second replica of one that runs."""
        hosted = await start_service(service, self.settings, self._runtime)
        self._hosted.append(hosted)
        return hosted

    async def stop(self, hosted: Hosted) -> None:
        """Drains one service and forgets it."""
        self._hosted.remove(hosted)
        await stop_service(hosted)

    async def submit(
        self,
        text: str,
        *,
        model: str = "auto",
        deadline_seconds: float = 20,
        sampling: Sampling | None = None,
        **task: Any,
    ) -> TaskRef:
        """Stores a TaskSubmitted as a gateway would, for a task nobody waits for; `task` are fields of TaskRef."""
        submitted = self.submission(text, model=model, deadline_seconds=deadline_seconds, sampling=sampling, **task)
        ref = submitted.task
        subject = s.task_submitted(ref.priority, ids.shard_of(ref.tenant), ref.tenant)
        await self.send(subject, submitted, message_id=ref.id, tenant=ref.tenant)
        return ref

    def submission(
        self,
        text: str,
        *,
        model: str = "auto",
        deadline_seconds: float = 20,
        sampling: Sampling | None = None,
        **task: Any,
    ) -> TaskSubmitted:
        """Makes a TaskSubmitted that asks one question."""
        now = unix_ms()
        prompt = encode_content([ChatMessage(role="user", content=text)])
        values: dict[str, Any] = {
            "id": ids.task_id(now, os.urandom(10)),
            "tenant": next(iter(self.keys)),
            "plan": "single",
            "created_at_ms": now,
            "deadline_ms": now + int(deadline_seconds * 1000),
            "model": model,
        }
        ref = TaskRef(**(values | task))
        return TaskSubmitted(
            task=ref,
            prompt=self.keyring.seal(ref.tenant, prompt),
            sampling=sampling or Sampling(),
            prompt_bytes=len(prompt),
        )

    async def cancel(self, task: TaskRef, reason: Any = "canceled") -> None:
        """Stores a CancelRequested as a gateway would."""
        message = CancelRequested(task_id=task.id, tenant=task.tenant, at_ms=unix_ms(), reason=reason)
        await self.send(s.cancel(task.tenant, task.id), message, message_id=f"{task.id}.cancel", tenant=task.tenant)

    async def close_breaker(self, model: str) -> None:
        """Closes a model's circuit breaker, so that what was broken before does not keep callers from it."""
        worker, router = self.app("worker-pool"), self.app("router")
        bucket, closed = Bucket(self.connection, s.KV_BREAKERS), codec.encode(Breaker(model=model))

        async def is_closed() -> bool:
            # A worker may still write what it saw before.
            await bucket.put(s.state_key(model), closed)
            known = worker._breakers._known.get(model)
            calm = known is None or not (known.failures_ms or known.open_until_ms)
            return calm and not worker._breakers._changes and not router._resources.open_until_ms.get(model)

        await eventually(is_closed, every_seconds=0.1)

    async def send(self, subject: str, message: JourneyMessage | bytes, *, message_id: str, tenant: str) -> None:
        """Publishes a message, or bytes as they are, to the subject's stream."""
        payload = message if isinstance(message, bytes) else codec.encode(message)
        await self.publisher.publish(subject, payload, message_id=message_id, headers={s.H_TENANT: tenant})

    async def settled(self, task: TaskRef, *, deadline_seconds: float = 60) -> SettledMessage:
        """Waits for a task's terminal message and returns it."""
        subject = s.task_settled(task.tenant, task.id)

        async def standing() -> Stored | None:
            return await self.direct.last(s.EVENTS, subject)

        stored = await eventually(standing, deadline_seconds=deadline_seconds)
        assert stored is not None, "eventually returns what is true"
        return codec.settled.decode(stored.payload)

    async def read(self, stream: str, filter_subject: str) -> list[tuple[str, bytes]]:
        """Returns subject and payload of all messages that stand in a stream, in order.

        By direct gets, because a work queue lets nobody read along.
        """
        found: list[tuple[str, bytes]] = []
        sequence = 0
        while True:
            wanted = msgspec.json.encode({"seq": sequence + 1, "next_by_subj": filter_subject})
            payload, block = await self.connection.request_raw(f"$JS.API.DIRECT.GET.{stream}", wanted)
            headers = decode_headers(block)
            if "Nats-Sequence" not in headers:
                return found
            sequence = int(headers["Nats-Sequence"])
            if claim := headers.get(s.H_CLAIM):
                payload = await self._claims.get(claim)
            found.append((headers["Nats-Subject"], payload))

    async def events(self, task: TaskRef) -> list[JourneyMessage]:
        """Returns everything that EVENTS holds about a task, in order of storing within each kind of subject."""
        filters = (
            s.task_changed(task.tenant, task.id),
            s.attempts_of(task.tenant, task.id),
            s.task_settled(task.tenant, task.id),
        )
        return [codec.journey.decode(payload) for one in filters for _, payload in await self.read(s.EVENTS, one)]

    async def dead_letters(self) -> list[DeadLetter]:
        """Returns all dead letters, oldest first."""
        letters = [codec.journey.decode(payload) for _, payload in await self.read(s.DEAD, s.DEAD_ALL)]
        return [letter for letter in letters if isinstance(letter, DeadLetter)]

    async def standing(self, stream: str) -> int:
        """Returns how many messages stand in a stream."""
        info = msgspec.json.decode(await self.connection.api(f"STREAM.INFO.{stream}"))
        count: int = info["state"]["messages"]
        return count

    def _make_settings(self) -> Settings:
        base: dict[str, Any] = {
            "name": "sim",
            "base_url": self.sim.base_url,
            "rank": "teacher",
            "price": PriceSettings(),
        }
        fields: dict[str, Any] = {
            "http": HttpSettings(port=0),
            "grpc": GrpcSettings(port=0),
            "embedded_model": False,
            # Tests ask the same again and count what reaches the model.
            "cache": CacheSettings(exact=False),
            "models": tuple(ModelSettings(**(base | dict(model))) for model in self._models),
        }
        return Settings(**(fields | self._more_settings))

    async def _declare(self) -> None:
        pools = {model.pool for model in self.settings.models} | {"general"}
        await topology.apply(self.connection, await topology.plan(self.connection, pools=pools))
        if self._runtime.database:
            await migrate_all(self._runtime.database)
        tenants = Bucket(self.connection, s.KV_TENANTS)
        for tenant, key in self.keys.items():
            match = API_KEY.match(key)
            assert match is not None, "make_key makes keys"
            digest = hashlib.sha256(match[2].encode()).hexdigest()
            record = TenantRecord(
                id=tenant, tier="pro", keys=[KeyRecord(id=match[1], secret_sha256=digest, scopes=_SCOPES)]
            )
            await tenants.put(tenant, codec.encode(record))

    async def _stop_all(self) -> None:
        for hosted in list(reversed(self._hosted)):
            await self.stop(hosted)


async def migrate_all(database_url: str) -> None:
    """Applies every service's migrations; what stands is left. Serves as the fixture `database_migrations` too."""
    from collegium_store import migrate  # noqa: PLC0415 - tests without a database need not wait for it

    owners = [importlib.import_module(f"collegium_{owner}.migrations").MIGRATIONS for owner in _WITH_TABLES]
    await migrate(database_url, [importlib.import_module("collegium_store.archive").ARCHIVE_MIGRATIONS, *owners])
