"""What is not a legal graph is refused, with the number of the node."""

from __future__ import annotations

import pytest
from telegrad import ops
from telegrad.errors import GraphError
from telegrad.ir import Function, Graph, Input, Node, Type, Value, apply, new_input
from telegrad.ir import types as t
from telegrad.ir.verify import MAX_DEPTH, verify, verify_function
from telegrad.ops.control import Checkpoint
from telegrad.ops.elementwise import Add, Exp

VECTOR = Type((3,), t.float32)


def test_a_legal_graph_passes() -> None:
    x = new_input(VECTOR)

    verify(Graph.of([x], [ops.exp(x) + x]))


def test_an_operand_must_stand_before_its_user() -> None:
    x = new_input(VECTOR)
    y = ops.exp(x)
    z = ops.sin(y)

    with pytest.raises(GraphError, match="does not stand before") as caught:
        verify(Graph((x,), (z,), (x.node, z.node, y.node)))

    assert (caught.value.details["node"], caught.value.details["op"]) == (1, "sin")


def test_types_are_inferred_again() -> None:
    x = new_input(VECTOR)
    liar = Node(Exp(), (x,), (Type((4,), t.float32),))

    with pytest.raises(GraphError, match=r"says its types are \(float32\[4\]\); they are \(float32\[3\]\)") as caught:
        verify(Graph((x,), (Value(liar),), (x.node, liar)))

    assert caught.value.details["node"] == 1


def test_what_infer_raises_gets_the_node() -> None:
    x, y = new_input(VECTOR), new_input(Type((4,), t.float32))
    node = Node(Add(), (x, y), (VECTOR,))

    with pytest.raises(t.ShapeError) as caught:
        verify(Graph((x, y), (Value(node),), (x.node, y.node, node)))

    assert caught.value.details == {"node": 2, "op": "add"}


def test_an_output_index_must_exist() -> None:
    x = new_input(VECTOR)
    y = ops.exp(x)
    wrong = Value(y.node)
    wrong.index = 1
    z = Node(Exp(), (wrong,), (VECTOR,))

    with pytest.raises(GraphError, match="uses output 1"):
        verify(Graph((x,), (Value(z),), (x.node, y.node, z)))
    with pytest.raises(GraphError, match="output 0 of the graph"):
        verify(Graph((x,), (wrong,), (x.node, y.node)))


def test_inputs_must_be_listed_once_and_be_inputs() -> None:
    x, y = new_input(VECTOR), new_input(VECTOR)
    z = ops.exp(x)

    with pytest.raises(GraphError, match="does not list"):
        verify(Graph((x,), (x,), (x.node, y.node)))
    with pytest.raises(GraphError, match="twice"):
        verify(Graph((x, x), (x,), (x.node,)))
    with pytest.raises(GraphError, match="no input node"):
        verify(Graph((x, z), (z,), (x.node, z.node)))
    with pytest.raises(GraphError, match="stands in the graph twice"):
        verify(Graph((x,), (x,), (x.node, x.node)))


def test_regions_are_verified_too() -> None:
    inner, outer = new_input(VECTOR), new_input(VECTOR)
    leak = inner + outer  # a region may not see its owner's surroundings
    region = Graph((inner,), (leak,), (inner.node, leak.node))
    node = Node(Checkpoint(), (outer,), (VECTOR,), (region,))

    with pytest.raises(GraphError, match="does not stand before"):
        verify(Graph((outer,), (Value(node),), (outer.node, node)))


def test_regions_nested_too_deep_are_refused_without_recursion() -> None:
    x = new_input(VECTOR)
    region = Graph.of([x], [ops.exp(x)])
    for _ in range(3000):
        x = new_input(VECTOR)
        region = Graph.of([x], apply(Checkpoint(), (x,), (region,)))

    with pytest.raises(GraphError, match=f"more than {MAX_DEPTH} deep"):
        verify(region)


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        (((0, 5),), "not there"),
        (((-1, 0),), "not there"),
        (((0, 0), (0, 0)), "twice"),
        (((1, 0),), r"cannot become float32\[3\]"),
    ],
)
def test_updates_must_fit(updates: tuple[tuple[int, int], ...], message: str) -> None:
    x, y = new_input(VECTOR), new_input(Type((4,), t.float32))

    with pytest.raises(GraphError, match=message):
        verify_function(Function(Graph.of([x, y], [x]), updates))


def test_an_input_of_a_negative_size_is_refused() -> None:
    node = Node(Input((-1,), t.float32), (), (Type((-1,), t.float32),))

    with pytest.raises(GraphError, match="negative size"):
        verify(Graph((Value(node),), (), (node,)))
