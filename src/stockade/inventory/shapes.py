"""What the inventory-service is asked and answers."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal, LiteralString
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from stockade.kit.shapes import (
    WHOLE,
    BoundedInstant,
    Code,
    Day,
    Name,
    PositiveQuantity,
    Price,
    Quantity,
    Reference,
    Shape,
    SignedQuantity,
)

MOVEMENT_LINES_MAX = 1_000
RESERVATION_LINES_MAX = 256
BULK_MAX = 256
EXPIRY_MAX_S = 30 * 86_400

Status = Literal["sellable", "quality_hold", "quarantined", "damaged"]
MovementType = Literal["receipt", "issue", "adjustment", "transfer", "status_change"]
Reason = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
"""A reason code: lower case, such as `customer_return`, `shrinkage`, `found`, `damaged_in_transit`."""


class NewWarehouse(Shape):
    code: Code
    name: Name


class WarehouseChange(Shape):
    name: Name


class Warehouse(Shape):
    id: UUID
    code: str
    name: str
    version: int
    created_at: datetime


class NewLocation(Shape):
    warehouse: Code
    code: Code


class Location(Shape):
    id: UUID
    warehouse: str
    code: str
    kind: str


class Item(Shape):
    """What stock knows of a product."""

    id: UUID
    sku: str
    name: str
    unit: str
    tracking: str
    is_active: bool


class NewMovementLine(Shape):
    """What moves. Which fields count depends on the type: `to_…` for transfers and status changes, a sign for adjustments."""

    sku: Code
    warehouse: Code
    location: Code | None = None
    lot: Code | None = None
    expires_on: Day | None = None
    serials: Annotated[list[Code], Field(max_length=1_000)] | None = None
    status: Status | None = None
    to_warehouse: Code | None = None
    to_location: Code | None = None
    to_status: Status | None = None
    quantity: SignedQuantity
    unit_cost: Price | None = None


class NewMovement(Shape):
    type: MovementType
    reason: Reason | None = None
    reference: Reference | None = None
    occurred_at: BoundedInstant | None = None
    lines: Annotated[list[NewMovementLine], Field(min_length=1, max_length=MOVEMENT_LINES_MAX)]

    @model_validator(mode="after")
    def check_type(self) -> "NewMovement":
        if self.type == "adjustment" and self.reason is None:
            raise PydanticCustomError("reason_required", "an adjustment needs a reason code")
        for place, line in enumerate(self.lines):
            _check_line(self.type, place, line)
        return self


def _check_line(kind: MovementType, place: int, line: NewMovementLine) -> None:
    def refuse(field: str, code: LiteralString, said: str) -> PydanticCustomError:
        return PydanticCustomError(
            code, "line {place}: {field} {said}", {"place": place + 1, "field": field, "said": said}
        )

    if line.quantity == 0:
        raise refuse("quantity", "quantity_zero", "must not be zero")
    if line.quantity < 0 and kind != "adjustment":
        raise refuse("quantity", "quantity_negative", "must be greater than zero; only adjustments may be negative")
    if kind != "transfer" and (line.to_warehouse or line.to_location):
        raise refuse("to_location", "field_not_used", "belongs to transfers")
    if (line.to_status is not None) != (kind == "status_change"):
        raise refuse("to_status", "field_not_used", "belongs to status changes, which need it")
    if kind == "transfer" and not (line.to_warehouse or line.to_location):
        raise refuse("to_location", "destination_required", "or to_warehouse is needed for a transfer")
    if line.unit_cost is not None and kind not in ("receipt", "adjustment"):
        raise refuse("unit_cost", "field_not_used", "belongs to receipts and adjustments")


class Entry(Shape):
    """One side of a line: what a place gained or lost."""

    line: int
    sku: str
    warehouse: str
    location: str
    lot: str | None
    status: str
    quantity: SignedQuantity
    balance: SignedQuantity
    unit_cost: Price | None


class Movement(Shape):
    id: UUID
    type: str
    reason: str | None
    reference: str | None
    actor: str
    occurred_at: datetime
    recorded_at: datetime
    reverses: UUID | None
    entries: list[Entry]


class NewReservationLine(Shape):
    sku: Code
    warehouse: Code
    quantity: PositiveQuantity


class NewReservation(Shape):
    reference: Reference | None = None
    expires_in_s: Annotated[int, Field(ge=1, le=EXPIRY_MAX_S), WHOLE] = 900
    mode: Literal["all", "partial"] = "all"
    lines: Annotated[list[NewReservationLine], Field(min_length=1, max_length=RESERVATION_LINES_MAX)]


class NewBulkReservation(NewReservation):
    key: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
    """The Idempotency-Key of this one."""


class NewBulkReservations(Shape):
    reservations: Annotated[list[NewBulkReservation], Field(min_length=1, max_length=BULK_MAX)]


class ReservationLine(Shape):
    line: int
    sku: str
    warehouse: str
    requested: Quantity
    quantity: Quantity
    consumed: Quantity


class Reservation(Shape):
    id: UUID
    reference: str | None
    status: str
    expires_at: datetime
    lines: list[ReservationLine]


class ReservationOutcome(Shape):
    """One answer of the bulk call: the status that a single call would have had, and its reservation or problem."""

    status: int
    reservation: Reservation | None = None
    problem: dict[str, object] | None = None


class ReservationOutcomes(Shape):
    results: list[ReservationOutcome]


class ConsumedLine(Shape):
    line: Annotated[int, Field(ge=1, le=RESERVATION_LINES_MAX), WHOLE]
    quantity: PositiveQuantity


class Consumption(Shape):
    reference: Reference | None = None
    lines: Annotated[list[ConsumedLine], Field(min_length=1, max_length=RESERVATION_LINES_MAX)]


class Consumed(Shape):
    movement_id: UUID
    reservation: Reservation


class StockLevel(Shape):
    """The stock of one item in one warehouse.

    As of an instant in the past only quantities on hand are known, and they are negative where an issue is dated before
    the receipt of what it took.
    """

    sku: str
    warehouse: str
    on_hand: SignedQuantity
    sellable: SignedQuantity
    reserved: Quantity | None
    allocated: Quantity | None
    available: Quantity | None


class StockTotals(Shape):
    """The stock of one item over the warehouses that the caller may see, and in each of them."""

    sku: str
    on_hand: Quantity
    sellable: Quantity
    reserved: Quantity
    allocated: Quantity
    available: Quantity
    warehouses: list[StockLevel]


class IntegrityFinding(Shape):
    id: str
    promise: str
    service: str
    violations: int | None
    """None when the service that can tell did not answer."""
    examples: list[str]
    took_ms: int


class IntegrityReport(Shape):
    checked_at: datetime
    violations: int
    invariants: list[IntegrityFinding]


ZERO = Decimal(0)
