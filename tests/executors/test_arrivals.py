"""Memory for what arrives: used again when nobody sees it, and never before."""

from __future__ import annotations

from telegrad.ir import Type
from telegrad.ir import types as t
from telegrad_server.executors.arrivals import KEPT_BLOCKS, KEPT_BYTES, KEPT_TYPES, Arrivals

BATCH = Type((128, 784), t.float32)


def address(array: object) -> int:
    return array.ctypes.data  # type: ignore[attr-defined]


def test_a_batch_gets_the_memory_of_one_that_is_gone() -> None:
    arrivals = Arrivals()

    addresses = {address(arrivals.take(BATCH)) for _ in range(5)}

    assert len(addresses) == 1


def test_no_batch_gets_memory_that_somebody_sees() -> None:
    arrivals = Arrivals()
    held = [arrivals.take(BATCH) for _ in range(KEPT_BLOCKS + 3)]
    slice_ = held[0][3:, 5:]
    view = memoryview(held[1])
    seen = {address(array) for array in held}
    assert len(seen) == len(held)
    del held[:2]

    assert address(arrivals.take(BATCH)) not in seen

    start = address(slice_) - (3 * 784 + 5) * 4
    del slice_
    assert address(arrivals.take(BATCH)) == start
    del view


def test_each_has_its_own_shape_and_can_be_written() -> None:
    arrivals = Arrivals()
    first = arrivals.take(BATCH)
    first.flags.writeable = False
    del first

    again = arrivals.take(BATCH)
    again[:] = 1

    assert (again.shape, again.dtype.name) == ((128, 784), "float32")


def test_little_is_kept() -> None:
    arrivals = Arrivals()

    for rows in range(2 * KEPT_TYPES):
        arrivals.take(Type((rows + 1, 64 << 10), t.float32))
    arrivals.take(Type((KEPT_BYTES,), t.uint8))
    arrivals.take(Type((5,), t.uint8))

    assert len(arrivals._known) == KEPT_TYPES  # pyright: ignore[reportPrivateUsage]
