"""Experiments and flags from the terminal. The admin API as lines or JSON."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from collegium_settings import Settings

from collegium_cli.client import Client, ClientError, connect
from collegium_cli.environment import runtime_of
from collegium_cli.printing import failed

_EXPERIMENTS, _FLAGS = "/v1/admin/experiments", "/v1/admin/flags"


def experiment(settings: Settings, options: argparse.Namespace) -> int:
    """Runs one action about experiments; returns the exit code."""
    return _run(settings, "experiment", lambda client: _experiment(client, options))


def flag(settings: Settings, options: argparse.Namespace) -> int:
    """Runs one action about flags; returns the exit code."""
    return _run(settings, "flag", lambda client: _flag(client, options))


def _run(settings: Settings, verb: str, act: Callable[[Client], int]) -> int:
    try:
        return act(connect(runtime_of(settings)))
    except (ClientError, OSError, UnicodeDecodeError) as error:
        return failed(f"collegium {verb}", error)


def _experiment(client: Client, options: argparse.Namespace) -> int:
    match options.action:
        case "ls":
            wanted = {"tenant": options.tenant, "state": options.state}
            rows = client.call("GET", _EXPERIMENTS + _query(wanted))["data"]
        case "create":
            body = _draft(options)
            if options.dry_run:
                return _print(body)
            rows = [client.call("POST", _EXPERIMENTS, body)]
        case "holdout":
            if options.share is None:
                raise ClientError("give --share")
            body = {"share": options.share, "tenant": options.tenant}
            return _print(body if options.dry_run else client.call("POST", f"{_EXPERIMENTS}/holdout", body))
        case _:
            if not options.what:
                raise ClientError("give the id of an experiment")
            rows = [_one(client, options, name) for name in options.what]
    if options.json:
        return _print(rows)
    for row in rows:
        _head(row)
        if options.action == "show":
            _look(row)
    return 0


def _one(client: Client, options: argparse.Namespace, name: str) -> Any:
    path = f"{_EXPERIMENTS}/{quote(name, safe='')}"
    if options.action == "show" or options.dry_run:
        return client.call("GET", path)
    body: dict[str, Any] = {"reason": options.reason}
    if options.action == "ramp":
        if options.share is None:
            raise ClientError("give --share")
        body["share"] = options.share
    elif options.action == "conclude":
        if options.winner is None:
            raise ClientError("give --winner")
        body |= {"winner": options.winner, "rollout": options.rollout}
    return client.call("POST", f"{path}/{options.action}", body)


def _flag(client: Client, options: argparse.Namespace) -> int:
    if options.action == "ls":
        found = client.call("GET", _FLAGS + _query({"tenant": options.tenant}))
        if options.json:
            return _print(found)
        for row in found["data"]:
            _flag_line(row)
        for tenant in found["killed"]:
            print(f"everything of {tenant or 'the operator, and so of everybody,'} is killed")
        for held in found["holdouts"]:
            print(f"{held['share']:.1%} of {held['tenant'] or 'everybody'} held out")
        return 0
    if options.action in ("set", "rm") and not options.names:
        raise ClientError("give the name of a flag")
    paths = [f"{_FLAGS}/{quote(name, safe='')}" for name in options.names] or [_FLAGS]
    for path in paths:
        if options.dry_run:
            print(f"would {options.action} {path.removeprefix('/v1/admin/')}")
            continue
        made = _switched(client, options, path)
        if options.json or path == _FLAGS:
            _print(made)
        else:
            _flag_line(made)
    return 0


def _switched(client: Client, options: argparse.Namespace, path: str) -> Any:
    match options.action:
        case "set":
            kind, change = _changed(options, "")
            return client.call("PUT", path, {"kind": kind, "change": change} | _surface(options))
        case "rm":
            return client.call("DELETE", path + _query({"tenant": options.tenant}))
        case _:
            body = {"tenant": options.tenant, "reason": options.reason}
            return client.call("POST", f"{path}/{options.action}", body)


def _draft(options: argparse.Namespace) -> dict[str, Any]:
    if len(options.what) != 1:
        raise ClientError("give the experiment a name")
    kind, candidate = _changed(options, "")
    _, control = _changed(options, "control_", may_be_none=True)
    rails = {name.removeprefix("guard_"): most for name, most in vars(options).items() if name.startswith("guard_")}
    body = {
        "name": options.what[0], "kind": kind, "candidate": candidate, "control": control,
        "interleave": options.interleave, "hypothesis": options.hypothesis, "level": options.level,
        "margin": options.margin, "auto_stop": options.auto_stop,
        "guardrails": {name: value for name, value in rails.items() if value is not None},
    }  # fmt: skip
    return body | _surface(options)


def _surface(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "tenant": options.tenant, "domain": options.domain, "model": options.on, "unit": options.unit,
        "share": 1.0 if options.share is None else options.share,
    }  # fmt: skip


def _changed(options: argparse.Namespace, prefix: str, *, may_be_none: bool = False) -> tuple[str, dict[str, Any]]:
    model, policy = getattr(options, f"{prefix}model"), getattr(options, f"{prefix}policy")
    prompt, label = getattr(options, f"{prefix}prompt"), getattr(options, f"{prefix}label")
    plan, members = getattr(options, f"{prefix}plan"), getattr(options, f"{prefix}members")
    kinds = (("model", model), ("policy", policy), ("prompt", prompt), ("plan", plan))
    given = [name for name, value in kinds if value]
    if len(given) != 1 and not (may_be_none and not given):
        raise ClientError("give one of --model, --policy, --prompt and --plan")
    told = prompt.read_text() if prompt is not None else None
    changed = {"model": model, "policy_version": policy, "instruction": told, "label": label}
    return "".join(given), changed | ({"plan": plan, "members": members} if plan else {})


def _head(row: dict[str, Any]) -> None:
    where = ", ".join(
        (row["tenant"] or "everybody", row["domain"] or "all domains", f"for {row['model']}", f"by {row['unit']}")
    )
    won = f", {row['winner']} won" if row["winner"] else ""
    print(f"{row['id']} {row['state']}{won}: {row['name']} ({row['kind']}; {where}; {row['share']:.0%} of units)")


def _look(row: dict[str, Any]) -> None:
    for name in ("control", "candidate"):
        arm = row[name]
        told = f"{arm['instruction_bytes']} bytes of instruction" if arm["instruction_bytes"] else ""
        policy = f"policy {arm['policy_version']}" if arm["policy_version"] else ""
        plan = _plan(arm)
        print(f"  {name:<10} {arm['model'] or policy or told or plan or 'as it is'} {arm['label']}".rstrip())
    if row["look"] is not None:
        _figures(row["look"])
    for change in row["changes"]:
        print(f"  {change['at']} {change['by']}: {change['what']} {change['reason']}".rstrip())


def _plan(change: dict[str, Any]) -> str:
    if not change["plan"]:
        return ""
    return f"plan {change['plan']}" + (f" of {change['members']}" if change["members"] else "")


def _figures(look: dict[str, Any]) -> None:
    print(f"  {look['verdict']}" + (" (units are split unevenly: nothing is proven)" if look["is_mismatched"] else ""))
    for arm in look["arms"]:
        quality = "–" if arm["quality"] is None else f"{arm['quality']:.3f}"
        print(
            f"  {arm['arm']:<10} {arm['units']:>7} units {arm['judged']:>7} judged  quality {quality}"
            f"  errors {arm['errors'] or 0:.2%}  refusals {arm['refusals'] or 0:.2%}"
            f"  p95 {arm['p95_ms'] or 0:.0f} ms  ${arm['cost_usd_mean'] or '0'}"
        )
    for one in look["effects"]:
        breached = "  BREACHED" if one["breached"] else "  rests on one tenant" if one["rests_on_one"] else ""
        print(
            f"  {one['metric']:<10} {one['value']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})"
            f"  {one['odds']:.3g} of {one['needed']:.3g} to 1 for worse than {one['guardrail']:g}{breached}"
        )
    if look["interleaved"]:
        both = look["interleaved"]
        print(
            f"  asked of both: {both['asked']}, alike {both['same']}, right where not: candidate"
            f" {both['candidate_won']}, control {both['control_won']} ({both['odds']:.3g} to 1)"
        )


def _flag_line(row: dict[str, Any]) -> None:
    state = "killed" if row["killed"] else f"{row['share']:.0%}"
    change = row["change"]
    policy = f"policy {change['policy_version']}" if change["policy_version"] else ""
    what = change["model"] or policy or _plan(change) or "instruction"
    print(f"{row['name']:<24} {row['tenant'] or 'everybody':<16} {state:<7} {row['kind']} {what} {change['label']}")


def _query(wanted: dict[str, Any]) -> str:
    given = {name: value for name, value in wanted.items() if value}
    return f"?{urlencode(given)}" if given else ""


def _print(value: Any) -> int:
    print(msgspec.json.encode(value).decode())
    return 0
