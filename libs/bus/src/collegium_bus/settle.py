"""Settling a task: store the one terminal message, then tell the gateway that waits.

Nobody waits on a stream's subject (a core subscriber there also sees what was refused), so the settler publishes, waits
for the acknowledgement, and only then notifies. One rule: the notification is a hint; the stored message is the truth.
"""

from __future__ import annotations

from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.codec import encode
from collegium_contracts.holds import Billed, billed_header
from collegium_contracts.messages import SettledMessage, TaskFailed, TaskRef

from collegium_bus.direct import DirectReader
from collegium_bus.errors import AlreadyStandsError
from collegium_bus.publisher import Publisher


async def settle(
    publisher: Publisher, settled: SettledMessage, *, settler: str, traceparent: str, note: str = ""
) -> bool:
    """Stores the terminal message and notifies the waiting gateway; false where the task was already settled.

    ``settler`` must be unique for this try (attempt and delivery, or a service's name), so that a lost acknowledgement
    can be told from somebody else's settlement. ``note`` says what the call that ended it used (callnote.py), empty
    where none did. Raises BrokerUnavailableError where it cannot be stored in time.
    """
    task = settled.task
    payload = encode(settled)
    usage = settled.usage
    billed = Billed(
        picos=usage.charge_usd_picos,
        tokens=usage.input_tokens + usage.output_tokens,
        project=task.project,
        key_id=task.key_id,
    )
    headers = {s.TRACEPARENT: traceparent, s.H_TENANT: task.tenant, s.H_BILLED: billed_header(billed)}
    if note:
        headers[s.H_CALL] = note
    try:
        await publisher.publish(
            s.task_settled(task.tenant, task.id),
            payload,
            message_id=f"{task.id}.{settler}",
            headers=headers,
            create_once=True,
        )
    except AlreadyStandsError:
        return False
    if task.reply:
        await publisher.notify(s.done(task.reply, task.id), payload, headers=headers)
    return True


async def standing_failure(direct: DirectReader, task: TaskRef) -> TaskFailed | None:
    """Returns a task's terminal message where the task stands as failed, and none otherwise.

    For whoever finds, on a later delivery, that the task was settled: its settler may have ended before it kept the
    task's input (:meth:`DeadLetters.keep_failed`).
    """
    stored = await direct.last(s.EVENTS, s.task_settled(task.tenant, task.id))
    message = codec.settled.decode(stored.payload) if stored is not None else None
    return message if isinstance(message, TaskFailed) else None
