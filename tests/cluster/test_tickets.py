"""Tickets and leases: what cannot be forged, and what stops in time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telegrad.errors import AccessError
from telegrad_server.cluster.lease import MARGIN_SECONDS, Lease
from telegrad_server.cluster.tickets import Key, Ticket

KEY = Key(b"k" * 32)
WORD = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)


@given(WORD, WORD, WORD, WORD)
def test_a_ticket_says_what_was_signed(session: str, tenant: str, worker: str, incarnation: str) -> None:
    ticket = Ticket(session, tenant, worker, incarnation)

    assert KEY.read(KEY.sign(ticket)) == ticket


@given(st.integers(0, 60), st.integers(1, 255))
def test_a_ticket_that_was_changed_is_refused(position: int, flip: int) -> None:
    data = bytearray(KEY.sign(Ticket("s", "alice", "worker-1", "abcdef")))
    data[position % len(data)] ^= flip

    with pytest.raises(AccessError, match="not signed by this cluster"):
        KEY.read(bytes(data))


@given(st.binary(max_size=80))
def test_bytes_that_are_no_ticket_are_refused(data: bytes) -> None:
    with pytest.raises(AccessError):
        KEY.read(data)


def test_another_clusters_ticket_and_words_that_would_shift_are_refused() -> None:
    with pytest.raises(AccessError):
        Key(b"x" * 32).read(KEY.sign(Ticket("s", "t", "w", "i")))
    with pytest.raises(AccessError, match="null character"):
        KEY.sign(Ticket("s", "t\0w", "w", "i"))


def test_a_key_file_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "key"
    for text, match in (("zz", "hexadecimal"), ("abcd", "16 bytes")):
        file.write_text(text)
        with pytest.raises(AccessError, match=match):
            Key.from_file(str(file))
    with pytest.raises(AccessError, match="cannot be read"):
        Key.from_file(str(tmp_path / "none"))


def test_a_lease_is_counted_from_when_it_was_asked_for() -> None:
    now = 0.0
    lease = Lease(clock=lambda: now)
    assert not lease.is_running

    lease.renew(asked_at=0.0, seconds=10)  # answered at once or after nine seconds: the same
    now = 10 - 2 * MARGIN_SECONDS
    assert lease.is_running
    now = 10 - MARGIN_SECONDS / 2
    assert not lease.is_running
    lease.renew(asked_at=9, seconds=10)
    assert lease.is_running
    lease.end()
    assert not lease.is_running and not lease.wait()


def test_who_waits_for_a_lease_goes_on_when_it_runs_again() -> None:
    lease, outcome = Lease(), list[bool]()
    waiting = threading.Thread(target=lambda: outcome.append(lease.wait()))
    waiting.start()

    lease.renew(asked_at=1e9, seconds=10)
    waiting.join(10)

    assert outcome == [True]
