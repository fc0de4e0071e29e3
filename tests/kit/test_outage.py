"""PostgreSQL goes away and comes back: every kind of route says so, and nothing has to be restarted."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stockade.local import without_credentials
from stockade.postgres import OWNER_ROLE, PostgresServer, bootstrap, role_of
from stockade.targets import SCHEMAS, SERVICES, migrate
from tests.conftest import PASSWORDS, ServerThread
from tests.inventory.stocked import check_integrity, level, stock
from tests.world import Api, World

DATABASE = "stockade"


@dataclass
class Power:
    """A PostgreSQL of this module's own, which can be switched off and on."""

    thread: ServerThread
    directory: Path

    def off(self) -> None:
        self.thread.call(self.thread.server.stop)

    def on(self) -> None:
        self.thread.server = self.thread.call(lambda: PostgresServer.start(self.directory, durable=False))


@pytest.fixture(scope="module")
def power() -> Generator[Power]:
    directory = Path(tempfile.mkdtemp(prefix="stockade-tests-"))
    directory.chmod(0o711)
    thread = ServerThread(directory)
    try:
        yield Power(thread, directory)
    finally:
        thread.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
async def own_world(power: Power) -> AsyncGenerator[World]:
    """All services on the PostgreSQL that can be switched off."""

    async def prepare() -> str:
        url = power.thread.server.url
        await bootstrap(url, database=DATABASE, schemas=SCHEMAS, passwords=PASSWORDS)
        address = without_credentials(url, DATABASE)
        await migrate(SERVICES, url=address, user=OWNER_ROLE, password=PASSWORDS[OWNER_ROLE], role_of=role_of)
        return address

    async with World.open(power.thread.call(prepare), PASSWORDS, admin_url=power.thread.server.url) as opened:
        yield opened


LINE = {"sku": "A-1", "warehouse": "MAIN", "quantity": "1"}
NOBODY = "0190a000-0000-7000-8000-000000000000"
ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/warehouses", None),
    ("GET", "/warehouses/MAIN", None),
    ("GET", "/stock?sku=A-1", None),
    ("GET", "/stock/A-1", None),
    ("GET", "/movements", None),
    ("GET", f"/movements/{NOBODY}", None),
    ("GET", f"/reservations/{NOBODY}", None),
    ("GET", "/integrity", None),
    ("PATCH", "/warehouses/MAIN", {"name": "Main"}),
    ("POST", "/warehouses", {"code": "W", "name": "W"}),
    ("POST", "/movements", {"type": "receipt", "lines": [LINE]}),
    ("POST", f"/movements/{NOBODY}/reverse", None),
    ("POST", "/reservations", {"lines": [LINE]}),
    ("POST", f"/reservations/{NOBODY}/confirm", None),
    ("POST", f"/reservations/{NOBODY}/release", None),
    ("POST", f"/reservations/{NOBODY}/consume", {"lines": [{"line": 1, "quantity": "1"}]}),
    ("GET", "/users", None),
    ("POST", "/auth/login", {"email": "ann@example.com", "password": "x"}),
    ("POST", "/auth/refresh", {"refresh_token": "x" * 40}),
    ("GET", "/products", None),
    ("POST", "/products", {"sku": "B-1", "name": "B", "unit": "each"}),
]


async def ask(api: Api, method: str, path: str, body: Any) -> Any:
    return await asyncio.wait_for(api.request(method, path, body, headers={"If-Match": '"1"'}), 20)


async def test_every_kind_of_route_says_when_to_come_back_and_all_of_it_recovers(own_world: World, power: Power):
    admin = own_world.as_("admin")
    api = await stock(own_world, "10")
    await admin.get("/users")
    power.off()
    try:
        for method, path, body in ROUTES:
            answer = await ask(admin, method, path, body)
            assert answer.status_code == 503, (method, path, answer.text)
            assert answer.headers["content-type"] == "application/problem+json", (method, path)
            assert int(answer.headers["retry-after"]) >= 1, (method, path)
            assert answer.json()["code"] == "database_unavailable", (method, path)
        bulk = await admin.request("POST", "/reservations/bulk", {"reservations": [{"key": "k", "lines": [LINE]}]})
        assert bulk.json()["results"][0]["problem"]["code"] == "database_unavailable"
        ready = await own_world.http.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["reasons"]["inventory-service"] == "the database is not reachable"
        assert (await own_world.http.get("/health")).status_code == 200
        assert (await own_world.http.get("/metrics")).status_code == 200
        assert (await own_world.http.get("/.well-known/jwks.json")).status_code == 200
    finally:
        power.on()
    assert (await own_world.http.get("/health/ready")).status_code == 200
    for method, path, body in ROUTES:
        answer = await ask(admin, method, path, body)
        assert answer.status_code < 500, (method, path, answer.text)
    assert (await level(api))["on_hand"] == "11"


async def test_what_is_retried_with_its_key_happens_once_whenever_the_database_fails(own_world: World, power: Power):
    """Clients send each movement until it is answered, while the server is stopped and started under them."""
    api = own_world.as_("manager")
    before = int((await level(api))["on_hand"])
    refused = [0]
    sent = asyncio.Event()

    async def send(number: int) -> str:
        body = {"type": "receipt", "reference": f"OUTAGE-{number}", "lines": [LINE]}
        for _ in range(200):
            answer = await api.request("POST", "/movements", body, key=f"outage-{number}")
            if answer.status_code == 201:
                sent.set()
                return answer.json()["id"]
            assert answer.status_code == 503, answer.text
            refused[0] += 1
            await asyncio.sleep(0.1)
        raise AssertionError("the database never came back")

    async def worker(numbers: range) -> list[str]:
        return [await send(number) for number in numbers]

    working = [asyncio.create_task(worker(range(start, 160, 8))) for start in range(8)]
    await sent.wait()
    await asyncio.to_thread(power.off)
    await asyncio.sleep(0.2)
    await asyncio.to_thread(power.on)
    found = [identifier for numbers in await asyncio.gather(*working) for identifier in numbers]
    assert len(set(found)) == 160
    assert refused[0] > 0, "the database was never away"
    assert int((await level(api))["on_hand"]) == before + 160
    await check_integrity(own_world)


async def test_background_work_goes_on_after_an_outage(own_world: World, power: Power):
    api = own_world.as_("manager")
    power.off()
    await asyncio.sleep(0.3)
    power.on()
    held = await api.post("/reservations", {"expires_in_s": 1, "lines": [LINE]})
    for _ in range(100):
        await asyncio.sleep(0.2)
        if (await api.get(f"/reservations/{held['id']}"))["status"] == "expired":
            return
    raise AssertionError("nobody sweeps any more")
