"""What is read from pgbench, from /proc and from the tables: the figures behind the statistics."""

import os
import time

import pytest

from bench.errors import BenchError
from bench.footprints import ORDER, RESERVATION
from bench.meters import Meter, Reading, read_memory, usage
from bench.pgbench import measure_log, read_counts

REPORT = """
pgbench (18.6)
number of clients: 64
number of transactions actually processed: 7402
number of failed transactions: 3 (0.040%)
latency average = 3.110 ms
tps = 20576.085929 (without initial connection time)
"""


def log_of(*ends_s: float, time_us: int = 2_000) -> list[str]:
    return [f"0 {place} {time_us} 0 {int(end)} {round(end % 1 * 1e6)}" for place, end in enumerate(ends_s)]


def test_the_counts_of_a_report_are_read():
    assert read_counts(REPORT) == (7402, 3)
    assert read_counts("number of transactions actually processed: 100/100") == (100, 0)


def test_a_log_is_measured_behind_its_warm_up_up_to_its_last_transaction():
    lines = log_of(100.0, 100.25, 100.5, 100.75, 101.0, 101.25, 101.5)
    rate, times_ms = measure_log(lines, warm_up_s=0.5, sampling=1.0)
    assert (rate, times_ms) == (4.0, [2.0] * 4)


def test_a_sampled_log_stands_for_all_of_its_transactions_in_whatever_order_its_threads_wrote():
    lines = log_of(101.0, 100.0, 100.5)
    assert measure_log(lines, warm_up_s=0.0, sampling=0.1)[0] == pytest.approx(20.0)


@pytest.mark.parametrize("lines", [[], log_of(100.0), log_of(100.0, 100.2)])
def test_a_log_that_ends_before_its_warm_up_is_no_measurement(lines: list[str]):
    with pytest.raises(BenchError, match="measure for longer"):
        measure_log(lines, warm_up_s=0.5, sampling=1.0)


def test_cpu_is_told_per_request_and_what_nobody_of_ours_used_is_foreign():
    before = Reading(at=10, busy_s=100, stolen_s=1, product_s=5, postgres_s=7, beside_s=1, client_s=2)
    after = Reading(at=12, busy_s=103.5, stolen_s=1.5, product_s=6, postgres_s=7.5, beside_s=1.2, client_s=2.3)
    assert usage(before, after, count=1_000) == pytest.approx(
        {"product_us": 1_000, "postgres_us": 500, "client_us": 300, "foreign_cores": 0.75, "stolen_cores": 0.25}
    )


def test_a_meter_sees_what_this_process_spends():
    meter = Meter(postgres=os.getpid(), product=(os.getpid(),))
    before = meter.read()
    # By this process's own clock: the client's also counts the children that other tests have had.
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    after = meter.read()
    assert 0.07 <= after.product_s - before.product_s <= 0.2
    assert after.busy_s > before.busy_s
    assert after.at > before.at


def test_memory_is_read_in_mib_and_shared_pages_count_in_parts():
    memory = read_memory([os.getpid()])
    assert 10 < memory.pss_mib <= memory.rss_mib < 2_000


def test_rows_that_are_missing_or_too_many_are_faults():
    before = dict.fromkeys(RESERVATION.rows, 10)
    assert RESERVATION.find_faults(before, dict.fromkeys(RESERVATION.rows, 15), requests=5) == ()
    after = dict.fromkeys(RESERVATION.rows, 15) | {"outbox": 14}
    assert RESERVATION.find_faults(before, after, requests=5) == ("4 new rows in outbox for 5 requests, not 5",)


def test_an_order_leaves_three_lines():
    before = dict.fromkeys(ORDER.rows, 0)
    assert ORDER.find_faults(before, {table: 2 * each for table, each in ORDER.rows.items()}, requests=2) == ()
    assert ORDER.rows["order_lines"] == ORDER.rows["reservation_lines"] == 3
