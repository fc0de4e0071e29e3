"""Routes of the supplier-service."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from stockade.kit.auth import Actor, require
from stockade.kit.context import Context, Ctx, Service
from stockade.kit.etags import IfMatch, tag
from stockade.kit.idempotency import MandatoryKey, OptionalKey, RequestKey, answer_once, find_answer, respond
from stockade.kit.pages import CursorText, Page, PageSize
from stockade.kit.shapes import Code
from stockade.supplier import purchase_orders, receipts, receiving, suppliers
from stockade.supplier.calls import check_skus
from stockade.supplier.checks import CHECKS
from stockade.supplier.shapes import (
    NewPurchaseOrder,
    NewReceipt,
    NewSupplier,
    OrderStatus,
    PurchaseOrder,
    PurchaseOrderHeader,
    Receipt,
    ReceiptHeader,
    Supplier,
    SupplierChange,
    SupplierItem,
    SupplierItems,
)

router = APIRouter(prefix="/api/v1")

_CATALOG = "product-catalog-service"


@router.get("/suppliers", tags=["suppliers"])
async def get_suppliers(
    context: Ctx, limit: PageSize = 100, cursor: CursorText = None, _: Actor = require("suppliers:read")
) -> Page[Supplier]:
    return await context.database.read(suppliers.list_suppliers, limit=limit, cursor=cursor)


@router.post("/suppliers", tags=["suppliers"], status_code=201, response_model=Supplier)
async def post_supplier(
    context: Ctx, body: NewSupplier, key: OptionalKey, actor: Actor = require("suppliers:write")
) -> Response:
    """Make a supplier known."""
    return await answer_once(context.database, key, suppliers.create_supplier, actor=actor, new=body)


@router.get("/suppliers/{supplier_id}", tags=["suppliers"])
async def get_supplier(
    context: Ctx, supplier_id: UUID, response: Response, _: Actor = require("suppliers:read")
) -> Supplier:
    supplier = await context.database.read(suppliers.get_supplier, supplier_id=supplier_id)
    tag(response, supplier.version)
    return supplier


@router.patch("/suppliers/{supplier_id}", tags=["suppliers"])
async def patch_supplier(
    context: Ctx,
    supplier_id: UUID,
    body: SupplierChange,
    response: Response,
    if_match: IfMatch,
    _: Actor = require("suppliers:write"),
) -> Supplier:
    """Change name, address, lead time or tolerance. Orders that exist keep the tolerance that they were made with."""
    supplier = await context.database.run(
        suppliers.change_supplier, supplier_id=supplier_id, change=body, if_match=if_match
    )
    tag(response, supplier.version)
    return supplier


@router.get("/suppliers/{supplier_id}/items", tags=["suppliers"])
async def get_supplier_items(
    context: Ctx,
    supplier_id: UUID,
    limit: PageSize = 100,
    cursor: CursorText = None,
    _: Actor = require("suppliers:read"),
) -> Page[SupplierItem]:
    return await context.database.read(suppliers.list_items, supplier_id=supplier_id, limit=limit, cursor=cursor)


@router.post("/suppliers/{supplier_id}/items", tags=["suppliers"], response_model=SupplierItems)
async def post_supplier_items(
    context: Ctx, supplier_id: UUID, body: SupplierItems, key: OptionalKey, actor: Actor = require("suppliers:write")
) -> Response:
    """Add items to what the supplier offers, or replace them: all of the list or none of it."""
    if replay := await _find_replay(context, key, actor):
        return replay
    suppliers.check_items_differ(body.items)
    skus = [item.sku for item in body.items]
    await check_skus(context.clients[_CATALOG], skus, place="items", active_only=False)
    return await answer_once(
        context.database, key, suppliers.put_items, actor=actor, status=200, supplier_id=supplier_id, items=body.items
    )


@router.get("/purchase-orders", tags=["purchase-orders"])
async def get_purchase_orders(
    context: Ctx,
    status: OrderStatus | None = None,
    supplier: Annotated[Code | None, Query(description="The supplier's code.")] = None,
    limit: PageSize = 100,
    cursor: CursorText = None,
    _: Actor = require("purchase-orders:read"),
) -> Page[PurchaseOrderHeader]:
    """The newest first."""
    return await context.database.read(
        purchase_orders.list_orders, status=status, supplier=supplier, limit=limit, cursor=cursor
    )


@router.post("/purchase-orders", tags=["purchase-orders"], status_code=201, response_model=PurchaseOrder)
async def post_purchase_order(
    context: Ctx, body: NewPurchaseOrder, key: MandatoryKey, actor: Actor = require("purchase-orders:write")
) -> Response:
    """Draft an order."""
    if replay := await _find_replay(context, key, actor):
        return replay
    await check_skus(context.clients[_CATALOG], [line.sku for line in body.lines], place="lines", active_only=True)
    return await answer_once(context.database, key, purchase_orders.create_order, actor=actor, new=body)


@router.get("/purchase-orders/{order_id}", tags=["purchase-orders"])
async def get_purchase_order(
    context: Ctx, order_id: UUID, response: Response, _: Actor = require("purchase-orders:read")
) -> PurchaseOrder:
    order = await context.database.read(purchase_orders.get_order, order_id=order_id)
    tag(response, order.version)
    return order


@router.post("/purchase-orders/{order_id}/submit", tags=["purchase-orders"], response_model=PurchaseOrder)
async def post_submit(
    context: Ctx, order_id: UUID, key: OptionalKey, actor: Actor = require("purchase-orders:write")
) -> Response:
    """Ask for approval of a draft."""
    return await _take_step(context, order_id, key, actor, "submit")


@router.post("/purchase-orders/{order_id}/approve", tags=["purchase-orders"], response_model=PurchaseOrder)
async def post_approve(
    context: Ctx, order_id: UUID, key: OptionalKey, actor: Actor = require("purchase-orders:approve")
) -> Response:
    """Approve a draft, or an order that waits for approval."""
    return await _take_step(context, order_id, key, actor, "approve")


@router.post("/purchase-orders/{order_id}/reject", tags=["purchase-orders"], response_model=PurchaseOrder)
async def post_reject(
    context: Ctx, order_id: UUID, key: OptionalKey, actor: Actor = require("purchase-orders:approve")
) -> Response:
    """Refuse an order that waits for approval."""
    return await _take_step(context, order_id, key, actor, "reject")


@router.post("/purchase-orders/{order_id}/send", tags=["purchase-orders"], response_model=PurchaseOrder)
async def post_send(
    context: Ctx, order_id: UUID, key: OptionalKey, actor: Actor = require("purchase-orders:write")
) -> Response:
    """Note that an approved order went to the supplier; from now on goods may be received."""
    return await _take_step(context, order_id, key, actor, "send")


@router.post("/purchase-orders/{order_id}/cancel", tags=["purchase-orders"], response_model=PurchaseOrder)
async def post_cancel(
    context: Ctx, order_id: UUID, key: OptionalKey, actor: Actor = require("purchase-orders:write")
) -> Response:
    """Call an order off, as long as nothing of it has come."""
    return await _take_step(context, order_id, key, actor, "cancel")


@router.post("/purchase-orders/{order_id}/close", tags=["purchase-orders"], response_model=PurchaseOrder)
async def post_close(
    context: Ctx, order_id: UUID, key: OptionalKey, actor: Actor = require("purchase-orders:write")
) -> Response:
    """Note that nothing more will come."""
    return await _take_step(context, order_id, key, actor, "close")


@router.post("/purchase-orders/{order_id}/receive", tags=["purchase-orders"], status_code=201, response_model=Receipt)
async def post_receive(
    context: Ctx, order_id: UUID, body: NewReceipt, key: MandatoryKey, actor: Actor = require("receipts:write")
) -> Response:
    """Receive goods of a sent order into stock, within the tolerance of each line."""
    return await receiving.receive(context, actor=actor, key=key, order_id=order_id, new=body)


@router.get("/receipts", tags=["receipts"])
async def get_receipts(
    context: Ctx,
    purchase_order_id: UUID | None = None,
    limit: PageSize = 100,
    cursor: CursorText = None,
    _: Actor = require("purchase-orders:read"),
) -> Page[ReceiptHeader]:
    """The newest first."""
    return await context.database.read(receipts.list_receipts, order_id=purchase_order_id, limit=limit, cursor=cursor)


@router.get("/receipts/{receipt_id}", tags=["receipts"])
async def get_receipt(context: Ctx, receipt_id: UUID, _: Actor = require("purchase-orders:read")) -> Receipt:
    return await context.database.read(receipts.get_receipt, receipt_id=receipt_id)


async def _take_step(
    context: Context, order_id: UUID, key: RequestKey | None, actor: Actor, step: purchase_orders.Step
) -> Response:
    return await answer_once(
        context.database, key, purchase_orders.change_status, actor=actor, status=200, order_id=order_id, step=step
    )


async def _find_replay(context: Context, key: RequestKey | None, actor: Actor) -> Response | None:
    """The earlier answer of a key, before another service is asked: a replay must not depend on whether that one is up."""
    found = await context.database.read(find_answer, key, actor=actor) if key else None
    return respond(found, replayed=True) if found else None


def _prepare(context: Context) -> None:
    context.background.repeat("finish receipts", lambda: receiving.finish_receipts(context), every_s=1)


SERVICE = Service(
    name="supplier-service",
    package="stockade.supplier",
    owns=("suppliers", "purchase-orders", "receipts", "replenishment"),
    routers=(router,),
    prepare=_prepare,
    checks=CHECKS,
)
