"""When a replica may answer: for one's own writes, for what was seen before, and for a tenant nobody remembers."""

from __future__ import annotations

import math
import time

from hypothesis import given
from hypothesis import strategies as st

from tenantry.databases.postgres.freshness import Contacts, Marks

A, B = object(), object()


def _soon() -> float:
    """Return a moment after all that has happened, and let it pass."""
    time.sleep(0.001)
    moment = time.monotonic()
    time.sleep(0.001)
    return moment


def test_a_replica_is_fresh_as_of_the_last_moment_whose_commits_it_has() -> None:
    marks = Marks()
    for moment, position in ((1.0, 10), (2.0, 10), (3.0, 25)):
        marks.add(moment, position, timeline=1)
    assert [marks.reached(position) for position in (9, 10, 24, 25, 99)] == [-math.inf, 2.0, 2.0, 3.0, 3.0]
    marks.add(4.0, 5, timeline=2)
    assert [marks.reached(position) for position in (4, 5)] == [-math.inf, 4.0]


def test_nothing_from_before_the_start_is_enough() -> None:
    before = time.monotonic()
    contacts = Contacts()
    assert not contacts.allows("acme", A, before)
    assert contacts.allows("acme", A, _soon())


def test_own_writes_are_waited_for_and_nobody_elses() -> None:
    contacts = Contacts()
    before = _soon()
    with contacts.writing("acme"):
        assert not contacts.allows("acme", A, math.inf), "the commit may come at any moment"
    contacts.answered("acme", A)
    assert not contacts.allows("acme", A, before)
    assert contacts.allows("globex", A, before)
    assert contacts.allows("acme", A, _soon())


def test_a_write_of_shared_rows_is_waited_for_by_all() -> None:
    contacts = Contacts()
    before = _soon()
    with contacts.writing(None):
        assert not contacts.allows("acme", A, math.inf)
    assert not contacts.allows("acme", A, before)
    assert contacts.allows("acme", A, _soon())


def test_who_has_read_elsewhere_waits_for_that_moment() -> None:
    contacts = Contacts()
    before = _soon()
    contacts.answered("acme", None)
    assert not contacts.allows("acme", A, before)
    after = _soon()
    assert contacts.allows("acme", A, after)
    contacts.answered("acme", A)
    assert contacts.allows("acme", A, after), "it stays where it is"
    assert not contacts.allows("acme", B, after), "another one, or the same after a crash, may be behind it"
    assert contacts.allows("acme", B, _soon())


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40))
def test_whoever_is_forgotten_is_waited_for_all_the_same(steps: list[tuple[int, bool]]) -> None:
    contacts, last = Contacts(limit=3), dict[int, float]()
    for tenant, writes in steps:
        if writes:
            with contacts.writing(str(tenant)):
                pass
        else:
            contacts.answered(str(tenant), None)
        last[tenant] = time.monotonic()
        assert len(contacts) <= 3
    for tenant, moment in last.items():
        assert not contacts.allows(str(tenant), A, moment - 10)
        assert contacts.allows(str(tenant), A, time.monotonic() + 10)


def test_a_write_under_way_is_never_forgotten() -> None:
    contacts = Contacts(limit=1)
    with contacts.writing("acme"):
        for number in range(5):
            contacts.answered(str(number), None)
        assert not contacts.allows("acme", A, math.inf)
    assert contacts.allows("acme", A, math.inf)
