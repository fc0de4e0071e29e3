"""Batches: many products at once, each made or changed on its own merits, as if one request had followed the other."""

from collections.abc import Sequence
from typing import Any, cast

from pydantic import ValidationError

from stockade.kit.auth import Actor
from stockade.kit.database import Connection
from stockade.kit.errors import FieldError
from stockade.product_catalog.products import amend_product, begin_product, lock_products, read_now
from stockade.product_catalog.revisions import Revision, lock_references, store_revisions
from stockade.product_catalog.shapes import BatchResult, FieldProblem, NewProduct, Rejected, Written

_ERRORS_MAX = 20


def parse_batch(items: Sequence[object]) -> list[NewProduct | Rejected]:
    """Each item as a product, or what is wrong in it. Of two with the same SKU the later one is wrong."""
    seen: set[str] = set()
    parsed: list[NewProduct | Rejected] = []
    for item in items:
        product = _parse(item)
        if isinstance(product, NewProduct):
            if product.sku in seen:
                product = _reject(product.sku, [_DUPLICATE])
            else:
                seen.add(product.sku)
        parsed.append(product)
    return parsed


async def upsert_products(
    connection: Connection, *, actor: Actor, items: Sequence[NewProduct | Rejected]
) -> BatchResult:
    """Make the products that are new and change the others: a field that is left out stays as it is.

    An item that is refused (`unknown_unit`, `unknown_category`, `not_changeable`, `barcode_taken`) has no effect, and
    the others have theirs. Barcodes change hands in the order of the items. What is so already leaves no trace.
    """
    products = [item for item in items if isinstance(item, NewProduct)]
    present = await lock_products(connection, [product.sku for product in products])
    at = await read_now(connection)
    revisions: dict[str, Revision] = {}
    for product in products:
        before = present.get(product.sku)
        after = amend_product(before, product, at=at) if before else begin_product(product, at=at)
        revisions[product.sku] = Revision(before, after)
    results, accepted = await _judge(connection, items, revisions)
    if accepted:
        await store_revisions(connection, actor=actor, revisions=accepted)
    return BatchResult(results=results)


async def _judge(
    connection: Connection, items: Sequence[NewProduct | Rejected], revisions: dict[str, Revision]
) -> tuple[list[Written | Rejected], list[Revision]]:
    changing = [revision for revision in revisions.values() if revision.changes]
    references = await lock_references(connection, changing)
    results: list[Written | Rejected] = []
    accepted: list[Revision] = []
    for item in items:
        if isinstance(item, Rejected):
            results.append(item)
            continue
        revision = revisions[item.sku]
        if revision.changes:
            if errors := references.find_errors(revision):
                results.append(_reject(item.sku, errors))
                continue
            references.hand_over(revision)
            accepted.append(revision)
        results.append(Written(status=200 if revision.before else 201, sku=item.sku, id=revision.after.id))
    return results, accepted


_DUPLICATE: FieldError = {
    "pointer": "/sku",
    "code": "duplicate",
    "detail": "An earlier product of this request has the same SKU.",
}


def _parse(item: object) -> NewProduct | Rejected:
    try:
        return NewProduct.model_validate(item)
    except ValidationError as error:
        errors = [_field_error(found) for found in error.errors(include_url=False, include_input=False)]
        sku = cast("dict[str, Any]", item).get("sku") if isinstance(item, dict) else None
        is_readable = isinstance(sku, str) and not any(found["pointer"] == "/sku" for found in errors)
        return _reject(sku if is_readable else None, errors[:_ERRORS_MAX])


def _field_error(found: Any) -> FieldError:
    pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in found["loc"])
    return {"pointer": pointer, "code": found["type"], "detail": found["msg"]}


def _reject(sku: str | None, errors: Sequence[FieldError]) -> Rejected:
    return Rejected(sku=sku, errors=[FieldProblem(**error) for error in errors])
