"""The requests of each row as bytes, made with as little work as possible: all but key and SKU is put together once."""

import json
import random
from collections.abc import Sequence

from bench.load import MakeRequest

WAREHOUSE = "BENCH"
HOT_NUMBER = 1
"""The number of the SKU that everybody wants."""
ORDER_LINES = 3

_SKU_DIGITS = 6
_KEY_BITS = 144
_EXPIRES_IN_S = 86_400


def sku_of(number: int) -> str:
    """The SKU of a number from 1; all have the same length, so that all requests of a kind do."""
    return f"B-{number:0{_SKU_DIGITS}d}"


def reserve_one(token: str, *, skus: int | None, seed: int) -> MakeRequest:
    """`POST /reservations` of one unit: of the hot SKU, or of a random one of `skus`."""
    line = {"sku": "%b", "warehouse": WAREHOUSE, "quantity": "1"}
    # A hold must outlive the longest run, or the sweeper would work beside the load.
    template = _post("/reservations", token, {"expires_in_s": _EXPIRES_IN_S, "lines": [line]}, slots=1)
    draw = random.Random(seed).random
    keys = random.Random().getrandbits

    def make() -> bytes:
        number = HOT_NUMBER if skus is None else 1 + int(draw() * skus)
        return template % (keys(_KEY_BITS), b"B-%06d" % number)

    return make


def read_stock(token: str, *, skus: int, seed: int) -> MakeRequest:
    """`GET /stock` of a random SKU in the one warehouse."""
    target = f"/api/v1/stock?sku=B-%06d&warehouse={WAREHOUSE}"
    template = f"GET {target} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    draw = random.Random(seed).random
    return lambda: template % (1 + int(draw() * skus))


def place_order(token: str, *, skus: int, seed: int) -> MakeRequest:
    """`POST /orders` of three different random SKUs, allocated whole."""
    lines = [{"sku": "%b", "quantity": "1"}] * ORDER_LINES
    template = _post("/orders", token, {"warehouse": WAREHOUSE, "allocate": "all", "lines": lines}, slots=ORDER_LINES)
    generator = random.Random(seed)
    keys = random.Random().getrandbits

    def make() -> bytes:
        numbers = draw_numbers(generator, skus)
        return template % (keys(_KEY_BITS), *(b"B-%06d" % number for number in numbers))

    return make


def draw_numbers(generator: random.Random, skus: int) -> Sequence[int]:
    """Three different numbers, drawn as the reference draws them: a start and a stride that cannot wrap onto it."""
    start, stride = generator.randrange(skus), generator.randint(1, (skus - 1) // ORDER_LINES)
    return [(start + place * stride) % skus + 1 for place in range(ORDER_LINES)]


def _post(path: str, token: str, body: object, *, slots: int) -> bytes:
    """A request with a slot for its Idempotency-Key and `slots` slots for SKUs."""
    text = json.dumps(body, separators=(",", ":"))
    length = len(text) + slots * (len(sku_of(1)) - len("%b"))
    head = (
        f"POST /api/v1{path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\nIdempotency-Key: %036x\r\n\r\n"
    )
    return (head + text).encode()
