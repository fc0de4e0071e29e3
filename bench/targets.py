"""The rows that are measured here, with the figures of the design's section 9."""

from bench.results import Target

HOT = Target(
    "P1", "reservations, one hot SKU, 64 connections", "/s", reference="pgbench, 64 clients", must=8, goal=12
)  # fmt: skip
HOT_BEST = Target(
    "P1", "the same, against the best client count", "/s", reference="pgbench, best count", must=3, goal=5
)  # fmt: skip
HOT_P99 = Target("P1", "the same: p99", "ms", at_least=False, must=10, goal=8)
UNIFORM = Target(
    "P2", "reservations, uniform over {skus} SKUs, 64 connections", "/s", reference="pgbench, 64 clients", must=1.5, goal=2.2
)  # fmt: skip
ALONE = Target(
    "P5", "one reservation at a time, idle system: p50", "ms", reference="pgbench, 1 client",
    at_least=False, must=1.15, goal=1.0,
)  # fmt: skip
STOCK = Target(
    "P6", "GET /stock, uniform over {skus} SKUs, 64 connections", "/s", reference="pgbench, 64 clients", must=0.6, goal=0.9
)  # fmt: skip
ORDERS = Target(
    "P7", "orders of 3 lines over {skus} SKUs, 16 clients, stockade up", "/s", reference="pgbench, 16 clients", must=0.5, goal=1.0
)  # fmt: skip
MEMORY_ALL = Target("P12", "memory (PSS): stockade up, idle", "MiB", at_least=False, must=250, goal=180)
MEMORY_ONE = Target("P12", "memory (PSS): inventory-service, idle", "MiB", at_least=False, must=100, goal=70)
FIRST_START = Target("P13", "empty directory to signed in (packages there)", "s", at_least=False)
RESTART = Target("P13", "restart to signed in", "s", at_least=False, must=5, goal=3)
RECOVERY = Target("P13", "kill -9 of all, start to signed in", "s", at_least=False, must=10, goal=5)

TARGETS = (
    HOT, HOT_BEST, HOT_P99, UNIFORM, ALONE, STOCK, ORDERS, MEMORY_ALL, MEMORY_ONE, FIRST_START, RESTART, RECOVERY,
)  # fmt: skip
IDS = frozenset(target.id for target in TARGETS)
MEASURED_ELSEWHERE = (
    "P3", "P4", "P8", "P9", "P10", "P11", "P13 of `make up` with an empty package cache", "P14", "P15",
)  # fmt: skip
SKUS_OF_THE_TARGETS = 100_000
