"""``collegium bench distillation``: how long a round of learning takes to make a head of many samples.

A platform is asked recorded or made questions of a teacher, every answer is judged right, and one round is asked for:
it is not told what to make. One rule: the clock of the round runs until the student has answered a question.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import msgspec

from collegium_cli.bench import figures
from collegium_cli.bench.documents import WORDS
from collegium_cli.bench.questions import ALIKE
from collegium_cli.bench.stage import Running, StageError, child, configured, make_key

T = TypeVar("T")

TENANT: Final = "bench"
DOMAIN: Final = "bench"
TEACHER: Final = "sim"
# Asked of the student once it serves, none of them among what it learned from.
NEW: Final = 200
LOOK_SECONDS: Final = 0.02
# Far beyond what is required, so that a slow machine still prints how long it took.
WAIT_SECONDS: Final = 3600.0
# What is required of 10,000 samples: a spawn seen, and a student that answers, after so long.
REQUIRED_SECONDS: Final = {"spawn_seen": 1.0, "round": 300.0}


class Question(msgspec.Struct, frozen=True):
    """What is asked, and the label that is its right answer."""

    text: str
    label: str


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How many samples, whose questions (none: made ones), and how many clients ask at a time."""

    samples: int = 10_000
    recorded: Path | None = None
    clients: int = 16
    seed: int = 7


def main(options: argparse.Namespace) -> int:
    """Measures, prints the report, and returns the exit code: 1 where something required was missed."""
    asked = Options(samples=options.samples, recorded=options.questions, clients=options.clients)
    report = run(asked)
    print(json.dumps(report) if options.json else table(report))
    return 0 if all(report["held"].values()) else 1


def table(report: Mapping[str, Any]) -> str:
    """Returns the figures as a table for people."""
    student, held = report["student"], {name: "held" if kept else "missed" for name, kept in report["held"].items()}
    return "\n".join(
        [
            f"{report['samples']} samples of {student['labels']} labels: asked and judged in"
            f" {report['taught_seconds']} s, kept {report['gathered_seconds']} s after that"
            f" (load average {report['load_average']})",
            f"a spawn seen after {report['spawn_seen_seconds']} s, at most 1 s: {held['spawn_seen']}",
            f"the round: over after {report['round_seconds']} s, the student answers after"
            f" {report['answers_after_seconds']} s, at most 300 s: {held['round']}",
            f"trained on {student['samples']}, right on {student['held_out_right']} of {student['held_out']} held out",
            f"of {report['new']['asked']} new questions {report['new']['right']} right, {report['new']['wrong']} wrong,"
            f" {report['new']['unsure']} not sure; p50 {report['new']['took']['p50_ms']} ms",
        ]
    )


def run(options: Options) -> dict[str, Any]:
    """Starts a platform, measures, and returns the figures; raises StageError."""
    if options.recorded is not None:
        questions = recorded(options.recorded, options.seed)
    else:
        questions = made(options.samples + NEW, options.seed)
    if len(questions) <= options.samples:
        raise StageError(f"{len(questions)} questions: {options.samples} to learn from leave none to ask")
    taught, new = questions[: options.samples], questions[options.samples :][:NEW]
    with running(taught) as platform:
        return asyncio.run(_measured(platform, taught, new, options.clients))


def made(count: int, seed: int) -> list[Question]:
    """Returns so many different questions for one of 95 things each, the thing between other words. Pure."""
    chance = random.Random(seed)  # noqa: S311 - words, not secrets
    found: dict[str, Question] = {}
    while len(found) < count:
        asked, _ = ALIKE[chance.randrange(len(ALIKE))]
        thing = asked.removeprefix("How do I ").removesuffix("?")
        before, after = (" ".join(chance.choices(WORDS, k=chance.randint(3, 8))) for _ in range(2))
        text = f"{before}: how to {thing}, {after}?"
        found.setdefault(text, Question(text, thing))
    return list(found.values())


def recorded(path: Path, seed: int) -> list[Question]:
    """Reads rows of a text and its class, in an order drawn by the seed; what comes twice counts once.

    Raises StageError.
    """
    found: dict[str, Question] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            row = msgspec.json.decode(line)
            found.setdefault(row["text"], Question(row["text"], row["class"]))
        except (msgspec.DecodeError, KeyError, TypeError):
            raise StageError(f"{path}:{number} holds no text and its class") from None
    questions = list(found.values())
    random.Random(seed).shuffle(questions)  # noqa: S311 - an order
    return questions


@contextlib.contextmanager
def running(taught: Sequence[Question]) -> Generator[Running]:
    """Runs a simulator that knows the answers, and a platform that learns when told to, for the length of a block."""
    with tempfile.TemporaryDirectory(prefix="collegium-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        pool, prices = folder / "pool.jsonl", folder / "prices.json"
        pool.write_bytes(b"\n".join(_row(number, one) for number, one in enumerate(taught)))
        prices.write_text(json.dumps({TEACHER: {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1}}))
        told = ("--pool", str(pool), "--prices", str(prices))
        simulator = stack.enter_context(child("collegium_testing.simulator", *told))
        key = make_key(TENANT)
        yield stack.enter_context(configured(folder, _config(simulator["base_url"], key), key))


def _row(number: int, one: Question) -> bytes:
    outcome = {"score": 1.0, "cost_usd": 0.0001, "answer": one.label}
    return msgspec.json.encode({"id": str(number), "input": one.text, "outcomes": {TEACHER: outcome}})


def _config(base_url: str, key: str) -> dict[str, Any]:
    price = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "1"}
    tenant = {"id": TENANT, "tier": "enterprise", "api_key": key, "learning": {"collect": True}}
    return {
        "http": {"port": 0},
        "grpc": {"port": 0},
        "embedded_model": False,
        "evolution": {"interval_queries": 10**12},
        "models": [{"name": TEACHER, "base_url": base_url, "rank": "teacher", "price": price}],
        "tenants": [tenant],
    }


async def _measured(
    platform: Running, taught: Sequence[Question], new: Sequence[Question], clients: int
) -> dict[str, Any]:
    async with platform.session(platform.key) as http, platform.session(platform.admin_key) as operator:
        began = time.monotonic()
        await _taught(http, taught, clients)
        asked = time.monotonic()
        await _until(lambda: _gathered(operator, len(taught)), "samples are not all kept", every_seconds=0.25)
        gathered = time.monotonic()
        cycle = await _called(operator, "POST", "/v1/admin/evolution/run")
        name, made_at, seen = await _until(lambda: _spawned(operator), "no student is seen")
        over, student, answers = await _served(operator, http, cycle["id"], name, gathered)
        report = await _called(operator, "GET", f"/v1/admin/evolution/{cycle['id']}")
        told = await _asked(http, name, new, clients)
    if report["state"] != "done":
        raise StageError(f"the round did not end well: {report['steps']}")
    seen_seconds = round(max(0.0, seen - made_at), 3)
    return {
        "samples": len(taught),
        "taught_seconds": round(asked - began, 1),
        "gathered_seconds": round(gathered - asked, 1),
        "spawn_seen_seconds": seen_seconds,
        "round_seconds": over,
        "answers_after_seconds": answers,
        "student": {name: student[name] for name in ("samples", "labels", "held_out", "held_out_right")},
        "new": told,
        "load_average": round(os.getloadavg()[0], 1),
        "required_seconds": REQUIRED_SECONDS,
        "held": {
            "spawn_seen": seen_seconds < REQUIRED_SECONDS["spawn_seen"],
            "round": max(over, answers) <= REQUIRED_SECONDS["round"],
        },
    }


async def _taught(http: aiohttp.ClientSession, taught: Sequence[Question], clients: int) -> None:
    """Asks the teacher every question and says that its answer was right."""
    left = iter(taught)

    async def client() -> None:
        for one in left:
            _, task = await _answered(http, TEACHER, one.text)
            await _called(http, "POST", f"/v1/tasks/{task}/feedback", {"score": 1.0})

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())


async def _gathered(operator: aiohttp.ClientSession, count: int) -> bool | None:
    rows = (await _called(operator, "GET", f"/v1/admin/samples?tenant={TENANT}"))["data"]
    return any(row["domain"] == DOMAIN and row["verified"] >= count for row in rows) or None


async def _spawned(operator: aiohttp.ClientSession) -> tuple[str, float, float] | None:
    """Returns a student's name, when it was begun, and when that was seen."""
    rows = (await _called(operator, "GET", f"/v1/admin/students?tenant={TENANT}"))["data"]
    if not rows:
        return None
    return rows[0]["name"], datetime.fromisoformat(rows[0]["made_at"]).timestamp(), time.time()


async def _served(
    operator: aiohttp.ClientSession, http: aiohttp.ClientSession, cycle: str, name: str, began: float
) -> tuple[float, dict[str, Any], float]:
    """Waits for the round's end, for the student, and for an answer of it; returns when each was, in seconds."""

    async def is_over() -> float | None:
        report = await _called(operator, "GET", f"/v1/admin/evolution/{cycle}")
        return None if report["state"] == "running" else time.monotonic() - began

    async def serving() -> dict[str, Any] | None:
        shown = await _called(operator, "GET", f"/v1/admin/students/{name}")
        if shown["state"] == "failed":
            raise StageError(f"the student failed: {shown['reason']}")
        return shown if shown["state"] == "serving" else None

    async def answers() -> float | None:
        async with http.post("/v1/chat/completions", json=_body(name, "how to change a bicycle tyre?")) as response:
            told = await response.json()
            # One that is not sure of it answers as well.
            is_there = response.status == 200 or told["error"]["code"] == "head_unsure"
            return time.monotonic() - began if is_there else None

    over = await _until(is_over, "the round is not over")
    student = await _until(serving, "the student does not serve", every_seconds=0.1)
    return round(over, 1), student, round(await _until(answers, "the student does not answer"), 1)


async def _asked(http: aiohttp.ClientSession, name: str, new: Sequence[Question], clients: int) -> dict[str, Any]:
    """Asks the student what it was not taught; returns how often it was right, wrong, and not sure."""
    counts, took, left = {"right": 0, "wrong": 0, "unsure": 0}, list[float](), iter(new)

    async def client() -> None:
        for one in left:
            began = time.perf_counter()
            said, _ = await _answered(http, name, one.text)
            took.append((time.perf_counter() - began) * 1000)
            counts["unsure" if said is None else "right" if said == one.label else "wrong"] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(min(clients, 4)):
            group.create_task(client())
    return {"asked": len(new), **counts, "took": figures.spread(took)}


def _body(model: str, text: str) -> dict[str, Any]:
    about = {"cache": "off", "domain": DOMAIN}
    return {"model": model, "max_tokens": 32, "messages": [{"role": "user", "content": text}], "collegium": about}


async def _answered(http: aiohttp.ClientSession, model: str, text: str) -> tuple[str | None, str]:
    """Returns what a model says and the task's id; none where a head is not sure."""
    async with http.post("/v1/chat/completions", json=_body(model, text)) as response:
        told = await response.json()
        if response.status == 422 and told["error"]["code"] == "head_unsure":
            return None, ""
        if response.status != 200:
            raise StageError(f"a question was answered with {response.status}: {told}")
        return told["choices"][0]["message"]["content"], told["collegium"]["task_id"]


async def _called(http: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> Any:
    async with http.request(method, path, json=body) as response:
        if response.status >= 300:
            raise StageError(f"{method} {path} was answered with {response.status}: {await response.text()}")
        return await response.json()


async def _until(look: Callable[[], Awaitable[T | None]], otherwise: str, *, every_seconds: float = LOOK_SECONDS) -> T:
    deadline = time.monotonic() + WAIT_SECONDS
    while (found := await look()) is None:
        if time.monotonic() > deadline:
            raise StageError(f"{otherwise} after {WAIT_SECONDS:g} s")
        await asyncio.sleep(every_seconds)
    return found
