"""Prometheus metrics with the names that dashboards, alerts and autoscaling rely on (design, section 6)."""

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

REQUESTS = Counter("http_requests_total", "Requests answered.", ("service", "method", "route", "status"))
REQUEST_SECONDS = Histogram(
    "http_request_duration_seconds", "Time from request to last byte.", ("service", "method", "route"), buckets=_SECONDS
)
REQUESTS_IN_PROGRESS = Gauge("http_requests_in_progress", "Requests being answered.", ("service",))
POOL_CONNECTIONS = Gauge("db_pool_connections", "Connections of the pool.", ("service", "state"))
TRANSACTION_SECONDS = Histogram(
    "db_query_duration_seconds",
    "Time of a named transaction, waits included.",
    ("service", "transaction"),
    buckets=_SECONDS,
)
TRANSACTION_RETRIES = Counter(
    "stockade_transaction_retries_total", "Transactions run again after a conflict.", ("service", "transaction")
)
CALLS = Counter("stockade_service_calls_total", "Calls to other services by outcome.", ("service", "target", "outcome"))
OUTBOX_LAG = Gauge(
    "stockade_outbox_lag_events", "Events of a source that a consumer has not applied yet.", ("service", "source")
)
BACKGROUND_FAILURES = Counter(
    "stockade_background_failures_total", "Failed rounds of a background task.", ("service", "task")
)
INTEGRITY_VIOLATIONS = Gauge(
    "stockade_integrity_violations", "Rows that break an invariant, at the last check.", ("service", "invariant")
)


def render() -> tuple[bytes, str]:
    """The exposition text and its content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
