"""Offers of values to other workers, and the commands that make and take them."""

from __future__ import annotations

import pytest
from telegrad.errors import AccessError
from telegrad.wire import messages as m
from telegrad_server.cluster.tickets import Key, Ticket
from telegrad_server.offers import GONE, Offered, Offers

from tests.server.test_sessions import SCALAR, Driver

KEY = Key(b"k" * 32)


def offers(*sessions: str) -> tuple[Offers, list[Offered]]:
    found = Offers(memoryview)
    for session in sessions:
        found.open(session)
    return found, []


def test_an_offer_is_taken_once_before_or_after_it_is_there() -> None:
    found, taken = offers("s")
    found.put("s", Offered("1/1", "early"))
    found.take("s", "1/1", taken.append)
    found.take("s", "1/2", taken.append)
    found.put("s", Offered("1/2", "late"))
    found.take("s", "1/2", taken.append)

    assert [x.value for x in taken] == ["early", "late"]


def test_an_offer_is_the_sessions_own() -> None:
    found, taken = offers("s", "t")
    found.put("s", Offered("1/1", "x"))
    found.take("t", "1/1", taken.append)

    assert taken == []


def test_offers_end_with_their_step_and_with_their_session() -> None:
    found, taken = offers("s")
    found.put("s", Offered("1/1", "x"))
    found.put("s", Offered("2/1", "y"))
    found.take("s", "1/1", taken.append)
    found.take("s", "2/7", taken.append)
    found.put("s", Offered("3/1", "z"))
    assert [(x.key, x.error) for x in taken] == [("1/1", GONE), ("2/7", GONE)]

    found.take("s", "3/2", taken.append)
    found.end("s")
    found.put("s", Offered("3/3", "z"))
    found.take("s", "3/3", taken.append)
    assert [(x.key, x.error) for x in taken[2:]] == [("3/2", GONE), ("3/3", GONE)]


def test_a_session_offers_what_it_has_and_says_why_it_has_it_not() -> None:
    driver = Driver()
    driver.session.is_peers = True
    driver.send(m.Put(1, SCALAR, b"\0" * 4))
    driver.send(m.Offer(1, "1/1"))
    driver.send(m.Offer(2, "1/2"))

    found = [x for x in driver.session.errands if isinstance(x, Offered)]
    assert [x.key for x in found] == ["1/1", "1/2"]
    assert found[0].error is None
    assert found[1].error is not None
    assert found[1].error.reason == "NAME_UNKNOWN"


def test_a_value_that_is_to_come_is_waited_for_and_offered_then() -> None:
    driver = Driver()
    driver.session.is_peers = True
    driver.send(m.Pull(1, SCALAR, "w", "there:1", b"t"))
    driver.send(m.Offer(1, "1/1"))
    assert [type(x) for x in driver.session.errands] == [m.Pull]

    driver.uploaded(1)

    assert [type(x) for x in driver.session.errands] == [m.Pull, Offered]


def test_a_client_can_neither_offer_nor_pull() -> None:
    driver = Driver()
    driver.send(m.Put(1, SCALAR, b"\0" * 4))
    driver.send(m.Offer(1, "1/1"))
    driver.send(m.Pull(2, SCALAR, "w", "there:1", b"t"))

    failed = [e for _, e in driver.session.events.outbox if isinstance(e, m.Failed)]
    assert [e.error.reason for e in failed] == ["ACCESS_DENIED", "ACCESS_DENIED"]
    assert not any(isinstance(x, m.Pull) for x in driver.session.errands)


def test_a_ticket_for_an_offer_says_which_and_is_no_other_ticket() -> None:
    ticket = Ticket("s", "t", "w", "i", offer="3/7")

    found = KEY.read(KEY.sign(ticket))

    assert found == ticket
    assert not found.is_peers
    with pytest.raises(AccessError):
        KEY.read(KEY.sign(ticket)[:-1] + b"8")
