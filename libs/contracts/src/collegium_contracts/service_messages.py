"""All questions that one service asks another, and all answers, as two unions: what the codec decodes.

A question is answered by its answer or by :class:`Refused`. One rule: nothing is defined here.
"""

from __future__ import annotations

from collegium_contracts.audit_requests import AuditAnswer, AuditQuestion
from collegium_contracts.domain_requests import DomainRequest, DomainsReply
from collegium_contracts.embedding import EmbedReply, EmbedRequest
from collegium_contracts.evolution import EvolutionReply, EvolutionRequest
from collegium_contracts.experiment_requests import ExperimentReply, ExperimentRequest
from collegium_contracts.gate_requests import TextsJudge, TextsJudged
from collegium_contracts.identity import IdentityReply, IdentityRequest
from collegium_contracts.knowledge import KnowledgeReply, KnowledgeRequest
from collegium_contracts.ledger import LedgerReply, LedgerRequest
from collegium_contracts.likeness import LikenessReply, LikenessRequest
from collegium_contracts.memory_requests import MemoryAnswer, MemoryQuestion
from collegium_contracts.policy_requests import PolicyReply, PolicyRequest
from collegium_contracts.reports import ReportReply, ReportRequest
from collegium_contracts.requests import (
    HoldsListReply,
    HoldsListRequest,
    HoldsRelease,
    HoldsReply,
    HoldsRequest,
    KeyCreate,
    KeyList,
    KeyRevoke,
    KeysReply,
    PossibleSpendReply,
    PossibleSpendRequest,
    QueueReply,
    QueueRequest,
    Refused,
    TenantCreate,
    TenantList,
    TenantsReply,
    TurnsReply,
    TurnsRequest,
    UsageReply,
    UsageRequest,
)
from collegium_contracts.roster_requests import RosterReply, RosterRequest
from collegium_contracts.students import StudentReply, StudentRequest

ServiceRequest = (
    TurnsRequest
    | TextsJudge
    | UsageRequest
    | PossibleSpendRequest
    | TenantCreate
    | TenantList
    | KeyCreate
    | KeyRevoke
    | KeyList
    | QueueRequest
    | HoldsRequest
    | HoldsRelease
    | HoldsListRequest
    | IdentityRequest
    | AuditQuestion
    | LedgerRequest
    | ReportRequest
    | KnowledgeRequest
    | LikenessRequest
    | MemoryQuestion
    | EmbedRequest
    | PolicyRequest
    | EvolutionRequest
    | StudentRequest
    | RosterRequest
    | DomainRequest
    | ExperimentRequest
)
ServiceReply = (
    Refused
    | TextsJudged
    | TurnsReply
    | UsageReply
    | PossibleSpendReply
    | TenantsReply
    | KeysReply
    | QueueReply
    | HoldsReply
    | HoldsListReply
    | IdentityReply
    | AuditAnswer
    | LedgerReply
    | ReportReply
    | KnowledgeReply
    | LikenessReply
    | MemoryAnswer
    | EmbedReply
    | PolicyReply
    | EvolutionReply
    | StudentReply
    | RosterReply
    | DomainsReply
    | ExperimentReply
)
