"""The verb ``ask``: one question, answered plain or as it comes."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import msgspec
from collegium_settings import Settings

from collegium_cli.client import Client, ClientError, connect
from collegium_cli.environment import runtime_of
from collegium_cli.printing import failed

CHAT_PATH = "/v1/chat/completions"


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Asks and prints the answer; returns the exit code."""
    try:
        client = connect(runtime_of(settings))
        body = question(options.question, model=options.model, plan=options.plan)
        if options.max_tokens is not None:
            body["max_tokens"] = options.max_tokens
        if options.quality_min is not None:
            body["collegium"]["quality_min"] = options.quality_min
        if options.conversation is not None:
            body["collegium"]["conversation"] = options.conversation
        if options.memory is not None:
            body["collegium"]["memory"] = options.memory
        if options.stream:
            about = stream(client, body, as_json=options.json)
            if options.json:
                return 0
        else:
            answer = client.call("POST", CHAT_PATH, body)
            if options.json:
                print(msgspec.json.encode(answer).decode())
                return 0
            print(answer["choices"][0]["message"]["content"])
            about = answer["collegium"]
    except ClientError as error:
        return failed("collegium ask", error)
    print(describe(about), file=sys.stderr)
    return 0


def question(text: str, *, model: str = "auto", plan: str = "auto") -> dict[str, Any]:
    """Returns the body of a question."""
    return {"model": model, "messages": [{"role": "user", "content": text}], "collegium": {"plan": plan}}


def stream(client: Client, body: dict[str, Any], *, as_json: bool = False) -> dict[str, Any]:
    """Asks with streaming, prints the text (or the chunks, a line each) as it comes; returns what is said about it.

    Raises ClientError where the stream tells of an error, or breaks before its end.
    """
    about: dict[str, Any] = {}
    for event in client.events("POST", CHAT_PATH, {**body, "stream": True, "stream_options": {"include_usage": True}}):
        if event.data == "[DONE]":
            break
        if as_json:
            print(event.data, flush=True)
        chunk = msgspec.json.decode(event.data)
        if "error" in chunk:
            error = chunk["error"]
            raise ClientError(f"{error['code']}: {error['message']}", str(error["code"]), error)
        about = chunk.get("collegium", about)
        for choice in chunk["choices"]:
            if not as_json:
                print(choice["delta"].get("content") or "", end="", flush=True)
    else:
        raise ClientError("the stream broke before its end")
    if not as_json:
        print()
    if not about:
        raise ClientError("the stream ended without saying who answered")
    return about


def describe(about: dict[str, Any]) -> str:
    """Returns one line on who answered, how, and what it cost."""
    sure = f", confidence {about['confidence']:.0%}" if about.get("confidence") is not None else ""
    return (
        f"[{about['model']} ({about['rank']}), plan {about['plan']}, {about['attempts']} attempt(s){sure},"
        f" {about['cost_usd']} USD, {about['stop_reason']}, {about['task_id']}]"
    )
