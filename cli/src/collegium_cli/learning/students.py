"""Students and training data from the terminal. The admin API as lines or JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import msgspec
from collegium_settings import Settings

from collegium_cli.client import Client, ClientError, connect
from collegium_cli.environment import runtime_of
from collegium_cli.printing import failed

_STUDENTS = "/v1/admin/students"


def student(settings: Settings, options: argparse.Namespace) -> int:
    """Lists, shows, makes and retires students."""
    return _run(settings, "student", lambda client: _student(client, options))


def distill(settings: Settings, options: argparse.Namespace) -> int:
    """Counts samples, or writes them for fine-tuning."""
    return _run(settings, "distill", lambda client: _distill(client, options))


def _student(client: Client, options: argparse.Namespace) -> int:
    if options.action == "ls":
        rows = client.call("GET", _STUDENTS + _query(options.tenant))["data"]
    elif options.action == "make":
        body = {"domain": options.domain, "tenant": options.tenant, "kind": options.kind, "base": options.base}
        if options.dry_run:
            rows = client.call("GET", "/v1/admin/samples" + _query(options.tenant))["data"]
            return _show([row for row in rows if row["domain"] == options.domain], options, _samples_line)
        rows = [client.call("POST", _STUDENTS, body)]
    elif options.action == "register":
        body = _registration(options)
        if options.dry_run:
            print(msgspec.json.encode(body).decode())
            return 0
        rows = [client.call("POST", f"{_STUDENTS}/register", body)]
    else:
        if not options.name:
            raise ClientError("give the name of a student")
        paths = [f"{_STUDENTS}/{quote(name, safe='')}" for name in options.name]
        if options.action == "show" or options.dry_run:
            rows = [client.call("GET", path) for path in paths]
        else:
            rows = [client.call("POST", f"{path}/retire") for path in paths]
    return _show(rows, options, _student_line)


def _registration(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what is said of a fine-tuned model; raises ClientError."""
    if len(options.name) != 1 or not options.from_export or not options.base_url:
        raise ClientError("give one name, the export it was made of (--from-export) and where it is (--base-url)")
    model: dict[str, Any] = {"name": options.name[0], "base_url": options.base_url}
    model |= {field: said for field, said in (("upstream_model", options.model), ("key", options.key)) if said}
    price = {"input_usd_per_mtok": options.input, "output_usd_per_mtok": options.output}
    if any(price.values()):
        model["price"] = {name: usd for name, usd in price.items() if usd}
    return {"export": options.from_export, "tenant": options.tenant, "model": model, "force": options.force}


def _distill(client: Client, options: argparse.Namespace) -> int:
    if options.action == "ls":
        return _show(client.call("GET", "/v1/admin/samples" + _query(options.tenant))["data"], options, _samples_line)
    items = options.evaluation.read_text().splitlines() if options.evaluation is not None else []
    body = {
        "domain": options.domain, "shape": options.shape, "max_rows": options.max_rows, "tenant": options.tenant,
        "format": options.format, "temperature": options.temperature, "evaluation": [one for one in items if one],
        "callback_url": options.callback_url,
    }  # fmt: skip
    made = client.call("POST", "/v1/admin/distill", body)
    lines = b"".join(client.download(f"/v1/admin/distill/{quote(made['id'], safe='')}" + _query(options.tenant)))
    if options.manifest is not None:
        options.manifest.write_bytes(msgspec.json.format(msgspec.json.encode(made["manifest"])) + b"\n")
    if options.out is None:
        sys.stdout.buffer.write(lines)
        return 0
    options.out.write_bytes(lines)
    if options.json:
        print(msgspec.json.encode({**made, "file": str(options.out)}).decode())
    else:
        left = ", ".join(f"{count} {reason}" for reason, count in sorted(made["left_out"].items())) or "none"
        print(f"{made['export']}: {made['rows']} rows in {options.out}; {made['held_out']} held out; left out: {left}")
    return 0


def _show(rows: list[dict[str, Any]], options: argparse.Namespace, line: Any) -> int:
    if options.json:
        print(msgspec.json.encode(rows).decode())
    else:
        for row in rows:
            print(line(row))
    return 0


def _student_line(row: dict[str, Any]) -> str:
    right = f"{row['held_out_right']} of {row['held_out']} held out right" if row["held_out"] else "nothing held out"
    made = (
        f"{row['exemplars']} examples for {row['base']}"
        if row["kind"] == "prompt"
        else f"{row['labels']} labels, {right}"
    )
    if row["kind"] == "endpoint":
        asked = f"{row['held_out_asked']} held out compared, {row['held_out_right']} as the teacher"
        return _line(row, f"{row['samples']} samples, {asked}, {row['reason'] or 'made'}")
    about = row["reason"] or f"{row['samples']} samples, {made}"
    return _line(row, about)


def _line(row: dict[str, Any], about: str) -> str:
    return f"{row['name']}  {row['kind']}  {row['state']}  {row['tenant']}/{row['domain']}  {about}"


def _samples_line(row: dict[str, Any]) -> str:
    domain = row["domain"] or "(none)"
    return f"{domain}: {row['samples']} samples, {row['verified']} verified, {row['held_out']} of them held out"


def _query(tenant: str | None) -> str:
    return f"?tenant={quote(tenant, safe='')}" if tenant else ""


def _run(settings: Settings, verb: str, act: Callable[[Client], int]) -> int:
    try:
        return act(connect(runtime_of(settings)))
    except (ClientError, OSError) as error:
        return failed(f"collegium {verb}", error)
