"""What the supplier-service is asked and answers."""

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from stockade.kit.shapes import WHOLE, Code, Day, Email, Name, PositiveQuantity, Price, Quantity, Reference, Shape

LINES_MAX = 1000

OrderStatus = Literal[
    "draft", "pending_approval", "approved", "rejected", "sent", "partially_received", "received", "closed", "cancelled"
]
ReceiptStatus = Literal["posting", "posted"]


def _check_share(value: Decimal) -> Decimal:
    if value > 1:
        raise PydanticCustomError("share_range", "must be from 0 to 1; 0.05 is five per cent")
    return value


Share = Annotated[
    Quantity,
    AfterValidator(_check_share),
    WithJsonSchema({"type": "string", "pattern": r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$", "examples": ["0.05"]}),
]
"""A part of a whole, such as "0.05" for five per cent."""
Days = Annotated[int, Field(ge=0, le=3650), WHOLE]


class NewSupplier(Shape):
    code: Code
    name: Name
    email: Email | None = None
    lead_time_days: Days | None = None
    over_receipt_tolerance: Share = Decimal(0)
    """How much more than ordered may be received of a line."""


class SupplierChange(Shape):
    """Only what is sent changes. `email` and `lead_time_days` may be null, which removes them."""

    name: Name | None = None
    email: Email | None = None
    lead_time_days: Days | None = None
    over_receipt_tolerance: Share | None = None


class Supplier(Shape):
    id: UUID
    code: str
    name: str
    email: str | None
    lead_time_days: int | None
    over_receipt_tolerance: Share
    created_by: str
    created_at: datetime
    version: int


class SupplierItem(Shape):
    """What a supplier offers: its own number for the product, the price, and in which quantities it sells."""

    sku: Code
    supplier_sku: Reference | None = None
    unit_cost: Price
    minimum_quantity: PositiveQuantity | None = None
    pack_size: PositiveQuantity | None = None


class SupplierItems(Shape):
    items: Annotated[list[SupplierItem], Field(min_length=1, max_length=LINES_MAX)]


class NewOrderLine(Shape):
    sku: Code
    quantity: PositiveQuantity
    unit_cost: Price | None = None
    """Without it the price is the one of the supplier's item, if there is one."""


class NewPurchaseOrder(Shape):
    supplier: Code
    warehouse: Code
    reference: Reference | None = None
    expected_on: Day | None = None
    lines: Annotated[list[NewOrderLine], Field(min_length=1, max_length=LINES_MAX)]


class OrderLine(Shape):
    id: UUID
    line: int
    sku: str
    ordered: Quantity
    received: Quantity
    unit_cost: Price | None


class PurchaseOrderHeader(Shape):
    id: UUID
    number: str
    status: OrderStatus
    supplier: str
    warehouse: str
    reference: str | None
    expected_on: date | None
    created_by: str
    created_at: datetime
    approved_by: str | None
    version: int


class PurchaseOrder(PurchaseOrderHeader):
    lines: list[OrderLine]


class NewReceiptLine(Shape):
    line_id: UUID
    quantity: PositiveQuantity
    lot: Code | None = None
    expires_on: Day | None = None
    location: Code | None = None


class NewReceipt(Shape):
    """A line of the order may come in several lines of the receipt, such as one for each lot."""

    lines: Annotated[list[NewReceiptLine], Field(min_length=1, max_length=LINES_MAX)]
    reference: Reference | None = None
    """Such as the number of the delivery note."""


class ReceiptLine(Shape):
    line_id: UUID
    sku: str
    quantity: Quantity
    lot: str | None
    expires_on: date | None
    location: str | None
    unit_cost: Price | None


class ReceiptHeader(Shape):
    id: UUID
    number: str
    purchase_order_id: UUID
    warehouse: str
    reference: str | None
    status: ReceiptStatus
    movement_id: UUID | None
    received_by: str
    received_at: datetime


class Receipt(ReceiptHeader):
    lines: list[ReceiptLine]
