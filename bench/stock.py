"""Products with plenty of stock, through the public API: bulks of a thousand products, receipts of a thousand lines."""

import asyncio

from bench.api import Api
from bench.errors import BenchError
from bench.traffic import WAREHOUSE, sku_of

_BATCH = 1_000
_AT_ONCE = 2
_PLENTY = "1000000000"


async def stock_up(api: Api, *, skus: int) -> None:
    """One warehouse, and so much of each SKU in it that no run can sell it out."""
    await api.post("/warehouses", {"code": WAREHOUSE, "name": "Benchmark"})
    gate = asyncio.Semaphore(_AT_ONCE)

    async def receive(numbers: range) -> None:
        async with gate:
            products = [{"sku": sku_of(number), "name": f"Product {number}"} for number in numbers]
            await api.post("/products/bulk", {"products": products})
            lines = [{"sku": sku_of(number), "warehouse": WAREHOUSE, "quantity": _PLENTY} for number in numbers]
            await api.post("/movements", {"type": "receipt", "lines": lines})

    batches = (range(start, min(start + _BATCH, skus + 1)) for start in range(1, skus + 1, _BATCH))
    try:
        async with asyncio.TaskGroup() as group:
            for batch in batches:
                group.create_task(receive(batch))
    except* BenchError as failures:
        # The first one tells what is wrong; the others were cancelled or say the same.
        raise failures.exceptions[0] from None
