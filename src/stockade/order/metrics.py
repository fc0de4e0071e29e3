"""The business metric of orders."""

from prometheus_client import Counter

ORDERS = Counter(
    "stockade_orders_total", "Orders by the status that they came to; `refused` left nothing.", ("status",)
)
