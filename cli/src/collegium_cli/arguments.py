"""The command line: verbs, their options, and which function runs them.

One rule: nothing heavy is imported here; each verb imports its own module when it runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from collegium_cli.bench.arguments import add_benchmarks
from collegium_cli.environment import settings_of
from collegium_cli.eval.arguments import add_evaluations
from collegium_cli.knowledge.document_arguments import add_documents
from collegium_cli.knowledge.memory_arguments import add_context, add_conversation, add_memory
from collegium_cli.learning.evolution_arguments import ACTIONS, add_evolution, add_ranks
from collegium_cli.learning.experiment_arguments import add_experiments
from collegium_cli.learning.roster_arguments import ACTIONS as ROSTER_ACTIONS
from collegium_cli.learning.roster_arguments import add_roster
from collegium_cli.learning.student_arguments import add_students
from collegium_cli.money.arguments import add_billing, add_prices
from collegium_cli.printing import failing_alike
from collegium_cli.rules.approval_arguments import add_approvals, add_input
from collegium_cli.rules.gate_arguments import add_gates
from collegium_cli.tenants.arguments import add_identity

Verb = Callable[[argparse.Namespace], int]


_SNAPSHOT_ACTIONS = ("snapshot", "snapshots", "forget-snapshot", "restore")
_GENERATION_ACTIONS = ("reindex", "switch", "rollback", "discard")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all verbs; the parsed options carry the verb as ``run``."""
    about = "An LLM work platform for teams that serve many tenants."
    root = argparse.ArgumentParser(prog="collegium", description=about)
    verbs = root.add_subparsers(title="verbs", metavar="VERB", required=True)
    _platform(verbs)
    _asking(verbs)
    _operating(verbs)
    return root


def _add(verbs: argparse._SubParsersAction, name: str, about: str, run: Verb) -> argparse.ArgumentParser:  # pyright: ignore[reportPrivateUsage, reportMissingTypeArgument, reportUnknownParameterType]
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=about, description=about)
    verb.add_argument("--config", type=Path, help="configuration file (YAML)")
    verb.add_argument("--data", type=Path, help="data folder (default: data_dir of the configuration)")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(run=failing_alike(run))
    return verb


def _platform(verbs: argparse._SubParsersAction) -> None:  # pyright: ignore[reportPrivateUsage, reportMissingTypeArgument, reportUnknownParameterType]
    up = _add(verbs, "up", "Starts a whole platform on this machine and keeps it running.", _up)
    up.add_argument("--http-port", type=_port)
    up.add_argument("--grpc-port", type=_port)
    up.add_argument("--only", type=_names, help="services to run, by comma")
    demo = _add(verbs, "demo", "Shows the journey on the embedded model, from nothing.", _demo)
    demo.add_argument("--keep", action="store_true", help="keep the data folder")
    serve = _add(verbs, "serve", "Runs one service against given URLs or a running `up`.", _serve)
    serve.add_argument("services", type=_names, metavar="SERVICE")
    serve.add_argument("--http-port", type=_port, help="where a gateway listens; 0 takes a free port")
    serve.add_argument("--grpc-port", type=_port)
    serve.add_argument("--admin-port", action="append", default=[], type=_admin_port, metavar="[SERVICE=]PORT")
    serve.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    serve.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    migrate = _add(verbs, "migrate", "Applies stream declarations and database migrations.", _migrate)
    migrate.add_argument("--dry-run", action="store_true")
    migrate.add_argument(
        "--replicas", type=int, choices=[1, 3, 5], default=1, help="copies of each stream in a cluster; never lowered"
    )
    migrate.add_argument("--wait", action="store_true", help=argparse.SUPPRESS)
    migrate.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    _add(verbs, "check", "Validates the configuration and reaches every dependency.", _check)
    add_benchmarks(verbs, _add)
    add_evaluations(verbs, _add)


def _asking(verbs: argparse._SubParsersAction) -> None:  # pyright: ignore[reportPrivateUsage, reportMissingTypeArgument, reportUnknownParameterType]
    ask = _add(verbs, "ask", "Asks one question.", _ask)
    ask.add_argument("question")
    ask.add_argument("--model", default="auto")
    ask.add_argument("--plan", default="auto", help="single, cascade or panel (default: auto)")
    ask.add_argument("--quality-min", type=float, metavar="SHARE", help="how confident a cascade has to be, 0 to 1")
    ask.add_argument("--conversation")
    ask.add_argument("--memory", metavar="PATH", help="tell the model what memory holds there (off: keep nothing)")
    ask.add_argument("--max-tokens", type=int)
    ask.add_argument("--stream", action="store_true")
    task = _add(verbs, "task", "Lists, shows, follows, cancels, retries, answers and judges tasks.", _task)
    task.add_argument("action", choices=["ls", "show", "tail", "cancel", "retry", "feedback", "input"])
    task.add_argument("id", nargs="*", help="task ids")
    task.add_argument("--state")
    task.add_argument("--limit", type=int, default=20)
    task.add_argument("--dry-run", action="store_true")
    task.add_argument("--score", type=float, help="feedback: from 0 (wrong) to 1 (right)")
    task.add_argument("--source", choices=["client", "outcome"], default="client", help="feedback: who says so")
    task.add_argument("--comment", default="", help="feedback, input: why")
    add_input(task)
    task.add_argument("--tenant", help="tenant of the task, where the ladder is read by an operator")
    add_memory(_add(verbs, "memory", "Remembers, recalls, corrects and forgets; says who reads what.", _memory))
    add_context(_add(verbs, "context", "Shows, stores and removes contexts that agents share by id.", _context))
    add_conversation(_add(verbs, "conversation", "Lists, shows and removes conversations.", _conversation))
    schedule = _add(verbs, "schedule", "Makes, lists, shows, pauses, resumes and removes cron schedules.", _schedule)
    schedule.add_argument("action", choices=["create", "ls", "show", "pause", "resume", "rm"])
    schedule.add_argument("what", nargs="*", metavar="CRON QUESTION | ID", help="for create, else ids of schedules")
    schedule.add_argument("--name", default="")
    schedule.add_argument("--timezone", default="UTC")
    schedule.add_argument(
        "--missed", choices=["skip", "once", "all"], default="skip", help="firings nobody was there for"
    )
    schedule.add_argument("--model", default="auto")
    schedule.add_argument("--plan", default="auto")
    schedule.add_argument("--max-tokens", type=int)
    schedule.add_argument("--deadline-seconds", type=float)
    schedule.add_argument("--dry-run", action="store_true")
    add_documents(_add(verbs, "doc", "Adds, lists, removes and searches documents.", _documents))


def _documents(options: argparse.Namespace) -> int:
    from collegium_cli.knowledge.documents import run

    return run(settings_of(options.config, options.data), options)


def _operating(verbs: argparse._SubParsersAction) -> None:  # pyright: ignore[reportPrivateUsage, reportMissingTypeArgument, reportUnknownParameterType]
    add_gates(_add(verbs, "gate", "Lists rules, tries them on a text, gives them to a tenant, reports.", _gates))
    add_students(verbs, _add)
    add_experiments(verbs, _add)
    add_approvals(_add(verbs, "approval", "Lists, takes, returns and answers questions to people.", _approvals))
    tap = _add(verbs, "tap", "Shows decoded messages as they pass.", _tap)
    tap.add_argument("subject")
    tap.add_argument("--tenant")
    tap.add_argument("--task")
    tap.add_argument("--since", help="also what passed since then, for instance 5m")
    tap.add_argument("--raw", action="store_true", help="print the bytes as they came (contents masked)")
    tap.add_argument("--content", action="store_true", help="show prompts and answers")
    vectors = _add(verbs, "vectors", "The vector store: how it stands, its snapshots and generations.", _vectors)
    vectors.add_argument("action", choices=("status", "index", *_SNAPSHOT_ACTIONS, *_GENERATION_ACTIONS))
    vectors.add_argument("collection", nargs="?", default="")
    vectors.add_argument("name", nargs="?", default="", help="a snapshot, or a generation")
    vectors.add_argument("--quantized", action=argparse.BooleanOptionalAction, help="for reindex")
    dlq = _add(verbs, "dlq", "Lists, shows, requeues and discards dead letters.", _dlq)
    dlq.add_argument("action", choices=["ls", "show", "requeue", "discard"])
    dlq.add_argument("id", nargs="*", type=int, help="ids of letters")
    dlq.add_argument("--all", action="store_true", help="requeue or discard all that fit the filter")
    dlq.add_argument("--service", help="letters of one service")
    dlq.add_argument("--tenant", help="letters of one tenant (empty: of no known tenant)")
    dlq.add_argument("--cause", help="for instance undecodable_message or task_failed")
    dlq.add_argument("--task", help="letters of one task")
    dlq.add_argument("--since", help="letters since a time in RFC 3339")
    dlq.add_argument("--limit", type=int, default=100)
    dlq.add_argument("--dry-run", action="store_true")
    _audit_verb(verbs)
    model = _add(verbs, "model", "Shows, adds and removes models; sets prices and ranks; drains.", _model)
    model.add_argument("action", choices=["ls", "price", "prices", "withdraw", *ACTIONS, *ROSTER_ACTIONS])
    add_prices(model)
    add_ranks(model)
    add_roster(model)
    add_evolution(verbs, _add)
    calibration = _add(verbs, "calibration", "Shows what was learned about confidence.", _calibrated)
    calibration.add_argument("--tenant", default="", help="what a tenant has of its own (default: of all together)")
    add_billing(_add(verbs, "billing", "Checks the ledger, corrects it, compares it with a provider.", _billing))
    add_identity(verbs, _add)
    encryption = _add(verbs, "encryption", "Shows or exchanges what data keys are wrapped under.", _encryption)
    encryption.add_argument("action", choices=["show", "rewrap"])
    encryption.add_argument("--dry-run", action="store_true")
    spend = _add(verbs, "spend", "Reports usage and cost.", _spend)
    spend.add_argument("--group-by", default="tenant,model")
    spend.add_argument("--from", dest="since")
    spend.add_argument("--to", dest="until")
    spend.add_argument("--csv", type=Path, help="write a CSV file instead")
    _reports(verbs)


def _reports(verbs: argparse._SubParsersAction) -> None:  # pyright: ignore[reportPrivateUsage, reportMissingTypeArgument, reportUnknownParameterType]
    log = _add(verbs, "requests", "Lists and exports settled requests, without their content.", _requests)
    log.add_argument("action", choices=["ls", "export"])
    log.add_argument("--from", dest="since", help="a time in RFC 3339 or a date (default: 30 days ago)")
    log.add_argument("--to", dest="until")
    log.add_argument("--tenant", help="of this tenant, for operators (default: the key's own)")
    log.add_argument("--state", choices=["completed", "failed", "canceled"])
    log.add_argument("--model")
    log.add_argument("--key", help="public id of a key")
    log.add_argument("--limit", type=int, default=20)
    log.add_argument("--csv", type=Path, help="export to a CSV file")
    log.add_argument("--parquet", type=Path, help="export to a Parquet file")
    invoice = _add(verbs, "invoice", "Makes, lists and shows invoices.", _invoice)
    invoice.add_argument("action", choices=["create", "ls", "show"])
    invoice.add_argument("id", nargs="?")
    invoice.add_argument("--tenant")
    invoice.add_argument("--month", help="a month of UTC that is over, for instance 2026-01")
    invoice.add_argument("--html", type=Path, help="for show: write the invoice as an HTML page")


def _approvals(options: argparse.Namespace) -> int:
    from collegium_cli.rules.approvals import run

    return run(options)


def _gates(options: argparse.Namespace) -> int:
    from collegium_cli.rules.gates import run

    return run(options)


def _calibrated(options: argparse.Namespace) -> int:
    from collegium_cli.learning.calibration import run

    return run(options)


def _audit_verb(verbs: argparse._SubParsersAction) -> None:  # pyright: ignore[reportPrivateUsage, reportMissingTypeArgument, reportUnknownParameterType]
    audit = _add(verbs, "audit", "Lists, checks and exports the audit trail.", _audit)
    audit.add_argument("action", choices=["ls", "verify", "export", "key"])
    audit.add_argument("--tenant", help="one tenant's chain (_platform: the platform's own)")
    audit.add_argument("--action", dest="kind", default="", help="records of one action, or of all under it: keys")
    audit.add_argument("--actor", default="", help="records of one key or subject")
    audit.add_argument("--outcome", choices=["begun", "done", "refused", "failed"])
    audit.add_argument("--from", dest="since", help="RFC 3339 or a date")
    audit.add_argument("--to", dest="until")
    audit.add_argument("--limit", type=int, default=50)
    audit.add_argument("--format", choices=["jsonl", "csv"], default="jsonl", help="of an export")
    audit.add_argument("--out", type=Path, help="where an export is written; default: standard output")
    audit.add_argument("--file", type=Path, help="check an exported file by itself, without a platform")
    audit.add_argument(
        "--public-key", action="append", default=[], help="a key that signatures must be of; `audit key` shows it"
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _admin_port(text: str) -> tuple[str, int]:
    service, _, port = text.rpartition("=")
    return service, _port(port)


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text) < 65_536:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port: a number from 0 (a free one) to 65535")


def _port_overrides(options: argparse.Namespace) -> dict[str, str]:
    """Ports of the command line, as the environment would have them."""
    given = {"COLLEGIUM_HTTP__PORT": options.http_port, "COLLEGIUM_GRPC__PORT": options.grpc_port}
    return {name: str(port) for name, port in given.items() if port is not None}


def _up(options: argparse.Namespace) -> int:
    from collegium_cli.up.command import UpOptions, run

    settings = settings_of(options.config, options.data, _port_overrides(options))
    return run(settings, UpOptions(config=options.config, only=options.only, as_json=options.json))


def _serve(options: argparse.Namespace) -> int:
    from collegium_cli.serve import ServeOptions, serve

    ports = {service or options.services[0]: port for service, port in options.admin_port}
    overrides = _port_overrides(options)
    return serve(
        settings_of(options.config, options.data, overrides),
        ServeOptions(
            services=options.services,
            admin_ports=ports,
            report=options.report,
            parent=options.parent,
            as_json=options.json,
            overrides=overrides,
            config=options.config,
            data=options.data,
        ),
    )


def _migrate(options: argparse.Namespace) -> int:
    from collegium_cli.serve import MigrateOptions, migrate

    chosen = MigrateOptions(
        dry_run=options.dry_run,
        as_json=options.json,
        wait=options.wait,
        parent=options.parent,
        replicas=options.replicas,
    )
    return migrate(settings_of(options.config, options.data), chosen)


def _demo(options: argparse.Namespace) -> int:
    from collegium_cli.demo import run

    return run(options.data, keep=options.keep, as_json=options.json)


def _check(options: argparse.Namespace) -> int:
    from collegium_cli.check import read_and_run

    return read_and_run(options.config, options.data, as_json=options.json)


def _ask(options: argparse.Namespace) -> int:
    from collegium_cli.tasks.ask import run

    return run(settings_of(options.config, options.data), options)


def _task(options: argparse.Namespace) -> int:
    from collegium_cli.tasks.verbs import run

    return run(settings_of(options.config, options.data), options)


def _context(options: argparse.Namespace) -> int:
    from collegium_cli.knowledge.contexts import run

    return run(settings_of(options.config, options.data), options)


def _conversation(options: argparse.Namespace) -> int:
    from collegium_cli.knowledge.conversations import run

    return run(settings_of(options.config, options.data), options)


def _memory(options: argparse.Namespace) -> int:
    from collegium_cli.knowledge.memory import run

    return run(settings_of(options.config, options.data), options)


def _schedule(options: argparse.Namespace) -> int:
    from collegium_cli.tasks.schedules import run

    return run(settings_of(options.config, options.data), options)


def _tap(options: argparse.Namespace) -> int:
    from collegium_cli.tasks.tap import run

    return run(settings_of(options.config, options.data), options)


def _dlq(options: argparse.Namespace) -> int:
    from collegium_cli.tasks.dlq import run

    return run(settings_of(options.config, options.data), options)


def _vectors(options: argparse.Namespace) -> int:
    from collegium_cli.knowledge.vectors import run

    return run(settings_of(options.config, options.data), options)


def _audit(options: argparse.Namespace) -> int:
    from collegium_cli.tenants.audit import run

    return run(options)


def _model(options: argparse.Namespace) -> int:
    from collegium_cli.learning.models import models

    return models(settings_of(options.config, options.data), options)


def _billing(options: argparse.Namespace) -> int:
    from collegium_cli.money.billing import run

    return run(settings_of(options.config, options.data), options)


def _encryption(options: argparse.Namespace) -> int:
    from collegium_cli.tenants.privacy import encryption

    return encryption(settings_of(options.config, options.data), options)


def _spend(options: argparse.Namespace) -> int:
    from collegium_cli.learning.models import spend

    return spend(settings_of(options.config, options.data), options)


def _requests(options: argparse.Namespace) -> int:
    from collegium_cli.money.reports import requests

    return requests(settings_of(options.config, options.data), options)


def _invoice(options: argparse.Namespace) -> int:
    from collegium_cli.money.reports import invoices

    return invoices(settings_of(options.config, options.data), options)
