"""Routes of the inventory-service."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from stockade.inventory import calls, items, movements, reservations, stock, warehouses
from stockade.inventory.checks import CHECKS
from stockade.inventory.errors import InsufficientStock
from stockade.inventory.metrics import MOVEMENTS, RESERVATIONS, STOCK_OUTS
from stockade.inventory.shapes import (
    Consumed,
    Consumption,
    IntegrityFinding,
    IntegrityReport,
    Item,
    Location,
    Movement,
    NewBulkReservation,
    NewBulkReservations,
    NewLocation,
    NewMovement,
    NewReservation,
    NewWarehouse,
    Reservation,
    ReservationOutcome,
    ReservationOutcomes,
    StockLevel,
    StockTotals,
    Warehouse,
    WarehouseChange,
)
from stockade.kit.auth import Actor, require
from stockade.kit.context import Context, Ctx, Service
from stockade.kit.errors import Refusal
from stockade.kit.etags import IfMatch, tag
from stockade.kit.events import Consumer
from stockade.kit.idempotency import MandatoryKey, OptionalKey, RequestKey, answer_once, fingerprint_of
from stockade.kit.integrity import run_checks
from stockade.kit.pages import CursorText, Page, PageSize
from stockade.kit.shapes import BoundedInstant, Code, Reference

router = APIRouter(prefix="/api/v1")

_BULK_AT_ONCE = 4
_SWEEP_EVERY_S = 1.0


@router.post("/warehouses", tags=["warehouses"], status_code=201, response_model=Warehouse)
async def post_warehouse(
    context: Ctx, body: NewWarehouse, key: OptionalKey, actor: Actor = require("warehouses:write")
) -> Response:
    """Open a warehouse, with its default location `STOCK`."""
    return await answer_once(
        context.database, key, warehouses.create_warehouse, actor=actor, code=body.code, name=body.name
    )


@router.get("/warehouses", tags=["warehouses"])
async def get_warehouses(
    context: Ctx, limit: PageSize = 100, cursor: CursorText = None, _: Actor = require("warehouses:read")
) -> Page[Warehouse]:
    return await context.database.read(warehouses.list_warehouses, limit=limit, cursor=cursor)


@router.get("/warehouses/{code:path}", tags=["warehouses"])
async def get_warehouse(
    context: Ctx, code: Code, response: Response, _: Actor = require("warehouses:read")
) -> Warehouse:
    warehouse = await context.database.read(warehouses.get_warehouse, code=code)
    tag(response, warehouse.version)
    return warehouse


@router.patch("/warehouses/{code:path}", tags=["warehouses"])
async def patch_warehouse(
    context: Ctx,
    code: Code,
    body: WarehouseChange,
    response: Response,
    if_match: IfMatch,
    actor: Actor = require("warehouses:write"),
) -> Warehouse:
    """Rename a warehouse."""
    warehouse = await context.database.run(
        warehouses.change_warehouse, actor=actor, code=code, name=body.name, if_match=if_match
    )
    tag(response, warehouse.version)
    return warehouse


@router.post("/locations", tags=["locations"], status_code=201, response_model=Location)
async def post_location(
    context: Ctx, body: NewLocation, key: OptionalKey, actor: Actor = require("warehouses:write")
) -> Response:
    """Add a physical location to a warehouse."""
    return await answer_once(
        context.database, key, warehouses.create_location, actor=actor, warehouse=body.warehouse, code=body.code
    )


@router.get("/locations", tags=["locations"])
async def get_locations(
    context: Ctx,
    warehouse: Annotated[Code | None, Query()] = None,
    limit: PageSize = 100,
    cursor: CursorText = None,
    _: Actor = require("warehouses:read"),
) -> Page[Location]:
    return await context.database.read(warehouses.list_locations, warehouse=warehouse, limit=limit, cursor=cursor)


@router.get("/items", tags=["items"])
async def get_items(
    context: Ctx, limit: PageSize = 100, cursor: CursorText = None, _: Actor = require("stock:read")
) -> Page[Item]:
    """The products that stock knows."""
    return await context.database.read(items.list_items, limit=limit, cursor=cursor)


@router.get("/items/{sku:path}", tags=["items"])
async def get_item(context: Ctx, sku: Code, _: Actor = require("stock:read")) -> Item:
    return await context.database.read(items.get_item, sku=sku)


@router.post("/movements", tags=["movements"], status_code=201, response_model=Movement)
async def post_movement(
    context: Ctx, body: NewMovement, key: MandatoryKey, actor: Actor = require("movements:write")
) -> Response:
    """Move goods: receive, issue, adjust, transfer, or change their status."""

    async def attempt() -> Response:
        return await answer_once(context.database, key, movements.post_movement, actor=actor, request=body)

    answer = await items.with_known_items(context, lambda: reservations.after_sweeping(context, attempt))
    MOVEMENTS.labels(_outcome(answer, body.type)).inc()
    return answer


@router.get("/movements", tags=["movements"])
async def get_movements(
    context: Ctx,
    sku: Annotated[Code | None, Query()] = None,
    reference: Annotated[Reference | None, Query()] = None,
    limit: PageSize = 100,
    cursor: CursorText = None,
    _: Actor = require("movements:read"),
) -> Page[Movement]:
    """The newest movements first."""
    return await context.database.read(
        movements.list_movements, sku=sku, reference=reference, limit=limit, cursor=cursor
    )


@router.get("/movements/{movement_id}", tags=["movements"])
async def get_movement(context: Ctx, movement_id: UUID, _: Actor = require("movements:read")) -> Movement:
    return await context.database.read(movements.get_movement, movement_id=movement_id)


@router.post("/movements/{movement_id}/reverse", tags=["movements"], status_code=201, response_model=Movement)
async def post_reversal(
    context: Ctx, movement_id: UUID, key: MandatoryKey, actor: Actor = require("movements:write")
) -> Response:
    """Undo a movement exactly, once."""

    async def attempt() -> Response:
        return await answer_once(
            context.database, key, movements.reverse_movement, actor=actor, movement_id=movement_id
        )

    answer = await reservations.after_sweeping(context, attempt)
    MOVEMENTS.labels(_outcome(answer, "reversal")).inc()
    return answer


@router.get("/stock", tags=["stock"])
async def get_stock(
    context: Ctx,
    sku: Annotated[list[Code] | None, Query(max_length=500)] = None,
    warehouse: Annotated[Code | None, Query()] = None,
    as_of: Annotated[BoundedInstant | None, Query(description="Stock on hand at this instant.")] = None,
    limit: PageSize = 100,
    cursor: CursorText = None,
    _: Actor = require("stock:read"),
) -> Page[StockLevel]:
    """Stock by SKU and warehouse, now or as of an instant."""
    if as_of is not None:
        return await context.database.read(
            stock.list_stock_as_of, skus=sku or [], warehouse=warehouse, as_of=as_of, limit=limit, cursor=cursor
        )
    return await context.database.read(
        stock.list_stock, skus=sku or [], warehouse=warehouse, limit=limit, cursor=cursor
    )


@router.get("/stock/{sku:path}", tags=["stock"])
async def get_totals(context: Ctx, sku: Code, _: Actor = require("stock:read")) -> StockTotals:
    """One item over all warehouses."""
    return await items.with_known_item(context, sku, lambda: context.database.read(stock.get_totals, sku=sku))


@router.post("/reservations", tags=["reservations"], status_code=201, response_model=Reservation)
async def post_reservation(
    context: Ctx, body: NewReservation, key: MandatoryKey, actor: Actor = require("reservations:write")
) -> Response:
    """Hold stock for a while: all lines or, with mode `partial`, what there is."""
    return await _reserve(context, body, key, actor)


@router.post("/reservations/bulk", tags=["reservations"])
async def post_reservations(
    context: Ctx, body: NewBulkReservations, actor: Actor = require("reservations:write")
) -> ReservationOutcomes:
    """Many reservations in one call, each with its own key and its own outcome, in order."""
    gate = asyncio.Semaphore(_BULK_AT_ONCE)

    async def one(request: NewBulkReservation) -> ReservationOutcome:
        plain = NewReservation(**request.model_dump(exclude={"key"}))
        key = RequestKey(request.key, fingerprint_of("POST", "/api/v1/reservations", plain.model_dump_json().encode()))
        async with gate:
            try:
                answer = await _reserve(context, plain, key, actor)
            except Refusal as refusal:
                return ReservationOutcome(status=refusal.status, problem=refusal.document())
        return ReservationOutcome(
            status=answer.status_code, reservation=Reservation.model_validate_json(bytes(answer.body))
        )

    return ReservationOutcomes(results=list(await asyncio.gather(*map(one, body.reservations))))


@router.get("/reservations", tags=["reservations"])
async def get_reservations(
    context: Ctx,
    reference: Annotated[Reference | None, Query()] = None,
    status: Annotated[str | None, Query(pattern="^[a-z_]{1,32}$")] = None,
    limit: PageSize = 100,
    cursor: CursorText = None,
    _: Actor = require("reservations:read"),
) -> Page[Reservation]:
    """The newest reservations first."""
    return await context.database.read(
        reservations.list_reservations, reference=reference, status=status, limit=limit, cursor=cursor
    )


@router.get("/reservations/{reservation_id}", tags=["reservations"])
async def get_reservation(context: Ctx, reservation_id: UUID, _: Actor = require("reservations:read")) -> Reservation:
    return await context.database.read(reservations.get_reservation, reservation_id=reservation_id)


@router.post("/reservations/{reservation_id}/confirm", tags=["reservations"], response_model=Reservation)
async def post_confirmation(
    context: Ctx, reservation_id: UUID, key: OptionalKey, actor: Actor = require("reservations:write")
) -> Response:
    """Turn a hold into an allocation."""
    return await answer_once(
        context.database, key, reservations.confirm, actor=actor, status=200, reservation_id=reservation_id
    )


@router.post("/reservations/{reservation_id}/release", tags=["reservations"], response_model=Reservation)
async def post_release(
    context: Ctx, reservation_id: UUID, key: OptionalKey, actor: Actor = require("reservations:write")
) -> Response:
    """Give back what is left."""
    return await answer_once(
        context.database, key, reservations.release, actor=actor, status=200, reservation_id=reservation_id
    )


@router.post("/reservations/{reservation_id}/consume", tags=["reservations"], status_code=201, response_model=Consumed)
async def post_consumption(
    context: Ctx, reservation_id: UUID, body: Consumption, key: MandatoryKey, actor: Actor = require("movements:write")
) -> Response:
    """Ship parts of a confirmed reservation."""
    answer = await answer_once(
        context.database, key, reservations.consume, actor=actor, reservation_id=reservation_id, request=body
    )
    MOVEMENTS.labels(_outcome(answer, "issue")).inc()
    return answer


@router.get("/integrity", tags=["integrity"])
async def get_integrity(context: Ctx, _: Actor = require("integrity:read")) -> IntegrityReport:
    """Prove every invariant now, in every service that keeps one."""
    own = await context.database.run(run_checks, checks=CHECKS, service=context.service.name)
    found = [IntegrityFinding(**finding) for finding in own]
    for name in ("order-service", "supplier-service"):
        found.extend(await _ask_findings(context, name))
    violations = sum(finding.violations or 0 for finding in found)
    ordered = sorted(found, key=lambda finding: (int(finding.id[1:]), finding.service))
    return IntegrityReport(checked_at=datetime.now(UTC), violations=violations, invariants=ordered)


async def _ask_findings(context: Context, name: str) -> list[IntegrityFinding]:
    try:
        return [IntegrityFinding(**finding) for finding in await calls.fetch_findings(context.clients[name])]
    except Refusal as refusal:
        missing = {"order-service": "I8", "supplier-service": "I9"}[name]
        return [
            IntegrityFinding(
                id=missing, promise=f"unknown: {refusal.detail}", service=name, violations=None, examples=[], took_ms=0
            )
        ]


async def _reserve(context: Context, body: NewReservation, key: RequestKey, actor: Actor) -> Response:
    async def attempt() -> Response:
        return await answer_once(context.database, key, reservations.reserve, actor=actor, request=body)

    try:
        answer = await items.with_known_items(context, lambda: reservations.after_sweeping(context, attempt))
    except InsufficientStock as refusal:
        RESERVATIONS.labels("refused").inc()
        STOCK_OUTS.inc(len(refusal.data["lines"]))
        raise
    RESERVATIONS.labels(_outcome(answer, "held")).inc()
    return answer


def _outcome(answer: Response, first: str) -> str:
    """What an answer is counted as: a replay has happened before."""
    return "replayed" if "Idempotent-Replay" in answer.headers else first


def _prepare(context: Context) -> None:
    async def sweep() -> bool:
        return await context.database.run(reservations.sweep_expired) == reservations.SWEEP_BATCH

    context.background.repeat("sweep expired", sweep, every_s=_SWEEP_EVERY_S)
    consumer = Consumer(context.database, context.clients["product-catalog-service"], items.apply_product_events)
    context.background.repeat("follow catalog", consumer.follow, every_s=0.1)


SERVICE = Service(
    name="inventory-service",
    package="stockade.inventory",
    owns=(
        "warehouses", "locations", "items", "stock", "movements", "reservations", "transfers", "counts", "lots", "serials",
        "valuation", "integrity",
    ),
    routers=(router,),
    prepare=_prepare,
    checks=CHECKS,
)  # fmt: skip
