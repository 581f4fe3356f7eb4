"""Options of the verbs ``experiment`` and ``flag``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from collegium_cli.environment import settings_of

Add = Callable[[Any, str, str, Callable[[argparse.Namespace], int]], argparse.ArgumentParser]
RAILS = ("quality", "errors", "refusals", "slow", "cost")


def add_experiments(verbs: Any, add: Add) -> None:
    """Adds the verbs about experiments and flags."""
    one = add(verbs, "experiment", "Drafts, starts, looks at, ramps, stops and concludes experiments.", _experiment)
    actions = ["ls", "show", "create", "start", "ramp", "stop", "conclude", "holdout"]
    one.add_argument("action", choices=actions)
    one.add_argument("what", nargs="*", metavar="NAME | ID", help="a name for create, else ids of experiments")
    one.add_argument("--state", default="", help="for ls: draft, running, stopped, rolled_back or concluded")
    _surface(one)
    _change(one, "", "the candidate")
    _change(one, "control-", "the control (default: as it is now)")
    one.add_argument("--interleave", type=float, default=0.0, help="for create: the share that both arms answer")
    one.add_argument("--hypothesis", default="")
    one.add_argument("--level", type=float, default=0.05, help="for create: the chance to be wrong, over all looks")
    one.add_argument("--margin", type=float, default=0.02, help="for create: what as good allows")
    for name in RAILS:
        one.add_argument(f"--guard-{name}", type=float, help=f"for create: how much worse {name} may surely be")
    one.add_argument("--auto-stop", action="store_true", help="for create: conclude as soon as it is decided")
    one.add_argument("--winner", choices=["control", "candidate"], help="for conclude")
    one.add_argument("--rollout", action="store_true", help="for conclude: give everybody the winning candidate's")
    one.add_argument("--reason", default="")
    one.add_argument("--dry-run", action="store_true")
    flag = add(verbs, "flag", "Lists, sets and removes flags; switches them, or everything, off and on.", _flag)
    flag.add_argument("action", choices=["ls", "set", "kill", "revive", "rm"])
    flag.add_argument("names", nargs="*", metavar="NAME", help="kill and revive take all without one")
    _surface(flag)
    _change(flag, "", "the flag's change")
    flag.add_argument("--reason", default="")
    flag.add_argument("--dry-run", action="store_true")


def _surface(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--tenant", help="whose (default: the key's own; of an operator's key: everybody's)")
    verb.add_argument("--domain", help="of one domain (default: of all)")
    verb.add_argument("--on", default="auto", metavar="MODEL", help="requests for this model (default: auto)")
    verb.add_argument("--unit", choices=["conversation", "user", "task"], default="conversation")
    verb.add_argument("--share", type=float, help="the share of units that take part (default: all)")


def _change(verb: argparse.ArgumentParser, prefix: str, whose: str) -> None:
    verb.add_argument(f"--{prefix}model", default="", help=f"{whose}: who is asked first")
    verb.add_argument(f"--{prefix}policy", type=int, default=0, help=f"{whose}: the version of the tenant's policy")
    verb.add_argument(f"--{prefix}prompt", type=Path, help=f"{whose}: a file with what is told first")
    plans = ["single", "panel", "cascade"]
    verb.add_argument(
        f"--{prefix}plan", choices=plans, default="", help=f"{whose}: the plan of requests that name none"
    )
    verb.add_argument(f"--{prefix}members", type=int, default=3, help=f"{whose}: how many a panel has at most")
    verb.add_argument(f"--{prefix}label", default="", help=f"{whose}: how the version is called")


def _experiment(options: argparse.Namespace) -> int:
    from collegium_cli.learning.experiments import experiment

    return experiment(settings_of(options.config, options.data), options)


def _flag(options: argparse.Namespace) -> int:
    from collegium_cli.learning.experiments import flag

    return flag(settings_of(options.config, options.data), options)
