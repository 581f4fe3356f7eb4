"""Names of span attributes and metrics, as the outside contract has them."""

from __future__ import annotations

from typing import Final

# OpenTelemetry's GenAI and messaging conventions.
OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
RESPONSE_MODEL: Final = "gen_ai.response.model"
USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
ERROR_TYPE: Final = "error.type"
DESTINATION_NAME: Final = "messaging.destination.name"

# Ours.
TENANT: Final = "collegium.tenant"
TASK: Final = "collegium.task"
PLAN: Final = "collegium.plan"
RANK: Final = "collegium.rank"
PRIORITY: Final = "collegium.priority"

# Metrics.
TASKS_TOTAL: Final = "collegium_tasks"
TASK_DURATION_SECONDS: Final = "collegium_task_duration_seconds"
OVERHEAD_SECONDS: Final = "collegium_overhead_seconds"
QUEUE_DEPTH: Final = "collegium_queue_depth"
COST_USD_TOTAL: Final = "collegium_cost_usd"
CACHE_REQUESTS_TOTAL: Final = "collegium_cache_requests"
MODEL_HEALTH: Final = "collegium_model_health"
EVENT_LAG: Final = "collegium_event_lag"
