"""The names of span attributes and metrics: OpenTelemetry's GenAI and messaging conventions, and our own.

One rule: a name that leaves the platform stands here and nowhere else.
"""

from __future__ import annotations

from typing import Final

SERVICE_PREFIX: Final = "collegium-"

OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"  # cache reads included
USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
USAGE_CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - the type of a model's tokens

MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_OPERATION: Final = "messaging.operation.type"
MESSAGING_DESTINATION: Final = "messaging.destination.name"
MESSAGING_MESSAGE_ID: Final = "messaging.message.id"
MESSAGING_CONSUMER: Final = "messaging.consumer.group.name"
MESSAGING_BATCH_COUNT: Final = "messaging.batch.message_count"

HTTP_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_STATUS: Final = "http.response.status_code"
RPC_SYSTEM: Final = "rpc.system"
RPC_METHOD: Final = "rpc.method"
SERVER_ADDRESS: Final = "server.address"
ERROR_TYPE: Final = "error.type"

TENANT: Final = "collegium.tenant"
TASK: Final = "collegium.task"
PLAN: Final = "collegium.plan"
RANK: Final = "collegium.rank"
PRIORITY: Final = "collegium.priority"
ATTEMPT: Final = "collegium.attempt"

METRIC_TASKS: Final = "collegium_tasks_total"
METRIC_TASK_DURATION: Final = "collegium_task_duration_seconds"
METRIC_OVERHEAD: Final = "collegium_overhead_seconds"
METRIC_QUEUE_DEPTH: Final = "collegium_queue_depth"
METRIC_HOLDS_OPEN: Final = "collegium_holds_open"
METRIC_OVER_HOLD: Final = "collegium_captures_over_hold"
METRIC_SHARDS_ANSWERED: Final = "collegium_holds_shards_answered"
METRIC_PERMITS_IN_USE: Final = "collegium_permits_in_use"
METRIC_POOL_WORKERS: Final = "collegium_pool_workers"
METRIC_LOW_THROTTLED: Final = "collegium_low_priority_throttled"
METRIC_CONFIG_RELOADS: Final = "collegium_config_reloads_total"
METRIC_COST: Final = "collegium_cost_usd_total"
METRIC_BUDGET_USED: Final = "collegium_budget_used_ratio"
METRIC_CACHE_REQUESTS: Final = "collegium_cache_requests_total"
METRIC_CACHE_LOOK: Final = "collegium_cache_look_seconds"
METRIC_CACHE_WRONG: Final = "collegium_cache_wrong_hits"
METRIC_MODEL_HEALTH: Final = "collegium_model_health"
METRIC_QUOTA_USED: Final = "collegium_model_quota_used_ratio"
METRIC_OVER_LIMIT: Final = "collegium_over_limit_total"
METRIC_WEBHOOKS: Final = "collegium_webhooks_total"
METRIC_WEBHOOK_DURATION: Final = "collegium_webhook_duration_seconds"
METRIC_WEBHOOKS_IN_FLIGHT: Final = "collegium_webhooks_in_flight"
METRIC_STUCK_MESSAGES: Final = "collegium_stuck_messages"
METRIC_AUDIT_WAITING: Final = "collegium_audit_waiting"
METRIC_AUDIT_LOST: Final = "collegium_audit_lost"
METRIC_AUDIT_UNSEALED: Final = "collegium_audit_unsealed"
METRIC_AUDIT_FAULTS: Final = "collegium_audit_faults"
METRIC_LETTERS_BURIED: Final = "collegium_dead_letters_buried"
METRIC_LETTERS_KEPT: Final = "collegium_failed_inputs_kept"
METRIC_LAW_VIOLATIONS: Final = "collegium_ledger_law_violations"
METRIC_LAWS_CHECKED: Final = "collegium_ledger_laws_checked_timestamp_seconds"
METRIC_VECTOR_POINTS: Final = "collegium_vector_points"
METRIC_VECTOR_UNINDEXED: Final = "collegium_vector_points_unindexed"
METRIC_VECTOR_LOOK_SECONDS: Final = "collegium_vector_look_seconds"
METRIC_LETTERS_LOST: Final = "collegium_failed_inputs_lost"
# The GenAI conventions' metrics as Prometheus spells them.
METRIC_REINDEX_LEFT: Final = "collegium_reindex_documents_left"
METRIC_EMBEDDED: Final = "collegium_embedding_texts_total"
METRIC_EMBEDDED_TOKENS: Final = "collegium_embedding_tokens_total"
METRIC_EMBEDDING_DURATION: Final = "collegium_embedding_duration_seconds"
METRIC_EMBEDDING_WAITING: Final = "collegium_embedding_waiting"
METRIC_EMBEDDING_MEMORY: Final = "collegium_embedding_memory_bytes"
METRIC_TOKEN_USAGE: Final = "gen_ai_client_token_usage"  # noqa: S105 - likewise
METRIC_OPERATION_DURATION: Final = "gen_ai_client_operation_duration_seconds"
METRIC_FIRST_TOKEN: Final = "gen_ai_server_time_to_first_token_seconds"  # noqa: S105 - likewise
