"""Routes of the product-catalog-service."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from stockade.kit.auth import Actor, require
from stockade.kit.context import Ctx, Service
from stockade.kit.etags import IfMatch, tag
from stockade.kit.idempotency import OptionalKey, answer_once
from stockade.kit.pages import CursorText, Page, PageSize
from stockade.kit.shapes import Code
from stockade.product_catalog import batches, categories, products, revisions, units
from stockade.product_catalog.shapes import (
    LOOKUP_MAX,
    BatchResult,
    Category,
    Change,
    NewCategory,
    NewProduct,
    Product,
    ProductBatch,
    ProductChange,
    ProductEntries,
    Unit,
)

router = APIRouter(prefix="/api/v1")
internal = APIRouter(include_in_schema=False)


@router.post("/products", tags=["products"], status_code=201, response_model=Product)
async def post_product(
    context: Ctx, body: NewProduct, key: OptionalKey, actor: Actor = require("products:write")
) -> Response:
    """Make a product; it can be used in stock at once."""
    return await answer_once(context.database, key, products.create_product, actor=actor, product=body)


@router.post("/products/bulk", tags=["products"], response_model=BatchResult)
async def post_products(
    context: Ctx, body: ProductBatch, key: OptionalKey, actor: Actor = require("products:write")
) -> Response:
    """Make or change many products by SKU; each one has an outcome of its own."""
    items = batches.parse_batch(body.products)
    return await answer_once(context.database, key, batches.upsert_products, actor=actor, status=200, items=items)


@router.get("/products", tags=["products"])
async def get_products(
    context: Ctx,
    q: Annotated[
        str | None, Query(min_length=1, max_length=200, description="What a SKU or words of a name begin with.")
    ] = None,
    category: Annotated[Code | None, Query(description="Products of this category and of those below it.")] = None,
    is_active: bool | None = None,
    limit: PageSize = 100,
    cursor: CursorText = None,
    _: Actor = require("products:read"),
) -> Page[Product]:
    """Products by SKU."""
    return await context.database.read(
        products.list_products, words=q, category=category, is_active=is_active, limit=limit, cursor=cursor
    )


# A SKU may have slashes, so the address below it comes first; no SKU ends like it.
@router.get("/products/{sku:path}/history", tags=["products"])
async def get_product_history(
    context: Ctx, sku: str, limit: PageSize = 100, cursor: CursorText = None, _: Actor = require("products:read")
) -> Page[Change]:
    """Who changed what of a product, and when; the newest change first."""
    return await context.database.read(revisions.list_changes, sku=sku, limit=limit, cursor=cursor)


@router.get("/products/{sku:path}", tags=["products"])
async def get_product(context: Ctx, sku: str, response: Response, _: Actor = require("products:read")) -> Product:
    product = await context.database.read(products.get_product, sku=sku)
    tag(response, product.version)
    return product


@router.patch("/products/{sku:path}", tags=["products"])
async def patch_product(
    context: Ctx,
    sku: str,
    body: ProductChange,
    response: Response,
    if_match: IfMatch,
    actor: Actor = require("products:write"),
) -> Product:
    """Change a product: what is given replaces what is, null empties, what is left out stays."""
    product = await context.database.run(products.change_product, actor=actor, sku=sku, change=body, if_match=if_match)
    tag(response, product.version)
    return product


@router.get("/barcodes/{code:path}", tags=["barcodes"])
async def get_barcode(context: Ctx, code: str, response: Response, _: Actor = require("products:read")) -> Product:
    """The product of a barcode; a GTIN is found in each of its lengths."""
    product = await context.database.read(products.get_product_by_barcode, code=code)
    tag(response, product.version)
    return product


@router.post("/categories", tags=["categories"], status_code=201, response_model=Category)
async def post_category(
    context: Ctx, body: NewCategory, key: OptionalKey, actor: Actor = require("products:write")
) -> Response:
    """Make a category, below another one or at the top."""
    return await answer_once(context.database, key, categories.create_category, actor=actor, category=body)


@router.get("/categories", tags=["categories"])
async def get_categories(
    context: Ctx, limit: PageSize = 100, cursor: CursorText = None, _: Actor = require("products:read")
) -> Page[Category]:
    """Categories by code."""
    return await context.database.read(categories.list_categories, limit=limit, cursor=cursor)


@router.get("/units", tags=["units"])
async def get_units(context: Ctx, _: Actor = require("products:read")) -> Page[Unit]:
    """The units in which products can be counted, with their UN/ECE codes."""
    return await context.database.read(units.list_units)


@internal.get("/internal/products")
async def get_product_entries(
    context: Ctx,
    sku: Annotated[list[Code], Query(min_length=1, max_length=LOOKUP_MAX)],
    _: Actor = require("products:read"),
) -> ProductEntries:
    return await context.database.read(products.list_entries, skus=sku)


SERVICE = Service(
    name="product-catalog-service",
    package="stockade.product_catalog",
    owns=("products", "categories", "units", "barcodes", "product-imports"),
    routers=(router, internal),
)
