"""What is asked about discovered domains. One rule: a tenant's words are in an answer only where it says so."""

from __future__ import annotations

from typing import Literal

import msgspec

from collegium_contracts.base import Message

TopicState = Literal["live", "retired", "merged"]


class DomainsAsk(Message, frozen=True, kw_only=True):
    """Asks evolution for discovered domains: of one tenant, or (none) of all; of one id where given.

    ``with_terms``: with the words that tell a domain apart, which are its tenant's own.
    """

    tenant: str | None = None
    id: str = ""
    with_terms: bool = False


class DomainRename(Message, frozen=True, kw_only=True):
    """Asks evolution to show a domain under another name (empty: that of its terms again); its id stays."""

    id: str
    name: str
    by: str
    tenant: str | None = None
    with_terms: bool = False


class DomainMerge(Message, frozen=True, kw_only=True):
    """Asks evolution to give what is of domain ``id`` the domain ``into`` of the same tenant from now on.

    ``into`` empty or the same id takes a merger back.
    """

    id: str
    into: str
    by: str
    tenant: str | None = None
    with_terms: bool = False


class DomainRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One discovered domain. ``questions`` are those that its newest fit was made of, of ``of_questions`` in all.

    ``named`` is what somebody called it; ``terms`` are empty where the tenant did not agree to collection, or whoever
    asks is not to see them. A ``retired`` one was not found again; ``into`` is where a ``merged`` one went.
    """

    id: str
    tenant: str
    state: TopicState
    questions: int
    of_questions: int
    first_at_ms: int
    last_at_ms: int
    named: str = ""
    terms: list[str] = []
    into: str = ""
    by: str = ""


class DomainsReply(Message, frozen=True, kw_only=True):
    """The domains concerned, the largest first."""

    rows: list[DomainRow]


DomainRequest = DomainsAsk | DomainRename | DomainMerge
