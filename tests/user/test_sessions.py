"""Signing in, staying signed in, and being thrown out."""

import pytest

from stockade.user.accounts import BOOTSTRAP, create_account
from stockade.user.passwords import hash_password
from tests.world import World

PASSWORD = "correct horse battery staple"


async def add_account(world: World, email: str = "ann@example.com", roles: tuple[str, ...] = ("viewer",)) -> None:
    password_hash = await hash_password(PASSWORD)
    database = world.context("user-service").database
    await database.run(
        create_account, actor=BOOTSTRAP, email=email, name="Ann", password_hash=password_hash, roles=list(roles)
    )


async def log_in(world: World, password: str = PASSWORD, expect: int = 200):
    return await world.anonymous().post(
        "/auth/login", {"email": "Ann@example.com", "password": password}, expect=expect
    )


async def test_it_signs_in_with_an_address_in_any_case(world: World):
    await add_account(world)
    tokens = await log_in(world)
    me = await world.http.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {tokens['access_token']}"})
    assert me.json()["email"] == "ann@example.com"
    assert tokens["token_type"] == "Bearer"


async def test_it_answers_alike_for_a_wrong_password_and_an_unknown_address(world: World):
    await add_account(world)
    wrong = await log_in(world, "wrong", expect=401)
    unknown = await world.anonymous().post("/auth/login", {"email": "eve@example.com", "password": "wrong"}, expect=401)
    assert wrong["code"] == unknown["code"] == "wrong_credentials"
    assert wrong["detail"] == unknown["detail"]


async def test_it_locks_an_account_after_five_wrong_passwords(world: World):
    await add_account(world)
    for _ in range(5):
        await log_in(world, "wrong", expect=401)
    locked = await log_in(world, PASSWORD, expect=429)
    assert locked["code"] == "account_locked"


async def test_a_refresh_token_works_once_and_a_second_use_ends_the_session(world: World):
    await add_account(world)
    first = (await log_in(world))["refresh_token"]
    second = (await world.anonymous().post("/auth/refresh", {"refresh_token": first}, expect=200))["refresh_token"]
    reused = await world.anonymous().post("/auth/refresh", {"refresh_token": first}, expect=401)
    assert reused["code"] == "invalid_refresh_token"
    await world.anonymous().post("/auth/refresh", {"refresh_token": second}, expect=401)


async def test_logging_out_ends_the_session(world: World):
    await add_account(world)
    token = (await log_in(world))["refresh_token"]
    await world.anonymous().post("/auth/logout", {"refresh_token": token}, expect=204)
    await world.anonymous().post("/auth/refresh", {"refresh_token": token}, expect=401)


async def test_the_last_administrator_cannot_be_lost(world: World):
    await add_account(world, roles=("admin",))
    admin = world.as_("admin")
    account = (await admin.get("/users"))["items"][0]
    refused = await admin.patch(f"/users/{account['id']}", {"roles": ["viewer"]}, if_match='"1"', expect=409)
    assert refused["code"] == "last_administrator"
    assert (await admin.get("/users"))["items"][0]["roles"] == ["admin"]


async def test_a_change_of_a_stale_version_is_refused(world: World):
    await add_account(world)
    admin = world.as_("admin")
    account = (await admin.get("/users"))["items"][0]
    await add_account(world, "root@example.com", ("admin",))
    await admin.patch(f"/users/{account['id']}", {"name": "Anna"}, if_match='"1"')
    await admin.patch(f"/users/{account['id']}", {"name": "Anne"}, if_match='"1"', expect=412)
    missing = await admin.request("PATCH", f"/users/{account['id']}", {"name": "Anne"})
    assert missing.status_code == 428


@pytest.mark.parametrize("role", ["viewer", "sales", "warehouse", "purchasing", "auditor"])
async def test_only_administrators_make_accounts(world: World, role: str):
    body = {"email": "new@example.com", "name": "New", "password": PASSWORD, "roles": ["admin"]}
    refused = await world.as_(role).post("/users", body, expect=403)
    assert refused["needs"] == "users:write"
