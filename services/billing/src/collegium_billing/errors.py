"""Errors of billing.

    BillingError
    ├── QuestionError         a question that cannot be answered as asked; its code is of the outward catalogue
    ├── MalformedKeyError     a configured or stored key does not have the form of one
    ├── KeyConflictError      a public id belongs to another key
    ├── PublicationError      a tenant's record could not be published, for too many others wrote it
    ├── FencedError           a later sealer of the audit trail has taken over
    └── BuryError             an event can be neither booked nor dead-lettered at this moment

The first three are terminal: the text says what to change. The others pass by themselves and are tried again.
"""

from __future__ import annotations


class BillingError(Exception):
    """Base of this package's errors; ``code`` is stable."""

    code = "billing_error"


class QuestionError(BillingError):
    """A question that cannot be answered as asked; ``param`` names the field at fault."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code  # pyright: ignore[reportIncompatibleVariableOverride] - per instance here
        self.message = message
        self.param = param


class MalformedKeyError(BillingError):
    """A configured or stored key does not have the form of one."""

    code = "malformed_key"


class KeyConflictError(BillingError):
    """The public id of a key belongs to another key already."""

    code = "key_conflict"


class PublicationError(BillingError):
    """A tenant's record was changed by somebody else at every try."""

    code = "publication_conflict"


class FencedError(BillingError):
    """A later sealer of the audit trail has taken over; this one writes no more."""

    code = "audit_fenced"


class BuryError(BillingError):
    """An event can be neither booked nor dead-lettered at this moment."""

    code = "not_dead_lettered"
