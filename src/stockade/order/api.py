"""Routes of the order-service."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from stockade.kit.auth import Actor, require
from stockade.kit.context import Context, Ctx, Service
from stockade.kit.etags import IfMatch, tag
from stockade.kit.idempotency import MandatoryKey, OptionalKey, answer_once
from stockade.kit.pages import CursorText, Page, PageSize
from stockade.kit.shapes import Code
from stockade.order import customers, lines, orders, return_saga, returns, shipment_saga, shipments
from stockade.order.checks import CHECKS
from stockade.order.recovery import finish_open_sagas
from stockade.order.shapes import (
    Customer,
    CustomerChange,
    NewCustomer,
    NewOrder,
    NewReturn,
    NewShipment,
    Order,
    OrderStatus,
    OrderSummary,
    Return,
    Shipment,
)

router = APIRouter(prefix="/api/v1")


@router.post("/customers", tags=["customers"], status_code=201, response_model=Customer)
async def post_customer(
    context: Ctx, body: NewCustomer, key: OptionalKey, actor: Actor = require("customers:write")
) -> Response:
    """Add a customer."""
    return await answer_once(context.database, key, customers.create_customer, actor=actor, customer=body)


@router.get("/customers", tags=["customers"])
async def get_customers(
    context: Ctx, limit: PageSize = 100, cursor: CursorText = None, _: Actor = require("customers:read")
) -> Page[Customer]:
    """Customers by code."""
    return await context.database.read(customers.list_customers, limit=limit, cursor=cursor)


@router.get("/customers/{customer_id}", tags=["customers"])
async def get_customer(
    context: Ctx, customer_id: UUID, response: Response, _: Actor = require("customers:read")
) -> Customer:
    customer = await context.database.read(customers.get_customer, customer_id=customer_id)
    tag(response, customer.version)
    return customer


@router.patch("/customers/{customer_id}", tags=["customers"])
async def patch_customer(
    context: Ctx,
    customer_id: UUID,
    body: CustomerChange,
    response: Response,
    if_match: IfMatch,
    _: Actor = require("customers:write"),
) -> Customer:
    """Change name, e-mail or postal address."""
    customer = await context.database.run(
        customers.change_customer, customer_id=customer_id, change=body, if_match=if_match
    )
    tag(response, customer.version)
    return customer


@router.post("/orders", tags=["orders"], status_code=201, response_model=Order)
async def post_order(
    context: Ctx, body: NewOrder, key: MandatoryKey, actor: Actor = require("orders:write")
) -> Response:
    """Place an order and allocate stock to it: all of it, what is there, or none of it yet."""
    return await orders.place_order(context, actor=actor, key=key, order=body)


@router.get("/orders", tags=["orders"])
async def get_orders(
    context: Ctx,
    limit: PageSize = 100,
    cursor: CursorText = None,
    status: OrderStatus | None = None,
    customer: Annotated[Code | None, Query()] = None,
    _: Actor = require("orders:read"),
) -> Page[OrderSummary]:
    """Orders without their lines, the newest first."""
    return await context.database.read(orders.list_orders, limit=limit, cursor=cursor, status=status, customer=customer)


@router.get("/orders/{order_id}", tags=["orders"])
async def get_order(context: Ctx, order_id: UUID, response: Response, _: Actor = require("orders:read")) -> Order:
    order = await context.database.read(lines.get_order, order_id=order_id)
    tag(response, order.version)
    return order


@router.post("/orders/{order_id}/ship", tags=["orders"], status_code=201, response_model=Shipment)
async def post_ship(
    context: Ctx,
    order_id: UUID,
    key: MandatoryKey,
    body: NewShipment | None = None,
    actor: Actor = require("orders:ship"),
) -> Response:
    """Ship what is named, or everything that is allocated."""
    return await shipment_saga.ship(context, actor=actor, key=key, order_id=order_id, shipment=body)


@router.post("/orders/{order_id}/cancel", tags=["orders"], response_model=Order)
async def post_cancel(
    context: Ctx, order_id: UUID, key: OptionalKey, actor: Actor = require("orders:write")
) -> Response:
    """Cancel what is not shipped and give its stock back."""
    return await orders.cancel(context, actor=actor, key=key, order_id=order_id)


@router.post("/orders/{order_id}/allocate", tags=["orders"], response_model=Order)
async def post_allocate(
    context: Ctx, order_id: UUID, key: OptionalKey, actor: Actor = require("orders:write")
) -> Response:
    """Try to allocate what is back-ordered, as far as stock goes."""
    return await orders.allocate_back_orders(context, actor=actor, key=key, order_id=order_id)


@router.get("/shipments", tags=["shipments"])
async def get_shipments(
    context: Ctx,
    limit: PageSize = 100,
    cursor: CursorText = None,
    order_id: UUID | None = None,
    _: Actor = require("orders:read"),
) -> Page[Shipment]:
    """Shipments, the newest first."""
    return await context.database.read(shipments.list_shipments, limit=limit, cursor=cursor, order_id=order_id)


@router.get("/shipments/{shipment_id}", tags=["shipments"])
async def get_shipment(context: Ctx, shipment_id: UUID, _: Actor = require("orders:read")) -> Shipment:
    return await context.database.read(shipments.get_shipment, shipment_id=shipment_id)


@router.post("/returns", tags=["returns"], status_code=201, response_model=Return)
async def post_return(
    context: Ctx, body: NewReturn, key: MandatoryKey, actor: Actor = require("returns:write")
) -> Response:
    """Take shipped goods back into stock, line by line with what becomes of them."""
    return await return_saga.take_back(context, actor=actor, key=key, new=body)


@router.get("/returns", tags=["returns"])
async def get_returns(
    context: Ctx,
    limit: PageSize = 100,
    cursor: CursorText = None,
    order_id: UUID | None = None,
    _: Actor = require("orders:read"),
) -> Page[Return]:
    """Returns, the newest first."""
    return await context.database.read(returns.list_returns, limit=limit, cursor=cursor, order_id=order_id)


@router.get("/returns/{return_id}", tags=["returns"])
async def get_return(context: Ctx, return_id: UUID, _: Actor = require("orders:read")) -> Return:
    return await context.database.read(returns.get_return, return_id=return_id)


def _prepare(context: Context) -> None:
    context.background.repeat("finish open sagas", lambda: finish_open_sagas(context), every_s=1)


SERVICE = Service(
    name="order-service",
    package="stockade.order",
    owns=("customers", "orders", "shipments", "returns"),
    routers=(router,),
    prepare=_prepare,
    checks=CHECKS,
)
