"""The configuration as a whole, and its smaller sections.

Not here: reading (reader, environment) and what holds between sections (checks). One rule: every key of the file is a
field here, with its default and its bounds.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from msgspec import field

from collegium_settings.embeddings import EmbeddingsSettings
from collegium_settings.gates import GateSettings
from collegium_settings.models import ModelSettings, TokenWindowSettings
from collegium_settings.people import PeopleSettings
from collegium_settings.probes import ProbeSettings
from collegium_settings.ranks import RankSettings
from collegium_settings.roster import RosterSettings
from collegium_settings.routing import RoutingSettings
from collegium_settings.scalars import (
    ClockTime,
    Count,
    DurationOrZeroSeconds,
    DurationSeconds,
    FilePath,
    Flag,
    Folder,
    HiddenText,
    HttpUrl,
    Identifier,
    ModelName,
    NatsUrl,
    Port,
    PostgresUrl,
    Ratio,
    SizeBytes,
    TenantKey,
    Text,
    Usd,
    WebhookSecret,
    Zone,
    matching,
    whole,
)
from collegium_settings.search import SearchSettings
from collegium_settings.section import Section

_PUBLIC_KEY = re.compile(r"[0-9a-f]{64}\Z")


class HttpSettings(Section, frozen=True, kw_only=True):
    """The HTTP door; port 0 takes a free one. ``max_upload_bytes`` is for documents that are sent as files."""

    host: Text = "127.0.0.1"
    port: Port = 8700
    max_body_bytes: SizeBytes = 10_000_000
    max_upload_bytes: SizeBytes = 64_000_000


class GrpcSettings(Section, frozen=True, kw_only=True):
    """The gRPC door; port 0 takes a free one."""

    host: Text = "127.0.0.1"
    port: Port = 8701


class TlsSettings(Section, frozen=True, kw_only=True):
    """Files for TLS to the broker: the authority, and certificate and key where the broker asks for them."""

    ca: FilePath
    cert: FilePath | None = None
    key: FilePath | None = None


class NatsSettings(Section, frozen=True, kw_only=True):
    """The broker; no URL: the bundled server. ``creds`` is the path of a credentials file."""

    url: NatsUrl | None = None
    creds: FilePath | None = None
    tls: TlsSettings | None = None


class DatabaseSettings(Section, frozen=True, kw_only=True):
    """PostgreSQL; no URL: the bundled server. ``read_url`` is a replica for reports."""

    url: PostgresUrl | None = None
    read_url: PostgresUrl | None = None


class QdrantSettings(Section, frozen=True, kw_only=True):
    """The vector store; no URL: the embedded engine."""

    url: HttpUrl | None = None
    api_key: HiddenText | None = None


class TelemetrySettings(Section, frozen=True, kw_only=True):
    """Traces by OTLP over HTTP; no endpoint: no export."""

    otlp_endpoint: HttpUrl | None = None
    capture_content: Flag = False
    sample_ratio: Ratio = 1.0


class CacheSettings(Section, frozen=True, kw_only=True):
    """Answer caches; ``wrong_max`` is the share of wrong semantic hits that is tolerated.

    ``stale_ttl`` is how long beyond ``exact_ttl`` an answer may be shown while no model can be asked (0: never), to
    tenants that allow it. ``memory_bytes`` and ``entries_max`` bound what one gateway keeps. Answers to questions alike
    are kept for ``semantic_ttl``, or as ``semantic_ttls`` has it for the request's domain.
    """

    exact: Flag = True
    exact_ttl_seconds: DurationSeconds = 3600
    stale_ttl_seconds: DurationOrZeroSeconds = 86_400
    memory_bytes: SizeBytes = 64_000_000
    entries_max: Count = 20_000
    semantic: Flag = False
    wrong_max: Ratio = 0.01
    semantic_ttl_seconds: DurationSeconds = 86_400
    semantic_ttls_seconds: dict[str, DurationSeconds] = field(default_factory=dict[str, int])


class MemorySettings(Section, frozen=True, kw_only=True):
    """Conversations are kept for so many days (0: as long as their tenant), counted from each turn."""

    conversation_days: Annotated[int, whole(0, 36_500)] = 0


class EvolutionSettings(Section, frozen=True, kw_only=True):
    """How models are promoted and made.

    A domain whose answers are less often right than ``gap_target``, however kindly one looks, is a gap. On scoreboards
    what happened ``half_life_days`` ago counts half.
    """

    interval_queries: Count = 100
    auto_spawn_students: Flag = True
    max_models_per_domain: Annotated[int, whole(1, 10_000)] = 10
    min_teacher_confidence: Ratio = 0.85
    probes: ProbeSettings = ProbeSettings()
    ranks: RankSettings = RankSettings()
    gap_target: Ratio = 0.8
    half_life_days: Annotated[int, whole(1, 365)] = 7


class OffPeakSettings(Section, frozen=True, kw_only=True):
    """The cheap hours of a day, "HH:MM"; they may pass midnight."""

    from_time: ClockTime = "22:00"
    to_time: ClockTime = "06:00"
    timezone: Zone = "UTC"


class WebhookSettings(Section, frozen=True, kw_only=True):
    """Where callbacks may go."""

    allow_private_addresses: Flag = False


class AlertSettings(Section, frozen=True, kw_only=True):
    """Where the operator is told of budgets that pass a threshold; no URL: by log and metric alone."""

    webhook_url: HttpUrl | None = None
    webhook_secret: WebhookSecret | None = None


class RequestLogSettings(Section, frozen=True, kw_only=True):
    """How long the request log is kept; sums and invoices stay."""

    retention_days: Annotated[int, whole(7, 3650)] = 30


class TaskSettings(Section, frozen=True, kw_only=True):
    """How long a settled task can be fetched with its answer, in days since it settled."""

    retention_days: Annotated[int, whole(1, 3650)] = 30


class ArchiveSettings(Section, frozen=True, kw_only=True):
    """How long the archive of events is kept, in days; none: for good. Answers in it are sealed."""

    retention_days: Annotated[int, whole(7, 3650)] | None = 90


class JwtIssuerSettings(Section, frozen=True, kw_only=True):
    """Somebody whose tokens are taken: the ``iss`` claim, where the keys are, the ``aud`` claim that is asked for.

    Keys come from ``jwks_url`` or stand in ``jwks`` (a key set as JSON text). All tokens are of ``tenant`` where it is
    given, otherwise a claim names theirs, one of ``tenants`` where those are given. Only an issuer that names the
    operator's tenant here reaches it. ``allow_private``: the URL may be http and lead to a private address.
    """

    issuer: Text
    audience: Text
    jwks_url: HttpUrl | None = None
    jwks: Text | None = None
    algorithms: tuple[Literal["RS256", "ES256", "EdDSA"], ...] = ("RS256", "ES256", "EdDSA")
    tenant: Identifier | None = None
    tenants: tuple[Identifier, ...] = ()
    tenant_claim: Text = "tenant"
    scope_claim: Text = "scope"
    project_claim: Text | None = None
    role_claim: Text | None = None
    allow_private: Flag = False


class JwtSettings(Section, frozen=True, kw_only=True):
    """Tokens of others."""

    issuers: tuple[JwtIssuerSettings, ...] = ()


class EncryptionSettings(Section, frozen=True, kw_only=True):
    """The envelope key for stored content; none: made and kept in the data folder. ``previous`` ones still open."""

    key: HiddenText | None = None
    previous: tuple[HiddenText, ...] = ()


class WorkerSettings(Section, frozen=True, kw_only=True):
    """Worker pools beside those of models, and which pools the workers here serve; none: all that there are."""

    dedicated_pools: tuple[Identifier, ...] = ()
    serve: tuple[Identifier, ...] | None = None


class AuditSettings(Section, frozen=True, kw_only=True):
    """The audit trail: how long it is kept (none: for good), how often its ends are signed, with which key.

    No ``signing_key``: made and kept in the data folder. ``trusted_keys`` are earlier public keys, in hex.
    """

    retention_days: Annotated[int, whole(1, 36_500)] | None = None
    anchor_seconds: DurationSeconds = 3600
    signing_key: HiddenText | None = None
    trusted_keys: tuple[Annotated[str, matching(_PUBLIC_KEY, "a public key of 64 hexadecimal digits")], ...] = ()


Feature = Literal["basic", "custom_students", "dedicated_pool"]


class TierSettings(Section, frozen=True, kw_only=True):
    """What a tenant of a tier may use."""

    queries_per_day: Count
    models_max: Count
    concurrency: Count
    storage_bytes: SizeBytes
    weight: Annotated[int, whole(1, 1000)]
    features: tuple[Feature, ...] = ("basic",)


class BudgetSettings(Section, frozen=True, kw_only=True):
    """What a tenant, project or key may be charged in a window: a rolling one, or a ``calendar`` day or month (UTC)."""

    usd: Usd
    window_seconds: DurationSeconds = 30 * 86_400
    calendar: Literal["calendar_day", "calendar_month"] | None = None
    alert_percents: tuple[Annotated[int, whole(1, 1_000)], ...] = ()


class RateLimitSettings(Section, frozen=True, kw_only=True):
    """How fast a tenant or key may ask; None: no limit of its own."""

    requests_per_minute: Annotated[int, whole(1, 10**12)] | None = None
    tokens_per_minute: Annotated[int, whole(1, 10**12)] | None = None
    requests_per_day: Annotated[int, whole(1, 10**12)] | None = None
    tokens: TokenWindowSettings | None = None
    concurrency: Annotated[int, whole(1, 100_000)] | None = None


class ProjectSettings(Section, frozen=True, kw_only=True):
    """A project of a tenant that is created when absent."""

    id: Identifier
    name: Text | None = None
    budget: BudgetSettings | None = None


class KeySettings(Section, frozen=True, kw_only=True):
    """A further key of a tenant that is created when absent."""

    api_key: TenantKey
    project: Identifier = "default"
    name: Text | None = None
    scopes: tuple[Literal["admin", "approvals", "chat", "knowledge", "tasks", "usage"], ...] = (
        "chat",
        "tasks",
        "usage",
    )
    role: Literal["owner", "operator", "auditor", "member"] | None = None
    models: tuple[ModelName, ...] = ()
    limits: RateLimitSettings | None = None
    budget: BudgetSettings | None = None


class TenantCacheSettings(Section, frozen=True, kw_only=True):
    """A tenant's own choice; None: as configured for all. ``stale``: old answers while no model can be asked."""

    semantic: Flag | None = None
    stale: Flag = False


class TenantLearningSettings(Section, frozen=True, kw_only=True):
    """``collect``: the tenant agrees that its work is learned from, for itself."""

    collect: Flag = False


class TenantSettings(Section, frozen=True, kw_only=True):
    """A tenant that is created when absent; its ``api_key`` becomes its first key.

    Projects, keys, limits and budget too are made when absent, also of a tenant that stands.
    """

    id: Identifier
    tier: Text = "free"
    api_key: TenantKey | None = None
    budget: BudgetSettings | None = None
    limits: RateLimitSettings | None = None
    projects: tuple[ProjectSettings, ...] = ()
    keys: tuple[KeySettings, ...] = ()
    cache: TenantCacheSettings = TenantCacheSettings()
    learning: TenantLearningSettings = TenantLearningSettings()
    pool: Identifier | None = None
    gates: tuple[Text, ...] = ()


def default_tiers() -> dict[str, TierSettings]:
    """Returns the tiers that stand unless the file changes them."""
    return {
        "free": TierSettings(
            queries_per_day=1000, models_max=3, concurrency=5, storage_bytes=100 * 10**6, weight=1
        ),
        "pro": TierSettings(
            queries_per_day=50_000, models_max=20, concurrency=50, storage_bytes=10 * 10**9, weight=4,
            features=("basic", "custom_students"),
        ),
        "enterprise": TierSettings(
            queries_per_day=1_000_000, models_max=100, concurrency=1000, storage_bytes=10**12, weight=16,
            features=("basic", "custom_students", "dedicated_pool"),
        ),
    }  # fmt: skip


class Settings(Section, frozen=True, kw_only=True):
    """The whole configuration; the defaults run on a laptop."""

    data_dir: Folder = Path("./.collegium")
    http: HttpSettings = HttpSettings()
    grpc: GrpcSettings = GrpcSettings()
    nats: NatsSettings = NatsSettings()
    database: DatabaseSettings = DatabaseSettings()
    qdrant: QdrantSettings = QdrantSettings()
    durability: Literal["process", "power"] = "process"
    telemetry: TelemetrySettings = TelemetrySettings()
    embedded_model: Flag = True
    models: tuple[ModelSettings, ...] = ()
    roster: RosterSettings = RosterSettings()
    embeddings: EmbeddingsSettings = EmbeddingsSettings()
    cache: CacheSettings = CacheSettings()
    memory: MemorySettings = MemorySettings()
    search: SearchSettings = SearchSettings()
    routing: RoutingSettings = RoutingSettings()
    evolution: EvolutionSettings = EvolutionSettings()
    off_peak: OffPeakSettings = OffPeakSettings()
    webhooks: WebhookSettings = WebhookSettings()
    alerts: AlertSettings = AlertSettings()
    requests: RequestLogSettings = RequestLogSettings()
    tasks: TaskSettings = TaskSettings()
    archive: ArchiveSettings = ArchiveSettings()
    jwt: JwtSettings = JwtSettings()
    encryption: EncryptionSettings = EncryptionSettings()
    audit: AuditSettings = AuditSettings()
    workers: WorkerSettings = WorkerSettings()
    tiers: dict[str, TierSettings] = field(default_factory=default_tiers)
    tenants: tuple[TenantSettings, ...] = ()
    gates: dict[str, GateSettings] = field(default_factory=dict[str, GateSettings])
    people: PeopleSettings = PeopleSettings()
