"""The verb ``demo``: the main job from nothing, on the embedded model, with everything it does shown.

One rule: every step really happens on a platform of its own, and the exit code is 0 only if all of them worked.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from collegium_cli import ask
from collegium_cli.client import Client, ClientError

STOP_SECONDS = 25
MAX_TOKENS = 60
USAGE_SECONDS = 10.0


class DemoError(Exception):
    """A step did not do what it promises."""


def run(data: Path | None, *, keep: bool) -> int:
    """Runs the demonstration; returns 0 only if every step worked."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        if data is None:
            folder = Path(tempfile.mkdtemp(prefix="collegium-demo-"))
            if not keep:
                stack.callback(_remove, folder)
        else:
            folder = data.resolve()
        try:
            _say(f"Starting a platform in {folder}: broker, database, embedded model, seven services")
            ready = stack.enter_context(_platform(folder))
            _note(f"ready in {ready['seconds']} s at {ready['http']}")
            _steps(ready, folder)
        except (ClientError, DemoError, OSError, subprocess.SubprocessError) as error:
            print(f"\ncollegium demo: {error}", file=sys.stderr)
            return 1
        _say("Stopping the platform")
    _note(f"all of it worked, in {time.monotonic() - began:.0f} s")
    return 0


def _steps(ready: dict[str, Any], folder: Path) -> None:
    operator = Client(ready["http"], Path(ready["admin_key_file"]).read_text().strip())
    _say("A tenant and its key")
    operator.call("POST", "/v1/admin/tenants", {"id": "demo", "tier": "pro"})
    made = operator.call("POST", "/v1/admin/keys", {"tenant": "demo", "name": "demo"})
    _note(f"tenant demo, key {made['id']}")
    client = Client(ready["http"], made["key"])
    _wait_for_key(client)

    _say("A question, streamed as it is answered")
    about = ask.stream(client, _body("Write one sentence about the sea."))
    _note(ask.describe(about))

    _say("A question, answered at once")
    _answered(client, _body("What is the capital of France?"))

    _say("A panel of three, settled by majority")
    body = _body("Is water wet? Answer yes or no.")
    body["collegium"] = {"plan": "panel", "panel_size": 3}
    panel = _answered(client, {**body, "temperature": 0, "max_tokens": 8})
    if panel["attempts"] != 3:
        raise DemoError(f"the panel had {panel['attempts']} attempts, not 3")

    _say("A conversation of two turns: the model is sent the first turn with the second")
    turn = {"collegium": {"conversation": "demo"}}
    first = client.call("POST", ask.CHAT_PATH, {**_body("My dog is called Bruno."), **turn})
    print(first["choices"][0]["message"]["content"])
    second = client.call("POST", ask.CHAT_PATH, {**_body("What is my dog called?"), **turn})
    print(second["choices"][0]["message"]["content"])
    tokens = [one["usage"]["prompt_tokens"] for one in (first, second)]
    if tokens[1] <= tokens[0]:
        raise DemoError(f"the second turn ({tokens[1]} tokens) did not carry the first ({tokens[0]})")
    _note(f"prompt of {tokens[0]} tokens, then of {tokens[1]}: the second carried the first")

    _say("A task for later, waited for")
    task = client.call(
        "POST",
        "/v1/tasks",
        {"input": "Name a colour.", "max_tokens": 20},
        {"Prefer": "wait=60"},
    )
    if task["state"] != "completed":
        raise DemoError(f"task {task['id']} is {task['state']}: {task['error']}")
    print(task["output"])
    _note(f"{task['id']} completed, {task['usage']['cost_usd']} USD")

    _say("What it cost, as billing booked it")
    _spend(client)

    _say("The journey of the panel's task")
    _show(folder, panel["task_id"])


def _body(question: str) -> dict[str, Any]:
    return {**ask.question(question), "max_tokens": MAX_TOKENS}


def _answered(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    print(f"> {body['messages'][0]['content']}")
    answer = client.call("POST", ask.CHAT_PATH, body)
    print(answer["choices"][0]["message"]["content"])
    about: dict[str, Any] = answer["collegium"]
    _note(ask.describe(about))
    return about


def _wait_for_key(client: Client) -> None:
    """Gateways learn a new key by watch, within a moment."""
    deadline = time.monotonic() + 5
    while True:
        try:
            client.call("GET", "/v1/models")
        except ClientError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _spend(client: Client) -> None:
    deadline = time.monotonic() + USAGE_SECONDS
    while True:
        report = client.call("GET", "/v1/usage?group_by=model,plan")
        # Streamed, plain, panel, two turns, and the task.
        if sum(row["requests"] for row in report["data"]) >= 6:
            break
        if time.monotonic() > deadline:
            raise DemoError(f"billing shows {report['totals']['requests']} requests, not 6")
        time.sleep(0.1)
    for row in report["data"]:
        tokens = f"{row['input_tokens']}+{row['output_tokens']} tokens"
        print(f"{row['model']}, {row['plan']}: {row['requests']} requests, {tokens}, {row['cost_usd']} USD")


def _show(folder: Path, task_id: str) -> None:
    command = [sys.executable, "-m", "collegium_cli", "task", "show", task_id, "--data", str(folder)]
    subprocess.run(command, check=True)  # noqa: S603 - our own module


@contextlib.contextmanager
def _platform(folder: Path) -> Generator[dict[str, Any]]:
    command = [sys.executable, "-m", "collegium_cli", "up", "--json", "--data", str(folder)]
    command += ["--http-port", "0", "--grpc-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own module
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise DemoError(f"the platform did not start; see {folder}/logs")
        yield json.loads(line)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _say(text: str) -> None:
    print(f"\n── {text}", flush=True)


def _note(text: str) -> None:
    print(f"   {text}", flush=True)
