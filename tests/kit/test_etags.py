"""If-Match: nobody overwrites what they have not seen."""

import pytest

from stockade.kit.errors import Stale
from stockade.kit.etags import check_version
from tests.inventory.stocked import stock
from tests.world import World


@pytest.mark.parametrize("if_match", ['"3"', 'W/"3"', '"1", "3"', '"1","2" , W/"3"', "*", ' "3" '])
def test_the_version_that_was_read_may_be_changed(if_match: str):
    check_version(if_match, 3)


@pytest.mark.parametrize("if_match", ['"2"', "3", '"33"', '"3', "", '""', "null", '"W/3"', '"1", "2"', "'3'"])
def test_another_version_may_not(if_match: str):
    with pytest.raises(Stale) as caught:
        check_version(if_match, 3)
    assert caught.value.data["current"] == '"3"'


async def test_what_people_edit_tells_its_version_and_demands_it_back(world: World):
    api = await stock(world, "1")
    read = await api.request("GET", "/warehouses/MAIN")
    assert read.headers["etag"] == '"1"'
    changed = await api.request("PATCH", "/warehouses/MAIN", {"name": "M"}, headers={"If-Match": read.headers["etag"]})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    stale = await api.request("PATCH", "/warehouses/MAIN", {"name": "N"}, headers={"If-Match": read.headers["etag"]})
    assert (stale.status_code, stale.json()["code"], stale.json()["current"]) == (412, "stale_version", '"2"')
    missing = await api.request("PATCH", "/warehouses/MAIN", {"name": "N"})
    assert (missing.status_code, missing.json()["code"]) == (428, "if_match_required")
    endless = await api.request("PATCH", "/warehouses/MAIN", {"name": "N"}, headers={"If-Match": '"' + "1" * 200 + '"'})
    assert endless.status_code == 422
    assert (await api.get("/warehouses/MAIN"))["name"] == "M"
