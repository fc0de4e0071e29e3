"""The same story against every topology that runs on one machine."""

import httpx2

from tests.conftest import ServerThread
from tests.e2e.processes import ADMIN_EMAIL, ADMIN_PASSWORD, everything_up, five_processes, passable_directory
from tests.e2e.story import Shop, live_through_a_day


async def test_a_day_in_one_process():
    with passable_directory() as directory:
        async with everything_up(directory / "data") as (url, _), httpx2.AsyncClient(base_url=url, timeout=30) as http:
            shop = Shop(http)
            await shop.sign_in(ADMIN_EMAIL, ADMIN_PASSWORD)
            await live_through_a_day(shop)


async def test_a_day_in_five_processes_behind_a_proxy(bare_postgres: ServerThread):
    with passable_directory() as directory:
        async with (
            five_processes(bare_postgres.server.url, directory) as fleet,
            httpx2.AsyncClient(base_url=fleet.url, timeout=30) as http,
        ):
            shop = Shop(http)
            await shop.sign_in(ADMIN_EMAIL, ADMIN_PASSWORD)
            await live_through_a_day(shop)
