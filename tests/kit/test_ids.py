"""Identifiers: UUID version 7, and each greater than the one before."""

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from uuid import RFC_4122

from stockade.kit.ids import uuid7


def test_a_hundred_thousand_ids_are_of_version_7_and_increase():
    made = [uuid7() for _ in range(100_000)]
    assert all(first < second for first, second in pairwise(made))
    assert {(one.version, one.variant) for one in made} == {(7, RFC_4122)}


def test_their_text_and_bytes_sort_as_they_were_made():
    made = [uuid7() for _ in range(10_000)]
    assert sorted(made, key=str) == made == sorted(made, key=lambda one: one.bytes)


def test_threads_never_make_the_same_and_each_sees_its_own_increase():
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda _: [uuid7() for _ in range(5_000)], range(8)))
    assert len({one for batch in batches for one in batch}) == 40_000
    for batch in batches:
        assert all(first < second for first, second in pairwise(batch))


def test_an_id_tells_the_millisecond_of_its_making():
    before = time.time_ns() // 1_000_000
    made = uuid7().int >> 80
    # A burst of ids within a millisecond may run into the next one; it never runs far.
    assert before <= made <= time.time_ns() // 1_000_000 + 1


def test_ids_are_not_guessed_from_their_neighbours():
    low_bits = {uuid7().int & 0xFFFFFFFF for _ in _each_in_its_own_millisecond(20)}
    assert len(low_bits) == 20


def _each_in_its_own_millisecond(count: int):
    for number in range(count):
        time.sleep(0.002)
        yield number
