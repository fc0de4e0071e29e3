"""Events: the feed loses nothing and keeps the order, whatever writers do; a consumer applies everything once."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from stockade.kit import events
from stockade.kit.calls import Network, ServiceClient
from stockade.kit.database import Connection, Database
from stockade.kit.events import Consumer, Event, publish, read_events
from stockade.kit.metrics import OUTBOX_LAG
from tests.conftest import PASSWORDS
from tests.kit.probe import Running, Served, make_context, make_settings, running, served
from tests.world import issue_token


@pytest.fixture
async def fresh(database_url: str):
    """A probe on an empty outbox."""
    async with running(make_context(make_settings(database_url, PASSWORDS, database_pool_size=24))) as opened:
        yield opened


async def write(connection: Connection, *, subject: str, number: int = 0, naps: Sequence[float] = (0, 0)) -> None:
    """Take a transaction number, nap, take a position, nap, and then commit."""
    await connection.execute("SELECT pg_current_xact_id()")
    await asyncio.sleep(naps[0])
    await publish(connection, Event("test.written", subject, {"number": number}))
    await asyncio.sleep(naps[1])


async def test_an_event_is_an_envelope_of_cloudevents(fresh: Running):
    await fresh.database.run(write, subject="a", number=7)
    (event,), newest = await read_events(fresh.database, after=0, limit=10)
    assert event["position"] == newest
    assert event["specversion"] == "1.0"
    assert event["source"] == "/probe-service"
    assert (event["type"], event["subject"], event["data"]) == ("test.written", "a", {"number": 7})
    assert {"id", "time", "datacontenttype"} <= set(event)


async def test_an_event_exists_only_when_its_cause_was_committed(fresh: Running):
    async def fail(connection: Connection) -> None:
        await write(connection, subject="lost")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await fresh.database.run(fail)
    await fresh.database.run(write, subject="kept")
    found, _ = await read_events(fresh.database, after=0, limit=10)
    assert [event["subject"] for event in found] == ["kept"]


async def test_events_of_one_call_keep_their_order(fresh: Running):
    async def several(connection: Connection) -> None:
        await publish(connection, *(Event("test.written", f"s{number:03d}", {}) for number in range(300)))

    await fresh.database.run(several)
    found, _ = await read_events(fresh.database, after=0, limit=500)
    assert [event["subject"] for event in found] == [f"s{number:03d}" for number in range(300)]
    positions = [event["position"] for event in found]
    assert positions == sorted(set(positions))


async def test_a_lower_position_that_is_still_open_holds_back_the_higher_ones(fresh: Running):
    slow = asyncio.create_task(fresh.database.run(write, subject="first", naps=(0, 0.4)))
    await asyncio.sleep(0.1)
    await fresh.database.run(write, subject="second")
    found, _ = await read_events(fresh.database, after=0, limit=10)
    assert [event["subject"] for event in found] == ["first", "second"]
    await slow


async def test_a_lower_position_of_a_younger_transaction_holds_back_the_higher_ones(fresh: Running):
    """The transaction with the lower number takes the higher position and ends first."""
    elder = asyncio.create_task(fresh.database.run(write, subject="second", naps=(0.2, 0)))
    await asyncio.sleep(0.05)
    younger = asyncio.create_task(fresh.database.run(write, subject="first", naps=(0, 1)))
    await elder
    assert not younger.done()
    found, newest = await read_events(fresh.database, after=0, limit=10)
    assert [event["subject"] for event in found] in ([], ["first", "second"]), "`first` would never be read"
    await younger
    found, newest = await read_events(fresh.database, after=0, limit=10)
    assert [event["subject"] for event in found] == ["first", "second"]
    assert newest == found[-1]["position"]


async def test_a_transaction_that_never_ends_holds_the_feed_back_for_a_bounded_time(
    fresh: Running, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(events, "_SETTLE_STEPS_MAX", 5)
    slow = asyncio.create_task(fresh.database.run(write, subject="first", naps=(0, 1.5)))
    await asyncio.sleep(0.1)
    await fresh.database.run(write, subject="second")
    found, newest = await read_events(fresh.database, after=0, limit=10)
    assert (found, newest) == ([], 0)
    await slow


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_reader_misses_nothing_and_sees_each_subject_in_order(fresh: Running, seed: int):
    """Forty writers with naps at every step; those of one subject take turns, as verbs do under their locks."""
    luck = random.Random(seed)
    turns = [asyncio.Lock() for _ in range(8)]
    written = [0] * 8

    async def one() -> None:
        subject = luck.randrange(8)
        naps = [luck.choice((0, 0, 0.002, 0.01, 0.03)) for _ in range(3)]

        async def turn(connection: Connection) -> None:
            await connection.execute("SELECT pg_current_xact_id()")
            await asyncio.sleep(naps[0])
            await connection.execute("SELECT pg_advisory_xact_lock($1)", 100 + subject)
            await publish(connection, Event("test.written", str(subject), {"number": written[subject]}))
            written[subject] += 1
            await asyncio.sleep(naps[1])

        async with turns[subject]:
            await fresh.database.run(turn)
        await asyncio.sleep(naps[2])

    async def many() -> None:
        for _ in range(12):
            await one()

    seen: list[dict[str, Any]] = []
    done = asyncio.Event()

    async def read() -> None:
        after = 0
        while True:
            ended = done.is_set()
            found, newest = await read_events(fresh.database, after=after, limit=luck.randint(1, 9))
            assert all(event["position"] <= newest for event in found)
            seen.extend(found)
            if found:
                after = found[-1]["position"]
            elif ended:
                return

    reader = asyncio.create_task(read())
    await asyncio.gather(*(many() for _ in range(14)))
    done.set()
    await asyncio.wait_for(reader, 20)
    assert [event["position"] for event in seen] == sorted({event["position"] for event in seen})
    for subject in range(8):
        numbers = [event["data"]["number"] for event in seen if event["subject"] == str(subject)]
        assert numbers == list(range(written[subject]))
    assert sum(written) == len(seen) == 14 * 12


async def ask_feed(http: Any, **query: Any):
    token = issue_token((), kind="service", permissions=["events:read"])
    return await http.get("/internal/events", params=query, headers={"Authorization": f"Bearer {token}"})


async def test_the_feed_is_for_services_only(fresh: Running):
    for roles in (("admin",), ("manager",), ("auditor",), ("viewer",)):
        headers = {"Authorization": f"Bearer {issue_token(roles)}"}
        assert (await fresh.http.get("/internal/events", headers=headers)).status_code == 403
    assert (await fresh.http.get("/internal/events")).status_code == 401
    assert (await ask_feed(fresh.http)).status_code == 200


@pytest.mark.parametrize(
    "query",
    [{"after": -1}, {"after": "x"}, {"limit": 0}, {"limit": 501}, {"wait_s": 21}, {"wait_s": -1}, {"wait_s": "nan"}],
)
async def test_senseless_questions_are_refused(fresh: Running, query: dict[str, Any]):
    assert (await ask_feed(fresh.http, **query)).status_code == 422


async def test_a_position_beyond_every_event_is_empty(fresh: Running):
    for after in (10**6, 10**30):
        answer = await ask_feed(fresh.http, after=after)
        assert (answer.status_code, answer.json()["events"]) == (200, [])


async def test_a_long_poll_returns_as_soon_as_there_is_something(fresh: Running):
    loop = asyncio.get_running_loop()
    began = loop.time()
    waiting = asyncio.create_task(ask_feed(fresh.http, wait_s=10))
    await asyncio.sleep(0.3)
    await fresh.database.run(write, subject="news")
    answer = await waiting
    assert [event["subject"] for event in answer.json()["events"]] == ["news"]
    assert loop.time() - began < 3


async def test_a_long_poll_ends_when_the_service_drains(database_url: str):
    loop = asyncio.get_running_loop()
    async with served(make_context(make_settings(database_url, PASSWORDS)), drain_delay_s=0.2) as probe:
        waiting = asyncio.create_task(ask_feed(probe.http, wait_s=20))
        await asyncio.sleep(0.3)
        began = loop.time()
        probe.context.lifecycle.stopping.set()
        answer = await waiting
        assert (answer.status_code, answer.json()["events"]) == (200, [])
        assert loop.time() - began < 3
        assert answer.headers["connection"] == "close"


async def test_an_idle_reader_leaves_the_transaction_counter_alone(fresh: Running):
    async def fail(connection: Connection) -> None:
        await write(connection, subject="gap")
        raise RuntimeError("no")

    async def count(connection: Connection) -> int:
        return await connection.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")

    await fresh.database.run(write, subject="last")
    with pytest.raises(RuntimeError):
        await fresh.database.run(fail)  # Its position is taken and never used.
    before = await fresh.database.read(count)
    answer = await ask_feed(fresh.http, after=1, wait_s=1.5)
    assert answer.json()["events"] == []
    assert await fresh.database.read(count) - before <= 4


class Follower:
    """A consumer of the probe's feed, in the schema of the user-service of another database."""

    def __init__(self, database: Database, port: int) -> None:
        async def fetch_token() -> str:
            return issue_token((), kind="service", permissions=["events:read"])

        self.client = ServiceClient(
            service="follower", target="probe-service", transport=Network(f"http://127.0.0.1:{port}"), fetch_token=fetch_token
        )  # fmt: skip
        self.failures = 0
        self.consumer = Consumer(database, self.client, self.apply)

    async def apply(self, connection: Any, batch: Sequence[Mapping[str, Any]]) -> None:
        # The effect of an event is one of the same subject in our own outbox.
        await publish(connection, *(Event("test.applied", event["subject"], event["data"]) for event in batch))
        await asyncio.sleep(0.01)
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the effect fails after it was written")

    async def follow_until(self, database: Database, count: int) -> None:
        for _ in range(200):
            try:
                await asyncio.wait_for(self.consumer.follow(), 5)
            except RuntimeError:
                continue
            if await database.read(count_applied) >= count:
                return
        raise AssertionError("the consumer did not come to the end")


async def begin_at(connection: Connection, *, after: int) -> None:
    """Let the consumer take no notice of what other tests have written."""
    await connection.execute("INSERT INTO feed_cursors (source, position) VALUES ('probe-service', $1)", after)


async def count_applied(connection: Connection) -> int:
    return await connection.fetchval("SELECT count(*) FROM outbox WHERE type = 'test.applied'")


async def list_applied(connection: Connection) -> list[str]:
    rows = await connection.fetch("SELECT subject FROM outbox WHERE type = 'test.applied' ORDER BY position")
    return [row["subject"] for row in rows]


async def test_two_consumers_that_compete_apply_everything_once_and_in_order(
    fresh: Running, served_probe: Served, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(events, "BATCH_MAX", 7)
    subjects = [f"competed {number}" for number in range(60)]
    followers = [Follower(fresh.database, served_probe.port) for _ in range(2)]
    for follower in followers:
        follower.failures = 2
    after = await served_probe.database.read(events._read_newest)
    await fresh.database.run(begin_at, after=after)

    async def produce() -> None:
        for subject in subjects:
            await served_probe.database.run(write, subject=subject)
            await asyncio.sleep(0.005)

    await asyncio.gather(produce(), *(follower.follow_until(fresh.database, len(subjects)) for follower in followers))
    assert await fresh.database.read(list_applied) == subjects
    for follower in followers:
        await follower.client.close()


async def test_positions_that_were_rolled_back_do_not_look_like_a_lag(fresh: Running, served_probe: Served):
    async def fail(connection: Connection) -> None:
        await write(connection, subject="gap")
        raise RuntimeError("no")

    await fresh.database.run(begin_at, after=await served_probe.database.read(events._read_newest))
    await served_probe.database.run(write, subject="last")
    for _ in range(3):
        with pytest.raises(RuntimeError):
            await served_probe.database.run(fail)
    newest = await served_probe.database.read(events._read_newest)
    follower = Follower(fresh.database, served_probe.port)
    await follower.consumer.follow()
    waiting = asyncio.create_task(follower.consumer.follow())
    await asyncio.sleep(0.3)
    served_probe.context.lifecycle.stopping.set()  # Ends the long poll, which finds nothing.
    await waiting
    await follower.client.close()
    assert OUTBOX_LAG.labels("probe-service", "probe-service")._value.get() == 0
    assert await fresh.database.read(list_applied) == ["last"]
    assert await fresh.database.run(events._read_cursor, source="probe-service") == newest
