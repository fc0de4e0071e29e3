"""What the order-service is asked and answers."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal, TypeAlias
from uuid import UUID

from pydantic import Field

from stockade.kit.shapes import WHOLE, Code, Email, Name, Note, PositiveQuantity, Price, Quantity, Reference, Shape

LINES_MAX = 256
"""What one reservation of the inventory-service can hold."""

AllocationMode: TypeAlias = Literal["all", "partial", "none"]
Disposition: TypeAlias = Literal["restock", "quality_hold", "damaged"]
OrderStatus: TypeAlias = Literal[
    "confirmed",
    "allocated",
    "partially_allocated",
    "partially_shipped",
    "shipped",
    "cancelled",
    "partially_returned",
    "returned",
]
LineNumber = Annotated[int, Field(ge=1, le=LINES_MAX), WHOLE]


class NewCustomer(Shape):
    code: Code
    name: Name
    email: Email | None = None
    address: Note | None = None


class CustomerChange(Shape):
    """What is left out stays; null takes an address away."""

    name: Name | None = None
    email: Email | None = None
    address: Note | None = None


class Customer(Shape):
    id: UUID
    code: str
    name: str
    email: str | None
    address: str | None
    version: int
    created_at: datetime


class NewOrderLine(Shape):
    sku: Code
    quantity: PositiveQuantity
    unit_price: Price | None = None


class NewOrder(Shape):
    customer: Code | None = None
    reference: Reference | None = None
    priority: Annotated[int, Field(ge=0, le=9), WHOLE] = 5
    """9 is the most urgent."""
    warehouse: Code | None = None
    """Left out: the one that can fill the order, else the one that has most of it."""
    allocate: AllocationMode = "all"
    lines: Annotated[list[NewOrderLine], Field(min_length=1, max_length=LINES_MAX)]


class OrderLine(Shape):
    """ordered = allocated + backordered + shipped + cancelled; returned is a part of shipped."""

    line: int
    sku: str
    ordered: Quantity
    allocated: Quantity
    backordered: Quantity
    shipped: Quantity
    cancelled: Quantity
    returned: Quantity
    unit_price: Price | None


class OrderSummary(Shape):
    id: UUID
    number: str
    status: OrderStatus
    warehouse: str
    customer: str | None
    reference: str | None
    priority: int
    created_at: datetime
    version: int


class Order(OrderSummary):
    lines: list[OrderLine]


class LineQuantity(Shape):
    line: LineNumber
    quantity: PositiveQuantity


class NewShipment(Shape):
    lines: Annotated[list[LineQuantity], Field(min_length=1, max_length=LINES_MAX)] | None = None
    """Left out: everything that is allocated."""


class ShippedLine(Shape):
    line: int
    sku: str
    quantity: Quantity


class Shipment(Shape):
    id: UUID
    number: str
    order_id: UUID
    movement_id: UUID
    movement_ids: list[UUID]
    """More than one when it took from several reservations, as after back orders."""
    lines: list[ShippedLine]
    shipped_at: datetime


class NewReturnLine(Shape):
    line: LineNumber
    quantity: PositiveQuantity
    disposition: Disposition
    lot: Code | None = None


class NewReturn(Shape):
    order_id: UUID
    reason: Note | None = None
    lines: Annotated[list[NewReturnLine], Field(min_length=1, max_length=LINES_MAX)]


class ReturnedLine(Shape):
    line: int
    sku: str
    quantity: Quantity
    disposition: Disposition
    lot: str | None


class Return(Shape):
    id: UUID
    number: str
    order_id: UUID
    status: Literal["posted"]
    movement_id: UUID
    reason: str | None
    lines: list[ReturnedLine]
    returned_at: datetime


class Available(Shape):
    """What a warehouse has of a SKU now."""

    sku: str
    warehouse: str
    available: Decimal
