"""Options of the verbs ``student`` and ``distill``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from collegium_cli.environment import settings_of

SHAPES = ("response", "metric", "preference", "reasoning", "soft")
Add = Callable[[Any, str, str, Callable[[argparse.Namespace], int]], argparse.ArgumentParser]


def add_students(verbs: Any, add: Add) -> None:
    """Adds the verbs about students and what they are made of."""
    student = add(verbs, "student", "Lists, shows, makes and retires students made of tenants' work.", _student)
    distill = add(verbs, "distill", "Counts samples, and writes them for fine-tuning.", _distill)
    student.add_argument("action", choices=["ls", "show", "make", "register", "retire"])
    student.add_argument("name", nargs="*", help="students' names, for show, register and retire")
    student.add_argument("--from-export", metavar="ID", help="for register: the export it was fine-tuned on")
    student.add_argument("--base-url", help="for register: where it is")
    student.add_argument("--model", help="for register: what its endpoint calls it")
    student.add_argument("--key", help="for register: the name of its key under roster.keys of the configuration")
    student.add_argument("--input", metavar="USD", help="for register: dollars per million tokens that we pay")
    student.add_argument("--output", metavar="USD", help="for register: the same, of its answers")
    student.add_argument("--force", action="store_true", help="for register: whatever the probes say")
    student.add_argument("--tenant", help="for ls and make (default: the key's own)")
    student.add_argument("--domain", default="", help="for make: the domain to learn")
    student.add_argument(
        "--kind", choices=["head", "prompt"], default="head", help="for make: a classifier, or examples for a model"
    )
    student.add_argument("--base", default="", help="for make --kind prompt: the model (default: the cheapest)")
    student.add_argument("--dry-run", action="store_true")
    distill.add_argument("action", choices=["ls", "export"])
    distill.add_argument("--tenant", help="whose samples (default: the key's own)")
    distill.add_argument("--domain", default="", help="for export: of one domain (default: all)")
    distill.add_argument("--shape", choices=SHAPES, default="response")
    distill.add_argument("--format", choices=["annotated", "openai"], default="annotated", help="for export")
    distill.add_argument("--temperature", type=float, default=1.0, help="for export: of the shape soft")
    distill.add_argument("--evaluation", type=Path, metavar="FILE", help="for export: not to train on, one a line")
    distill.add_argument("--callback-url", help="for export: whom a signed webhook tells that it is ready")
    distill.add_argument("--manifest", type=Path, metavar="FILE", help="for export: the file for what was written")
    distill.add_argument("--max-rows", type=int, default=10_000)
    distill.add_argument("--out", type=Path, help="for export: the file to write (default: standard output)")


def _student(options: argparse.Namespace) -> int:
    from collegium_cli.learning.students import student

    return student(settings_of(options.config, options.data), options)


def _distill(options: argparse.Namespace) -> int:
    from collegium_cli.learning.students import distill

    return distill(settings_of(options.config, options.data), options)
