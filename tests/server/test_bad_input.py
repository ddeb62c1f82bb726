"""Bad input gets one sentence before anything runs, and the session lives on (threat table A01 to A18).

Graphs are written with the real encoder where it can write them, and spoiled on the way where it refuses to.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from telegrad import ops
from telegrad.errors import TelegradError
from telegrad.ir import Function, Graph, Type, Value, apply, new_input
from telegrad.ir import types as t
from telegrad.ops import elementwise as e
from telegrad.ops.elementwise import Iota
from telegrad.ops.reduce import Sum
from telegrad.ops.shape import BroadcastTo, Pad, Reshape
from telegrad.wire import messages as m
from telegrad.wire.codec import encode_function, function_id
from telegrad.wire.v1 import graph_pb2 as pb
from telegrad_server.config import Config
from telegrad_server.executors import pick_executor
from telegrad_server.worker import Worker

from tests.server.test_worker import Client

SMALL = Type((3,), t.float32)
HUGE = 2**40


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker(Config(max_tensor_bytes=1 << 32, max_session_bytes=1 << 33), pick_executor("numpy"))
    worker.start()
    yield worker
    worker.validate()
    worker.stop()


@pytest.fixture
def client(worker: Worker) -> Iterator[Client]:
    client = Client(worker)
    client.put(1, 1, 2, 3)
    yield client
    np.testing.assert_array_equal(client.fetch(1), [1, 2, 3])  # the session lives on, and so does what it held
    worker.close_session(*client.who)


def refused(client: Client, data: bytes, *, inputs: tuple[int, ...] = (1,), immediates: bytes = b"") -> TelegradError:
    """The error of a Run of these bytes."""
    client.worker.supply(client.grant.session_id, function_id(data), data)
    name = 1000 + client.sequence
    client.send(m.Run(function_id(data), inputs, (name,), immediates))
    with pytest.raises(TelegradError) as caught:
        client.fetch(name)
    assert caught.value.reason != "INTERNAL"
    assert "Traceback" not in caught.value.message and "/" not in caught.value.message.replace(" / ", "")
    return caught.value


def written(make: Callable[[Value], Value], type: Type = SMALL) -> bytes:
    x = new_input(type)
    return encode_function(Function(Graph.of([x], [make(x)])))


# ---- shapes (A01 to A06)


def with_sizes(old: int, new: int) -> bytes:
    """A broadcast to [old] whose size has become ``new`` on the way."""
    message = pb.Function.FromString(written(BroadcastTo((old, 3))))
    raw = message.graph.attributes
    message.graph.attributes = raw.replace(old.to_bytes(8, "little"), new.to_bytes(8, "little", signed=True))
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (-1, "SHAPE_NEGATIVE"),
        (-(2**62), "SHAPE_NEGATIVE"),
        (2**60 + 2, "SHAPE_OVERFLOW"),
        (2**63 - 1, "SHAPE_OVERFLOW"),
        (2**59, "SHAPE_OVERFLOW"),
    ],
)
def test_impossible_sizes(client: Client, size: int, reason: str) -> None:
    assert refused(client, with_sizes(77, size)).reason == reason


def test_too_many_axes(client: Client) -> None:
    message = pb.Function.FromString(written(Reshape((1,) * 9 + (3,))))
    raw = message.graph.attributes
    one = b"\x03" + (1).to_bytes(8, "little")
    at = raw.index(b"\x07\x0a\x00")
    message.graph.attributes = raw[:at] + b"\x07\x28\x00" + one * 30 + raw[at + 3 :]
    message.graph.attribute_offsets = message.graph.attribute_offsets[:-4] + len(message.graph.attributes).to_bytes(
        4, "little"
    )

    assert refused(client, message.SerializeToString()).reason == "RANK_LIMIT"


# ---- little in, much out (A04 to A08): refused from the types alone


def ones(x: Value, *shape: int) -> Value:
    return BroadcastTo(shape)(apply(e.Constant(1.0, t.float32), ())[0])


BOMBS: dict[str, Callable[[Value], Value]] = {
    "broadcast": lambda x: BroadcastTo((HUGE, 3))(x),
    "broadcast and add": lambda x: BroadcastTo((HUGE, 3))(x) + x,
    "broadcast and reduce over the small axis": lambda x: Sum((1,))(BroadcastTo((HUGE, 3))(x) * x),
    "outer product": lambda x: ops.reshape(ones(x, 2**20), (-1, 1)) * ops.reshape(ones(x, 2**20), (1, -1)),
    "matmul": lambda x: ops.matmul(ones(x, 2**20, 1), ones(x, 1, 2**20)),
    "pad": lambda x: Pad((0,), (HUGE,))(x),
    "repeat": lambda x: ops.repeat(x, HUGE // 4) + 1,
    "tile": lambda x: ops.tile(x, (HUGE // 4,)) + 1,
    "concat": lambda x: ops.concat([ones(x, 2**30), ones(x, 2**30)]),
    "stack": lambda x: ops.stack([ones(x, 2**30), ones(x, 2**30)]),
    "one hot": lambda x: ops.one_hot(ops.astype(x, t.int64), HUGE),
    "iota": lambda x: apply(Iota((HUGE,), 0, t.float32), ())[0],
    "gather": lambda x: ops.take(x, ops.astype(ones(x, 2**31), t.int64), axis=0),
    "scatter": lambda x: ops.scatter_add(x, ops.astype(x, t.int64), rows=HUGE),
    "zero size with a huge axis, reduced": lambda x: Sum((0,))(ones(x, 0, HUGE)),
    "random": lambda x: _random(HUGE),
    "sort": lambda x: ops.sort(ones(x, HUGE)),
    "cumulative sum": lambda x: ops.cumulative_sum(ones(x, HUGE)),
    "where": lambda x: ops.where(ones(x, HUGE) > 0, 1.0, 0.0),
    "cast": lambda x: ops.astype(ones(x, HUGE), t.float64),
}


def _random(n: int) -> Value:
    from telegrad.ops.random import RandomUniform

    key = BroadcastTo((4,))(apply(e.Constant(1, t.uint32), ())[0])
    return RandomUniform((n,))(key)


@pytest.mark.parametrize("name", BOMBS)
def test_a_little_message_cannot_ask_for_much_memory(client: Client, name: str) -> None:
    error = refused(client, written(BOMBS[name]))

    assert error.reason == "OP_OUTPUT_LIMIT"
    assert "bytes" in error.message


def test_a_product_beyond_all_time_is_refused(client: Client) -> None:
    def power(x: Value) -> Value:
        y = ones(x, 8192, 8192)
        for _ in range(20_000):
            y = ops.matmul(y, y)
        return y

    assert refused(client, written(power)).reason == "OP_COST_LIMIT"


def test_an_empty_axis_beside_a_huge_one_is_no_harm(client: Client) -> None:
    data = written(lambda x: Sum((0, 1))(ones(x, 0, HUGE)) + Sum((0,))(x))
    client.worker.supply(client.grant.session_id, function_id(data), data)
    client.send(m.Run(function_id(data), (1,), (500,)))

    np.testing.assert_array_equal(client.fetch(500), [6])


# ---- ops and attributes (A09 to A11)


def test_an_op_that_is_not_known_is_named(client: Client) -> None:
    message = pb.Function.FromString(written(e.exp))
    message.graph.op_names[list(message.graph.op_names).index("exp")] = "system"

    error = refused(client, message.SerializeToString())

    assert (error.reason, "'system'" in error.message) == ("OP_UNSUPPORTED", True)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"axes", b"axis", "ATTRIBUTE_UNKNOWN"),
        (b"axes", b"__x_", "ATTRIBUTE_UNKNOWN"),
        (b"axes", b"a.b\0", "ATTRIBUTE_INVALID"),
        (b"axes", b"\xff\xff\xff\xff", "ATTRIBUTE_INVALID"),
        (b"\x07\x01\x00\x03", b"\x07\xff\xff\x03", "ATTRIBUTE_INVALID"),
        (b"\x07\x01\x00\x03", b"\x07\x01\x00\x04", "ATTRIBUTE_INVALID"),
        (b"\x03" + bytes(8), b"\x03" + b"\x05" + bytes(7), "AXIS_INVALID"),
        (b"\x03" + bytes(8), b"\x03" + b"\xff" * 8, "AXIS_INVALID"),
    ],
)
def test_attributes_that_cannot_be(client: Client, old: bytes, new: bytes, reason: str) -> None:
    message = pb.Function.FromString(written(Sum((0,))))
    assert old in message.graph.attributes
    message.graph.attributes = message.graph.attributes.replace(old, new)

    assert refused(client, message.SerializeToString()).reason == reason


@pytest.mark.slow
def test_a_graph_that_needs_deep_recursion_is_no_trouble(client: Client) -> None:
    def chain(x: Value) -> Value:
        for _ in range(50_000):
            x = e.Negative()(x)
        return x

    data = written(chain)
    client.worker.supply(client.grant.session_id, function_id(data), data)
    client.send(m.Run(function_id(data), (1,), (600,)))

    np.testing.assert_array_equal(client.fetch(600), [1, 2, 3])


# ---- bytes (A13, A14), numbers (A15 to A17), caches (A18)


@pytest.mark.parametrize("nbytes", [0, 11, 13, 24])
def test_tensor_bytes_of_the_wrong_length(client: Client, nbytes: int) -> None:
    name = 2000 + nbytes
    client.send(m.Put(name, SMALL, bytes(nbytes)))

    with pytest.raises(TelegradError) as caught:
        client.fetch(name)
    assert caught.value.reason == "DATA_LENGTH"


def test_boolean_bytes_other_than_0_and_1_become_1(client: Client) -> None:
    data = written(lambda x: ops.astype(x, t.float32), Type((3,), t.bool_))
    client.worker.supply(client.grant.session_id, function_id(data), data)
    client.send(m.Run(function_id(data), (0,), (700,), bytes([0, 1, 200])))

    np.testing.assert_array_equal(client.fetch(700), [0, 1, 1])


def test_nan_and_infinities_pass_bit_for_bit(client: Client) -> None:
    bits = np.array([0x7FC12345, 0xFF800000, 0x00000001], np.uint32)
    client.send(m.Put(701, SMALL, bits.tobytes()))

    assert client.fetch(701).view(np.uint32).tolist() == bits.tolist()


@pytest.mark.parametrize("index", [3, -4, 2**40])
def test_indices_out_of_range(client: Client, index: int) -> None:
    data = encode_function(
        Function(Graph.of([x := new_input(SMALL), i := new_input(Type((), t.int64))], [ops.take(x, i, axis=0)]))
    )
    error = refused(client, data, inputs=(1, 0), immediates=np.int64(index).tobytes())

    assert error.reason == "INDEX_RANGE"
    assert str(index) in error.message


def test_division_by_zero_is_ieee_and_warns_nobody(client: Client) -> None:
    data = written(lambda x: ops.log(x - 2) + x / (x - 2))
    client.worker.supply(client.grant.session_id, function_id(data), data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client.send(m.Run(function_id(data), (1,), (702,)))
        got = client.fetch(702)

    assert np.isnan(got[0]) and np.isnan(got[1]) and got[2] == 3


def test_functions_are_told_apart_by_all_their_bytes(client: Client) -> None:
    """Graphs that differ in one attribute, one dtype or one constant have different plans."""
    makers: list[Callable[[Value], Any]] = [lambda x, k=k: x * x.literal(k, t.float32) for k in (1.0, 2.0, -0.0, 0.0)]
    ids: set[bytes] = set()
    for k, make in enumerate(makers):
        data = written(make)
        ids.add(function_id(data))
        client.worker.supply(client.grant.session_id, function_id(data), data)
        client.send(m.Run(function_id(data), (1,), (800 + k,)))

    got = [client.fetch(800 + k) for k in range(4)]
    assert len(ids) == 4
    assert [g[0] for g in got] == [1, 2, 0, 0]
    assert [bool(np.signbit(g[0])) for g in got] == [False, False, True, False]


def test_a_flood_of_functions_stays_within_the_cache() -> None:
    worker = Worker(Config(cached_functions=16), pick_executor("numpy"))
    worker.start()
    client = Client(worker)
    client.put(1, 1, 2, 3)
    for k in range(100):
        data = written(lambda x, k=k: x * x.literal(float(k), t.float32))
        worker.supply(client.grant.session_id, function_id(data), data)
        client.send(m.Run(function_id(data), (1,), (10 + k,)))
        client.fetch(10 + k)

    assert len(worker._functions) == 16
    worker.stop()
