"""Subjects of what people are asked about tasks, and of what they answer; handed on by subjects.py.

One rule: each is written once at most, so that whoever asks or answers second is refused by the stream.
"""

from __future__ import annotations

from collegium_contracts.ids import tenant_token


def task_paused(tenant: str, task: str, stage: str) -> str:
    """Subject of InputRequired: one per stage of a task."""
    return f"task.changed.{tenant_token(tenant)}.{task}.{stage}"


def task_input(tenant: str, task: str, question: str) -> str:
    """Subject of TaskInput: one per question, whoever answers first."""
    return f"task.input.{tenant_token(tenant)}.{task}.{question}"


def inputs_of(tenant: str, task: str) -> str:
    """Filter of all answers to questions about one task."""
    return f"task.input.{tenant_token(tenant)}.{task}.*"


def pauses_of(tenant: str, task: str) -> str:
    """Filter of everything that one task waited for people for."""
    return f"task.changed.{tenant_token(tenant)}.{task}.*"
