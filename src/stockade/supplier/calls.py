"""The few things that the supplier-service asks of others: which SKUs exist, and to take received goods into stock."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from stockade.kit.calls import ServiceClient
from stockade.kit.errors import FieldError, Invalid, Refusal
from stockade.supplier.shapes import NewReceiptLine, Receipt

_SKUS_A_CALL_MAX = 100  # Keeps the address well under the 8 KiB that proxies commonly accept.
_ERRORS_MAX = 20
_POST_TIMEOUT_S = 8.0

_FINAL_STATUSES = frozenset((409, 413, 422))
_PASSING_CODES = frozenset(("idempotency_key_reused", "occurred_in_future"))


async def check_skus(catalog: ServiceClient, skus: Sequence[str], *, place: str, active_only: bool) -> None:
    """Refuse SKUs that the catalog does not know, with pointers `/{place}/N/sku`; inactive ones as well if so wished."""
    known = await _find_products(catalog, sorted(set(skus)))
    errors: list[FieldError] = []
    for index, sku in enumerate(skus):
        if sku not in known:
            errors.append(_sku_error(place, index, "unknown_sku", f"There is no product with the SKU {sku}."))
        elif active_only and not known[sku]["is_active"]:
            errors.append(_sku_error(place, index, "inactive_sku", f"The product {sku} is not active any more."))
    if errors:
        raise Invalid(errors[0]["detail"], code=errors[0]["code"], errors=errors[:_ERRORS_MAX])


async def post_movement(inventory: ServiceClient, receipt: Receipt) -> UUID:
    """Take a goods receipt into stock; returns the movement's id, the same one however often this is called.

    Raises a refusal of which `is_final` says whether the movement can never be.
    """
    body = {
        "type": "receipt",
        "reference": receipt.number,
        "occurred_at": receipt.received_at.isoformat(),
        "lines": [_movement_line(receipt, index) for index in range(len(receipt.lines))],
    }
    answer = await inventory.post(
        "/api/v1/movements",
        body,
        key=f"receipt-{receipt.id}",
        on_behalf_of=receipt.received_by,
        timeout_s=_POST_TIMEOUT_S,
    )
    return UUID(answer["id"])


def is_final(refusal: Refusal) -> bool:
    """Whether the inventory-service has decided against the movement, and not merely failed to decide.

    An answer about our token, our rate or a route that is not there says nothing about an earlier attempt whose answer
    was lost. A reused key says that the movement exists in other words than this program's, so somebody has to look.
    A time in the future is one that another server's clock has not reached yet.
    """
    return refusal.status in _FINAL_STATUSES and refusal.code not in _PASSING_CODES


def word_for_receiver(refusal: Refusal) -> Refusal:
    """The refusal of a movement in terms of the receive request: lines are the same, their fields are not."""
    return type(refusal)(
        refusal.detail, code=refusal.code, errors=[_translate(e) for e in refusal.errors], **refusal.data
    )


async def _find_products(catalog: ServiceClient, skus: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    products: dict[str, Mapping[str, Any]] = {}
    for start in range(0, len(skus), _SKUS_A_CALL_MAX):
        chunk = skus[start : start + _SKUS_A_CALL_MAX]
        answer = await catalog.get("/internal/products", query={"sku": chunk})
        products.update((product["sku"], product) for product in answer["items"])
    return products


def _sku_error(place: str, index: int, code: str, detail: str) -> FieldError:
    return {"pointer": f"/{place}/{index}/sku", "code": code, "detail": detail}


def _movement_line(receipt: Receipt, index: int) -> dict[str, Any]:
    line = receipt.lines[index].model_dump(mode="json", exclude={"line_id"}, exclude_none=True)
    return line | {"warehouse": receipt.warehouse}


def _translate(error: FieldError) -> FieldError:
    match error["pointer"].split("/"):
        case ["", "lines", index, field]:
            known = field if field in NewReceiptLine.model_fields else "line_id"
            return {**error, "pointer": f"/lines/{index}/{known}"}
        case _:
            return error
