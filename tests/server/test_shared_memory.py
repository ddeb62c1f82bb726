"""Uploads on one machine go through memory that both sides see: when its places are free again, who can reach it."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad.ir import Type
from telegrad.ir import types as t
from telegrad.transport.remote import GrpcConnection
from telegrad.transport.shared_memory import AHEAD_BYTES, SharedMemory, opened
from telegrad.wire import messages as m
from telegrad.wire.shared_memory import FIRST_PLACE, MEMORY_BYTES, ROOM_BYTES, SETTLED, can_share
from telegrad_server.shared_memory import new_memory

from tests.server.test_front import Front, Stream
from tests.server.test_front import front as front
from tests.server.test_front import start as start

pytestmark = pytest.mark.skipif(not can_share(), reason="this machine has no memory to share")

LARGE = Type((32 << 10,), t.float32)


@pytest.fixture
def session(front: Front) -> Iterator[tg.Session]:
    with tg.connect(f"grpc://127.0.0.1:{front.port}", new=True) as session:
        session.synchronize()
        yield session


def memory_of(session: tg.Session) -> SharedMemory:
    connection = session.commands.connection
    assert isinstance(connection, GrpcConnection)
    assert connection.memory is not None
    return connection.memory


def no_stream(*_: Any) -> None:
    raise AssertionError("an upload went on a stream")


# ---- through a server


def test_an_array_is_taken_as_it_is_at_the_call(session: tg.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.commands.connection, "upload", no_stream)
    array = np.arange(100_000, dtype=np.float32).reshape(100, 1000)
    expected = array.T.copy()

    x = tg.asarray(array.T)
    array[:] = -1

    np.testing.assert_array_equal(x.numpy(), expected)


def test_more_than_the_memory_holds_passes_through_it(session: tg.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.commands.connection, "upload", no_stream)
    count = 2 * ROOM_BYTES // (5 << 20)
    total = tg.Variable(0.0)

    @tg.function
    def step(x: tg.Tensor) -> None:
        total.assign(total + x[0] + x[-1])

    for k in range(count):
        step(np.full(5 << 18, k, np.float32))

    assert total.item() == count * (count - 1)


def test_what_is_too_large_for_it_goes_on_a_stream(session: tg.Session) -> None:
    array = np.zeros(ROOM_BYTES + 1, np.uint8)
    array[-1] = 7

    assert tg.asarray(array)[-1].item() == 7


def test_memory_that_cannot_be_opened_is_done_without(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telegrad.transport.remote.opened", lambda *offer: opened(offer[0], offer[1], b"x" * 32))
    array = np.arange(100_000)

    with tg.connect(f"grpc://127.0.0.1:{front.port}", new=True) as session:
        session.synchronize()
        assert session.commands.connection.memory is None
        np.testing.assert_array_equal(tg.asarray(array).numpy(), array)


def test_uploads_take_effect_once_whatever_becomes_of_the_stream(start: Callable[..., Front]) -> None:
    front = start(connection_age_seconds=0.3, connection_grace_seconds=0.1)
    attaches: list[int] = []
    attach = front.worker.attach

    def counted(*args: Any, **more: Any) -> int:
        attaches.append(attach(*args, **more))
        return attaches[-1]

    front.worker.attach = counted  # type: ignore[method-assign]
    with tg.connect(f"grpc://127.0.0.1:{front.port}", new=True):
        total = tg.Variable(0.0)

        @tg.function
        def step(x: tg.Tensor) -> tg.Tensor:
            total.assign(total + x[-1])
            return total * 1

        expected = 0
        while len(attaches) < 4:
            expected += (k := len(attaches) + 1)
            assert step(np.full(LARGE.shape, k, np.float32)).item() == expected


@pytest.mark.parametrize("place", [1, FIRST_PLACE - 64, MEMORY_BYTES - LARGE.nbytes + 1, 2**63])
@pytest.mark.parametrize("wants_memory", [False, True])
def test_a_put_of_bytes_outside_the_memory_fails_and_the_stream_lives_on(
    front: Front, place: int, wants_memory: bool
) -> None:
    grant = front.open()
    line = Stream(front, grant)
    if wants_memory:
        assert front.worker.share_memory(grant.session_id) is not None

    line.send(1, m.Put(1, LARGE, b"", place=place))
    line.send(2, m.Put(2, Type((), t.float32), b"\0\0\0\0"))
    line.send(3, m.Fetch(2))

    failed, fetched = line.next(), line.next()
    assert (failed.sequence, failed.error.reason) == (1, "DATA_LENGTH")
    assert fetched.sequence == 3
    line.end()


def test_the_memory_is_gone_with_its_session(front: Front) -> None:
    with tg.connect(f"grpc://127.0.0.1:{front.port}", new=True) as session:
        session.synchronize()
        (seat,) = front.worker._seats.values()  # pyright: ignore[reportPrivateUsage]
        assert seat.memory is not None
        where = seat.memory.pid, seat.memory.file, seat.memory.token
        assert opened(*where) is not None
        assert opened(*where[:2], b"x" * 32) is None

    assert opened(*where) is None


def test_a_client_cannot_take_pages_away() -> None:
    memory = new_memory()
    assert memory is not None
    file = os.open(f"/proc/{memory.pid}/fd/{memory.file}", os.O_RDWR)

    for size in (0, 2 * MEMORY_BYTES):
        with pytest.raises(PermissionError):
            os.ftruncate(file, size)

    os.close(file)
    memory.close()


# ---- the client's side alone


class Both:
    """A client's memory, whose server settles when it is told to, and looks whether bytes have been overwritten."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, MEMORY_BYTES)
        self.client = SharedMemory(self.memory)
        self.under_way: list[tuple[int, int, int]] = []
        self.sequence = 0

    def put(self, nbytes: int) -> bool:
        """Whether there was room."""
        fill = self.sequence % 251 + 1
        place = self.client.place(memoryview(bytes([fill]) * nbytes))
        if place:
            self.sequence += 1
            self.client.sent(self.sequence)
            self.under_way.append((place, nbytes, fill))
        return place > 0

    def settle(self) -> None:
        """The oldest is read."""
        place, nbytes, fill = self.under_way.pop(0)
        assert self.memory[place : place + nbytes] == bytes([fill]) * nbytes
        self.memory[SETTLED : SETTLED + 8] = (self.sequence - len(self.under_way)).to_bytes(8, "little")


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_overwritten_before_it_is_settled(seed: int) -> None:
    rng = np.random.default_rng(seed)
    both = Both()

    for _ in range(400):
        if rng.random() < 0.6:
            both.put(int(rng.integers(1, 6 << 20)))
        elif both.under_way:
            both.settle()

    while both.under_way:
        both.settle()
    assert both.put(ROOM_BYTES)


def test_a_client_is_not_far_ahead_but_two_tensors_always_fit_if_the_memory_holds_them() -> None:
    both = Both()

    while both.put(1 << 20):
        pass
    assert len(both.under_way) == AHEAD_BYTES >> 20

    while both.under_way:
        both.settle()
    assert both.put(ROOM_BYTES // 2)
    assert both.put(ROOM_BYTES // 2)
    assert not both.put(1)


def test_who_finds_no_room_waits_for_half_of_what_is_under_way() -> None:
    both = Both()
    while both.put(4 << 20):
        pass
    assert len(both.under_way) == 4
    settling = threading.Thread(target=lambda: [both.settle() for _ in range(2)])

    settling.start()
    while len(both.under_way) > 2:  # a wait is not for long
        both.client.wait()
    settling.join()

    assert both.put(4 << 20)
