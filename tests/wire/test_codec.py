"""Functions to bytes and back, and every way in which the bytes can be wrong."""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
import pytest
from telegrad.errors import GraphError, ShapeError, TelegradError, UnknownOp
from telegrad.ir import Function, Graph, Replication, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ir.verify import verify_function
from telegrad.ops import elementwise as e
from telegrad.ops.control import Checkpoint, CustomVjp, Gradient
from telegrad.ops.replicas import AllReduce, ReplicaIndex
from telegrad.ops.shape import BroadcastTo, Reshape
from telegrad.wire.codec import decode_function, encode_function, function_id, nodes_in_order
from telegrad.wire.v1 import graph_pb2 as pb


def random_function(seed: int, size: int = 40) -> Function:
    """A function of float32[2,3] values with a region, a gradient and an update here and there."""
    rng = random.Random(seed)
    inputs = [new_input(Type((2, 3), t.float32)) for _ in range(rng.randint(1, 4))]
    values: list[Value] = list(inputs)
    for _ in range(size):
        x, y = rng.choice(values), rng.choice(values)
        pick = rng.randrange(8)
        if pick == 0:
            p = new_input(x.type)
            (z,) = Checkpoint().results(x, regions=(Graph.of([p], [e.exp(p) * 2.0]),))
        elif pick == 1:
            z = Gradient(1).results(x, y, rng.choice(inputs))[0]
        elif pick == 2:
            z = Reshape((2, 3))(Reshape((3, 2))(x))
        else:
            z = rng.choice([e.add, e.multiply, e.maximum, e.subtract])(x, y)
        values.append(z)
    outputs = rng.sample(values, 3)
    return Function(Graph.of(inputs, outputs), ((0, 1),))


def replicated_function(seed: int, *, is_even: bool = False) -> Function:
    """A data-parallel function of a split input, results with rows and without, a reduction and an update."""
    rng = random.Random(seed)
    replicas = rng.randint(2, 4)
    most = rng.randint(2, 5)
    rows = replicas * most - (0 if is_even else rng.randint(1, replicas - 1))

    def graph(own: int, seed: int) -> Graph:
        rng = random.Random(seed)
        x, w = new_input(Type((own, 9), t.float32)), new_input(Type((9,), t.float32))
        value = x
        for _ in range(rng.randint(1, 10)):
            value = rng.choice([e.add, e.multiply, e.maximum])(value, w)
        index = e.astype(x.bind(ReplicaIndex(), ())[0], t.float32)
        reduced = AllReduce("mean")(w * index)
        return Graph.of([x, w], [value + index, reduced, reduced * 2.0])

    rest = None if is_even else graph(most - 1, seed)
    return Function(graph(most, seed), ((1, 2),), Replication(replicas, rows, (0,), (0,), rest))


def shape_of(graph: Graph) -> list[object]:
    """What two equal graphs share, without object identities."""
    numbers = {id(node): i for i, node in enumerate(graph.nodes)}
    return [
        (
            node.op,
            [(numbers[id(v.node)], v.index) for v in node.inputs],
            node.types,
            [shape_of(r) for r in node.regions],
        )
        for node in graph.nodes
    ] + [[(numbers[id(v.node)], v.index) for v in graph.outputs]]


def parts(function: Function | None = None) -> pb.Function:
    return pb.Function.FromString(encode_function(function or random_function(11)))


def u32(*numbers: int) -> bytes:
    return np.array(numbers, dtype="<u4").tobytes()


@pytest.mark.parametrize("seed", range(50))
def test_a_function_survives_the_way_to_bytes_and_back(seed: int) -> None:
    function = random_function(seed)

    data = encode_function(function)
    again = decode_function(data)

    assert shape_of(again.graph) == shape_of(function.graph)
    assert again.updates == function.updates
    assert encode_function(again) == data


@pytest.mark.parametrize("is_even", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_a_data_parallel_function_survives_the_way_to_bytes_and_back(seed: int, is_even: bool) -> None:
    function = replicated_function(seed, is_even=is_even)

    data = encode_function(function)
    again = decode_function(data)

    one, two = function.replication, again.replication
    assert one is not None and two is not None
    assert shape_of(again.graph) == shape_of(function.graph)
    assert (one.replicas, one.rows, one.split_inputs, one.row_outputs) == (
        two.replicas,
        two.rows,
        two.split_inputs,
        two.row_outputs,
    )
    assert (one.rest is None) == (two.rest is None) == is_even
    if one.rest is not None and two.rest is not None:
        assert shape_of(one.rest) == shape_of(two.rest)
        numbers = [node.origin.node for graph in (again.graph, two.rest) for node in nodes_in_order(graph)]
        assert numbers == list(range(len(numbers)))
    verify_function(again)
    assert encode_function(again) == data


def with_replication(**fields: Any) -> bytes:
    message = parts(replicated_function(3))
    for name, value in fields.items():
        if value is None:
            message.replication.ClearField(name)
        else:
            setattr(message.replication, name, value)
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param({"replicas": 0}, "0 replicas", id="no replicas"),
        pytest.param({"replicas": 2**31}, "2147483648 replicas", id="too many replicas"),
        pytest.param({"rows": 0}, "0 rows", id="no rows"),
        pytest.param({"rows": 2**60}, "rows on", id="too many rows"),
        pytest.param({"rows": 1000}, "must have the", id="other rows"),
        pytest.param({"split_inputs": b""}, "no input is split", id="nothing split"),
        pytest.param({"split_inputs": u32(0, 0)}, "inputs with rows are", id="split twice"),
        pytest.param({"split_inputs": u32(9)}, "inputs with rows are", id="no such input"),
        pytest.param({"split_inputs": u32(1)}, "must have the", id="an input without rows"),
        pytest.param({"split_inputs": b"abc"}, "not made of 32-bit", id="odd bytes"),
        pytest.param({"row_outputs": u32(7)}, "results with rows are", id="no such result"),
        pytest.param({"row_outputs": u32(1)}, "must have the", id="a result without rows"),
        pytest.param({"row_outputs": u32(0, 2)}, "must have the|not the same on all", id="an update with rows"),
        pytest.param({"rest": None}, "need 2 graphs", id="a graph is missing"),
    ],
)
def test_a_replication_that_does_not_fit_is_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(GraphError, match=words) as caught:
        decode_function(with_replication(**data))

    assert caught.value.reason in ("REPLICATION_INVALID", "GRAPH_COLUMNS")


def test_a_second_graph_that_is_another_function_is_refused() -> None:
    function = replicated_function(3)
    assert function.replication is not None and function.replication.rest is not None
    message = parts(function)
    message.replication.rest.CopyFrom(message.graph)
    with pytest.raises(GraphError, match="do not fit each other"):
        decode_function(message.SerializeToString())

    own = function.replication.rest
    x, w = own.inputs
    other = Graph.of([x, w], [own.outputs[0], w, w])
    with pytest.raises(GraphError, match="do not reduce the same"):
        decode_function(encode_function(replace_rest(function, other)))


def replace_rest(function: Function, rest: Graph) -> Function:
    how = function.replication
    assert how is not None
    return Function(
        function.graph,
        function.updates,
        Replication(how.replicas, how.rows, how.split_inputs, how.row_outputs, rest),
    )


def test_both_graphs_count_towards_the_limit() -> None:
    function = replicated_function(3)
    nodes = len(nodes_in_order(function.graph))

    with pytest.raises(GraphError, match="are taken") as caught:
        decode_function(encode_function(function), max_nodes=2 * nodes - 1)

    assert caught.value.reason == "GRAPH_SIZE"


def test_equal_programs_have_equal_ids() -> None:
    assert function_id(encode_function(random_function(7))) == function_id(encode_function(random_function(7)))
    assert function_id(encode_function(random_function(7))) != function_id(encode_function(random_function(8)))


def test_nodes_know_their_number_in_the_clients_graph() -> None:
    function = decode_function(encode_function(random_function(3)))

    order = nodes_in_order(function.graph)
    assert [node.origin.node for node in order] == list(range(len(order)))
    assert len(order) > len(function.graph.nodes), "nodes of regions count"


@pytest.mark.parametrize("value", [0.1, -0.0, float("inf"), float("nan"), 3, 2**63, True])
def test_constants_keep_their_bits(value: float) -> None:
    dtype = t.bool_ if value is True else t.uint64 if isinstance(value, int) else t.float64
    x = new_input(Type((), dtype))
    node = decode_function(encode_function(Function(Graph.of([], [x.literal(value, dtype)])))).graph.nodes[0]

    assert repr(node.op) == repr(e.Constant(value, dtype))


def spoil(field: str, data: bytes) -> bytes:
    message = parts()
    setattr(message.graph, field, data)
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"\xff\xff\xff", "MALFORMED_MESSAGE", id="no message"),
        pytest.param(spoil("nodes", b"\0\0\0"), "GRAPH_COLUMNS", id="a column of odd bytes"),
        pytest.param(spoil("operand_offsets", u32(0)), "GRAPH_COLUMNS", id="too few offsets"),
        pytest.param(spoil("region_offsets", b""), "GRAPH_COLUMNS", id="no region"),
        pytest.param(spoil("kinds", b""), "GRAPH_DANGLING", id="no kinds"),
        pytest.param(spoil("attributes", b"\x05abc"), "GRAPH_COLUMNS", id="attributes cut short"),
        pytest.param(spoil("operand_outputs", u32(1, 2)), "GRAPH_COLUMNS", id="outputs of the wrong length"),
        pytest.param(spoil("region_owners", u32(0)), "GRAPH_COLUMNS", id="half a pair"),
    ],
)
def test_broken_columns_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(GraphError) as caught:
        decode_function(data)

    assert caught.value.reason == reason


def test_a_cycle_cannot_be_written_down() -> None:
    message = parts()
    operands = np.frombuffer(message.graph.operands, "<u4").copy()
    operands[:] = 2**31
    message.graph.operands = operands.tobytes()

    with pytest.raises(GraphError, match="does not stand before it"):
        decode_function(message.SerializeToString())


def test_an_unknown_op_is_named() -> None:
    message = parts()
    message.graph.op_names[:] = ["launch_missiles"] * len(message.graph.op_names)

    with pytest.raises(UnknownOp, match="launch_missiles"):
        decode_function(message.SerializeToString())


def test_types_are_inferred_again_and_errors_name_the_node() -> None:
    x, y = new_input(Type((2, 3), t.float32)), new_input(Type((3, 2), t.float32))
    message = parts(Function(Graph.of([x, y], [e.add(x, x)])))
    message.graph.operands = u32(0, 1)

    with pytest.raises(ShapeError, match="axis") as caught:
        decode_function(message.SerializeToString())

    assert caught.value.details["node"] == 2


def test_a_shape_whose_size_overflows_is_refused() -> None:
    x = new_input(Type((1,), t.float32))
    message = parts(Function(Graph.of([x], [BroadcastTo((5,))(x)])))
    message.graph.attributes = message.graph.attributes.replace(
        (5).to_bytes(8, "little"), (2**62).to_bytes(8, "little")
    )

    with pytest.raises(ShapeError) as caught:
        decode_function(message.SerializeToString())

    assert caught.value.reason == "SHAPE_OVERFLOW"


def test_an_update_must_keep_the_variables_type() -> None:
    x = new_input(Type((2,), t.float32))
    data = encode_function(Function(Graph.of([x], [Reshape((2, 1))(x)]), ((0, 0),)))

    with pytest.raises(GraphError, match="cannot become"):
        decode_function(data)


def test_a_custom_rule_with_the_wrong_types_is_refused() -> None:
    x, p, q = (new_input(Type((2,), t.float32)) for _ in range(3))
    forward = Graph.of([p], [p])
    backward = Graph.of([q], [Reshape((2, 1))(q)])

    with pytest.raises(GraphError, match="backward rule"):
        CustomVjp(1)(x, regions=(forward, backward))


@pytest.mark.parametrize("seed", range(200))
def test_flipped_bytes_never_raise_anything_but_our_errors(seed: int) -> None:
    rng = random.Random(seed)
    made = random_function(seed % 10, size=10) if seed % 2 else replicated_function(seed)
    data = bytearray(encode_function(made))
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] = rng.randrange(256)

    try:
        verify_function(decode_function(bytes(data)))
    except TelegradError as error:
        assert error.reason != "INTERNAL"


def test_a_million_nodes_are_checked_by_columns_before_any_object_is_made() -> None:
    n = 1_000_000
    message = pb.Function(
        graph=pb.Graph(
            version=1,
            op_names=["negative"],
            kinds=u32(0),
            attribute_offsets=u32(0, 1),
            attributes=b"\0",
            nodes=np.zeros(n, "<u4").tobytes(),
            operand_offsets=np.arange(n + 1, dtype="<u4").tobytes(),
            operands=np.r_[np.arange(n - 1), n].astype("<u4").tobytes(),  # the last one points forward
            region_offsets=u32(0, n),
            result_offsets=u32(0, 1),
            results=u32(0),
        )
    )
    data = message.SerializeToString()

    start = time.perf_counter()
    with pytest.raises(GraphError):
        decode_function(data)

    assert time.perf_counter() - start < 2.0


def test_too_many_nodes_are_refused() -> None:
    with pytest.raises(GraphError, match="at most 10") as caught:
        decode_function(encode_function(random_function(1)), max_nodes=10)

    assert caught.value.reason == "GRAPH_SIZE"
