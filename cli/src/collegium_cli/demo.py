"""The verb ``demo``: the main job from nothing, on the embedded model, with everything it does shown.

One rule: every step really happens on a platform of its own, and the exit code is 0 only if all of them worked.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import Any

from collegium_cli.client import Client, ClientError
from collegium_cli.tasks import ask

TENANT = "demo"
STOP_SECONDS = 25
MAX_TOKENS = 60
USAGE_SECONDS = 60.0
KEY_SECONDS = 30.0
# A busy machine answers by its processor too, in its time.
DEADLINE_SECONDS = 110


class DemoError(Exception):
    """A step did not do what it promises."""


def run(data: Path | None, *, keep: bool, as_json: bool = False) -> int:
    """Runs the demonstration; returns 0 only if every step worked.

    With ``as_json`` the progress goes to standard error, and what the steps gave to standard output, as one object.
    """
    # A demonstration that is ended ends its platform too.
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    if not as_json:
        return 0 if _run(data, keep=keep) is not None else 1
    with contextlib.redirect_stdout(sys.stderr):
        results = _run(data, keep=keep)
    print(json.dumps({"ok": results is not None, **(results or {})}))
    return 0 if results is not None else 1


def _run(data: Path | None, *, keep: bool) -> dict[str, Any] | None:
    """Returns what the steps gave; none where one did not work."""
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
            results = _steps(ready, folder)
        except (ClientError, DemoError, OSError, subprocess.SubprocessError) as error:
            print(f"\ncollegium demo: {error}", file=sys.stderr)
            return None
        _say("Stopping the platform")
    _note(f"all of it worked, in {time.monotonic() - began:.0f} s")
    return {**results, "ready_seconds": ready["seconds"], "seconds": round(time.monotonic() - began, 1)}


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _steps(ready: dict[str, Any], folder: Path) -> dict[str, Any]:
    operator = Client(ready["http"], Path(ready["admin_key_file"]).read_text().strip())
    _say("A tenant and its key")
    _make_tenant(operator)
    made = operator.call("POST", "/v1/admin/keys", {"tenant": TENANT, "name": "demo"})
    _note(f"tenant {TENANT}, key {made['id']}")
    client = Client(ready["http"], made["key"])
    _wait_for_key(client)
    before = _requests(client)

    _say("A question, streamed as it is answered")
    body = _body("Write one sentence about the sea.")
    print(f"> {body['messages'][0]['content']}")
    streamed = ask.stream(client, body)
    _note(ask.describe(streamed))

    _say("A question, answered at once")
    answered = _answered(client, _body("What is the capital of France?"))

    _say("A panel of three, settled as soon as two agree")
    body = _body("Is water wet? Answer yes or no.", plan="panel", panel_size=3)
    panel = _answered(client, {**body, "temperature": 0, "max_tokens": 8})
    if panel["attempts"] not in (2, 3):
        raise DemoError(f"the panel had {panel['attempts']} attempts, not 2 or 3")

    _say("A cascade: the weakest rank is asked twice, a stronger one only where there is one and the answers differ")
    body = _body("Is the sun a star? Answer yes or no.", plan="cascade")
    cascade = _answered(client, {**body, "max_tokens": 8})
    if cascade["plan"] != "cascade" or cascade["confidence"] is None:
        raise DemoError(f"the cascade was settled as {cascade['plan']} with a confidence of {cascade['confidence']}")

    _say("A conversation of two turns: the model is sent the first turn with the second")
    prompt_tokens = _conversation(client)

    _say("A task for later, waited for")
    task = _task(client)

    _say("What it cost, as billing booked it")
    # Streamed, plain, panel, cascade, two turns, and the task.
    usage = _spend(client, before + 7)

    _say("The journey of the panel's task")
    _show(folder, panel["task_id"])
    results = {"streamed": streamed, "answered": answered, "panel": panel, "cascade": cascade, "usage": usage}
    return {**results, "conversation_prompt_tokens": prompt_tokens, "task": {"id": task["id"], "state": task["state"]}}


def _make_tenant(operator: Client) -> None:
    try:
        operator.call("POST", "/v1/admin/tenants", {"id": TENANT, "tier": "pro"})
    except ClientError as error:
        if error.code != "already_exists":  # from an earlier demonstration on the same folder
            raise


def _conversation(client: Client) -> list[int]:
    """Holds a conversation of two turns; returns the tokens of their prompts."""
    conversation = f"demo-{secrets.token_hex(4)}"
    tokens: list[int] = []
    for text in ("My dog is called Bruno.", "What is my dog called?"):
        print(f"> {text}")
        answer = client.call("POST", ask.CHAT_PATH, _body(text, conversation=conversation))
        print(answer["choices"][0]["message"]["content"])
        _note(ask.describe(answer["collegium"]))
        tokens.append(answer["usage"]["prompt_tokens"])
    if tokens[1] <= tokens[0]:
        raise DemoError(f"the second turn ({tokens[1]} tokens) did not carry the first ({tokens[0]})")
    _note(f"prompt of {tokens[0]} tokens, then of {tokens[1]}: the second carried the first")
    return tokens


def _task(client: Client) -> dict[str, Any]:
    body = {"input": "Name a colour.", "max_tokens": 20, "deadline_seconds": DEADLINE_SECONDS}
    print(f"> {body['input']}")
    task: dict[str, Any] = client.call("POST", "/v1/tasks", body, {"Prefer": "wait=60"})
    if task["state"] != "completed":
        raise DemoError(f"task {task['id']} is {task['state']}: {task['error']}")
    print(task["output"])
    _note(f"{task['id']} completed, by {task['collegium']['model']}, {task['collegium']['cost_usd']} USD")
    return task


def _body(question: str, **options: Any) -> dict[str, Any]:
    body = ask.question(question)
    body["collegium"] |= {"deadline_seconds": DEADLINE_SECONDS, **options}
    return {**body, "max_tokens": MAX_TOKENS}


def _answered(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    print(f"> {body['messages'][0]['content']}")
    answer = client.call("POST", ask.CHAT_PATH, body)
    print(answer["choices"][0]["message"]["content"])
    about: dict[str, Any] = answer["collegium"]
    _note(ask.describe(about))
    return about


def _wait_for_key(client: Client) -> None:
    """Gateways learn a new key by watch, within a moment."""
    deadline = time.monotonic() + KEY_SECONDS
    while True:
        try:
            client.call("GET", "/v1/models")
        except ClientError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _requests(client: Client) -> int:
    requests: int = client.call("GET", "/v1/usage")["totals"]["requests"]
    return requests


def _spend(client: Client, expected: int) -> dict[str, Any]:
    """Waits until billing shows all that was asked, prints it, and returns the sums."""
    deadline = time.monotonic() + USAGE_SECONDS
    while True:
        report = client.call("GET", "/v1/usage?group_by=model,plan")
        if report["totals"]["requests"] >= expected:
            break
        if time.monotonic() > deadline:
            raise DemoError(f"billing shows {report['totals']['requests']} requests, not {expected}")
        time.sleep(0.1)
    for row in report["data"]:
        tokens = f"{row['input_tokens']}+{row['output_tokens']} tokens"
        print(f"{row['model']}, {row['plan']}: {row['requests']} requests, {tokens}, {row['cost_usd']} USD")
    totals: dict[str, Any] = report["totals"]
    return totals


def _show(folder: Path, task_id: str) -> None:
    command = [sys.executable, "-m", "collegium_cli", "task", "show", task_id, "--data", str(folder)]
    subprocess.run(command, check=True, stdout=sys.stdout)  # noqa: S603 - our own module


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
