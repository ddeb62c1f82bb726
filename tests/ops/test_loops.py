"""Scan, Switch and While: values and gradients to second order against central differences, joining and pruning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from telegrad import ops
from telegrad.errors import DTypeError, GraphError, ShapeError, TooExpensive
from telegrad.ir import Function, Graph, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ir.value import apply
from telegrad.ir.verify import verify
from telegrad.ops.control import Checkpoint, Gradient
from telegrad.ops.loops import INDEX, Loop, Scan, Switch, While
from telegrad_server.compiler.limits import Limits, check_cost
from telegrad_server.compiler.pipeline import OPTIMISATIONS, compile_function, optimise
from telegrad_server.executors.array import numpy_executor

from tests.ops.checks import Array, call, check_gradients, generator

N, H = 4, 3
RANDOM = generator("loops")
W, B, X, START = (
    RANDOM.normal(size=(H, H)) / 2,
    RANDOM.normal(size=(H,)),
    RANDOM.normal(size=(N, H)),
    RANDOM.normal(size=(H,)),
)


def region(f: Callable[..., Sequence[Value]], *types: Type) -> Graph:
    xs = [new_input(type) for type in types]
    return Graph.of(xs, f(*xs))


def scanned(
    f: Callable[..., Sequence[Value]], *operands: Value, carries: int, xs: int, length: int = N, reverse: bool = False
) -> tuple[Value, ...]:
    kinds = [v.type for v in operands]
    slices = [Type(k.shape[1:], k.dtype) for k in kinds[carries : carries + xs]]
    body = region(f, INDEX, *kinds[:carries], *slices, *kinds[carries + xs :])
    return Scan(length, carries, xs, reverse).results(*operands, regions=(body,))


def recurrent(i: Value, h: Value, x: Value, w: Value, b: Value) -> list[Value]:
    after = ops.tanh(ops.matmul(h, w) + x * b)
    return [after, ops.sin(after) * x]


def with_a_view_of_a_constant(i: Value, h: Value, x: Value, w: Value, b: Value) -> list[Value]:
    after = ops.tanh(ops.matmul(ops.matrix_transpose(w), h) + x)
    return [after, ops.exp(b) * after]


def with_an_unused_carry_and_the_trip(i: Value, h: Value, x: Value, w: Value, b: Value) -> list[Value]:
    return [h * 0.5, ops.sin(x * ops.astype(i, t.float64)) + ops.sum(w * w) * b]


def whose_carry_is_a_result(i: Value, h: Value, x: Value, w: Value, b: Value) -> list[Value]:
    after = ops.tanh(h * x)
    return [after, after]


def whose_carry_is_a_slice(i: Value, h: Value, x: Value, w: Value, b: Value) -> list[Value]:
    return [x, ops.matmul(h, w)]


def recomputed(i: Value, h: Value, x: Value, w: Value, b: Value) -> list[Value]:
    inner = region(lambda *xs: recurrent(i, *xs), *[v.type for v in (h, x, w, b)])
    return list(Checkpoint().results(h, x, w, b, regions=(inner,)))


def that_scans(i: Value, h: Value, x: Value, w: Value, b: Value) -> list[Value]:
    last, ys = scanned(
        lambda j, c, row, w: [ops.tanh(c * ops.sum(row)) + ops.matmul(w, c) / 3, ops.sin(c)],
        h, w, ops.matrix_transpose(w), carries=1, xs=1, length=H,
    )  # fmt: skip
    return [last, ops.sum(ys, axis=0) * x]


def that_branches(i: Value, h: Value, x: Value, w: Value, b: Value) -> list[Value]:
    types = [v.type for v in (h, x, w)]
    one = region(lambda h, x, w: [ops.tanh(ops.matmul(h, w)) + x], *types)
    two = region(lambda h, x, w: [h * 0.5 + ops.sin(x)], *types)
    (after,) = Switch().results(i % 2, h, x, w, regions=(one, two))
    return [after, after * b]


BODIES = [
    recurrent, with_a_view_of_a_constant, with_an_unused_carry_and_the_trip, whose_carry_is_a_result,
    whose_carry_is_a_slice, recomputed, that_scans, that_branches,
]  # fmt: skip


@pytest.mark.parametrize("reverse", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["forwards", "backwards"])
@pytest.mark.parametrize("body", BODIES, ids=lambda f: f.__name__)
def test_a_scan_and_its_derivatives(body: Callable[..., list[Value]], reverse: bool) -> None:
    def build(h: Value, x: Value, w: Value, b: Value) -> list[Value]:
        return list(scanned(body, h, x, w, b, carries=1, xs=1, reverse=reverse))

    check_gradients(build, [START, X, W, B], name=body.__name__, order=2, tolerance=1e-5)


def unrolled(body: Callable[..., list[Value]], reverse: bool) -> Callable[..., list[Value]]:
    def build(h: Value, x: Value, w: Value, b: Value) -> list[Value]:
        ys: dict[int, Value] = {}
        for i in reversed(range(N)) if reverse else range(N):
            (number,) = apply(ops.elementwise.literal_op(i, t.int64), ())
            h, ys[i] = body(number, h, x[i], w, b)
        return [h, ops.stack([ys[i] for i in range(N)])]

    return build


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("body", BODIES, ids=lambda f: f.__name__)
def test_the_executor_runs_a_scan_and_its_gradient_as_an_unrolled_graph(
    body: Callable[..., list[Value]], reverse: bool
) -> None:
    rolled = run(lambda *xs: _with_gradients(scanned(body, *xs, carries=1, xs=1, reverse=reverse), xs))
    flat = run(lambda *xs: _with_gradients(unrolled(body, reverse)(*xs), xs))

    for a, b in zip(rolled, flat, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def _with_gradients(ys: Sequence[Value], xs: Sequence[Value]) -> list[Value]:
    gs = [ops.cos(y) for y in ys]
    first = Gradient(len(ys)).results(*ys, *gs, *xs)
    second = Gradient(len(xs)).results(*first, *first, *xs)
    return [*ys, *first, *second]


def run(build: Callable[..., list[Value]], without: Sequence[str] = ()) -> list[Array]:
    xs = [new_input(Type(a.shape, t.float64)) for a in (START, X, W, B)]
    graph = Graph.of(xs, build(*xs))
    verify(graph)
    after = optimise(graph, without=without)
    verify(after)
    return _execute(after, [START, X, W, B])


def _execute(graph: Graph, arrays: Sequence[Array]) -> list[Array]:
    executor = numpy_executor(is_poisoned=True)
    return executor.run(compile_function(Function(graph)), [np.ascontiguousarray(a) for a in arrays])


@pytest.mark.parametrize("without", ["join_loops", *(p.name for p in OPTIMISATIONS)])
@pytest.mark.parametrize("body", BODIES, ids=lambda f: f.__name__)
def test_no_pass_changes_a_bit_of_a_loop(body: Callable[..., list[Value]], without: str) -> None:
    def build(*xs: Value) -> list[Value]:
        return _with_gradients(scanned(body, *xs, carries=1, xs=1), xs)

    for a, b in zip(run(build), run(build, without=[without]), strict=True):
        assert a.tobytes() == b.tobytes()


def loops(graph: Graph) -> Counter[str]:
    return Counter(node.op.name for node in graph.nodes if isinstance(node.op, Loop))


def test_the_forward_of_a_gradient_is_the_forward_itself() -> None:
    xs = [new_input(Type(a.shape, t.float64)) for a in (START, X, W, B)]
    last, ys = scanned(recurrent, *xs, carries=1, xs=1)
    first = Gradient(1).results(ys, ys, *xs)
    graph = Graph.of(xs, [last, ys, *first, *Gradient(1).results(first[2], first[2], *xs)])

    after = optimise(graph)

    # forward and backward; for the second order the backwards of the backward, of the forward and of what it saves
    assert loops(after) == {"scan": 5}


def test_a_backward_keeps_no_more_than_it_must_and_sums_products_over_all_trips_at_once() -> None:
    xs = [new_input(Type(a.shape, t.float64)) for a in (START, X, W, B)]

    def body(i: Value, h: Value, x: Value, w: Value, b: Value) -> list[Value]:
        return [ops.tanh(ops.matmul(ops.reshape(h, (1, H)), w)[0] + x), ops.sum(h)]

    last, _ = scanned(body, *xs, carries=1, xs=1)
    graph = optimise(Graph.of(xs, list(Gradient(1).results(last, last, *xs))))

    forward, backward = [node for node in graph.nodes if isinstance(node.op, Loop)]
    inside = Counter(node.op.name for node in backward.regions[0].nodes)
    # it stacks the state before each step for that product, and after it, of which the derivative of tanh is made
    assert [str(type) for type in forward.types] == ["float64[3]", "float64[4,3]", "float64[4,1,3]"]
    assert inside["matmul"] == 1  # that of the state; the weight's gradient is one product outside
    assert (backward.op, Counter(node.op.name for node in graph.nodes)["matmul"]) == (Scan(N, 1, 1, True), 1)


def test_what_nobody_needs_of_a_loop_is_gone() -> None:
    xs = [new_input(Type(a.shape, t.float64)) for a in (START, X, W, B)]

    def body(i: Value, h: Value, k: Value, x: Value, w: Value, b: Value) -> list[Value]:
        return [ops.tanh(h + x), ops.matmul(k, w), ops.sin(h), ops.exp(k) + b]

    _, _, wanted, _ = scanned(body, xs[0], xs[3], xs[1], xs[2], xs[3], carries=2, xs=1)

    (node,) = [n for n in optimise(Graph.of(xs, [wanted])).nodes if isinstance(n.op, Loop)]

    assert node.op == Scan(N, 1, 1)
    assert (len(node.inputs), len(node.types)) == (2, 2)
    assert "matmul" not in Counter(n.op.name for n in node.regions[0].nodes)


def test_pruning_reaches_nested_loops_and_whiles() -> None:
    xs = [new_input(Type(a.shape, t.float64)) for a in (START, X, W, B)]

    def inner(i: Value, a: Value, b: Value, c: Value) -> list[Value]:
        return [a * 0.5, b + ops.sin(c), c * 2]

    def body(i: Value, h: Value, x: Value, w: Value, b: Value) -> list[Value]:
        test = region(lambda i, a, b, c: [ops.sum(a * a) > 0.1], INDEX, *[h.type] * 3)
        turn = region(inner, INDEX, *[h.type] * 3)
        a, unused, c = While(50, 3).results(h, x, b, regions=(test, turn))
        return [a, c * 0 + unused]

    last, _ = scanned(body, *xs, carries=1, xs=1)

    (outer,) = [n for n in optimise(Graph.of(xs, [last])).nodes if isinstance(n.op, Loop)]
    (loop,) = [n for n in outer.regions[0].nodes if isinstance(n.op, Loop)]

    assert (outer.op, loop.op) == (Scan(N, 1, 0), While(50, 1))
    assert "sin" not in Counter(n.op.name for n in loop.regions[1].nodes)


def test_a_switch_and_its_derivatives() -> None:
    one = region(lambda x, y: [ops.sin(x) * y, x], *[Type((3,), t.float64)] * 2)
    two = region(lambda x, y: [ops.exp(x), x + 1], *[Type((3,), t.float64)] * 2)

    for number, expected in ((-3, np.sin(B) * START), (0, np.sin(B) * START), (1, np.exp(B)), (9, np.exp(B))):

        def build(x: Value, y: Value, number: int = number) -> list[Value]:
            return list(Switch().results(x.literal(number, t.int64), x, y, regions=(one, two)))

        np.testing.assert_allclose(call(build, B, START)[0], expected, rtol=1e-14)
        check_gradients(build, [B, START], name="switch", order=2, tolerance=1e-5)


def test_a_while_and_its_derivatives() -> None:
    kind = Type((3,), t.float64)
    test = region(lambda i, x, y: [ops.sum(x * x) < 50], INDEX, kind, kind)
    body = region(lambda i, x, y: [x * 1.5 + ops.sin(y) * ops.astype(i, t.float64)], INDEX, kind, kind)

    def build(x: Value, y: Value) -> list[Value]:
        return [While(12, 1)(ops.exp(x), y * x, regions=(test, body))]

    x, trips = np.exp(B), 0
    while (x * x).sum() < 50:
        x, trips = x * 1.5 + np.sin(START * B) * trips, trips + 1

    assert 2 < trips < 12
    np.testing.assert_allclose(call(build, B, START)[0], x, rtol=1e-13)
    check_gradients(build, [B, START], name="while", order=2, tolerance=1e-5)


VECTOR = Type((3,), t.float64)
BODY = region(lambda i, h, x: [h + x], INDEX, VECTOR, VECTOR)


@pytest.mark.parametrize(
    ("op", "types", "regions", "error", "says"),
    [
        (Scan(4, 1, 1), (VECTOR, Type((5, 3), t.float64)), (BODY,), ShapeError, "first axis must have the length 4"),
        (Scan(4, 1, 1), (VECTOR, Type((), t.float64)), (BODY,), ShapeError, "first axis must have the length 4"),
        (Scan(4, 3, 1), (VECTOR,), (BODY,), GraphError, "do not fit 1 operands"),
        (Scan(-1, 1, 1), (VECTOR, Type((5, 3), t.float64)), (BODY,), GraphError, "-1 trips"),
        (Scan(4, 1, 1), (VECTOR, Type((4, 2), t.float64)), (BODY,), GraphError, "the body takes"),
        (Scan(4, 1, 1), (VECTOR, Type((4, 3), t.float64)), (), GraphError, "owns 1 regions, not 0"),
        (Scan(4, 1, 1), (Type((3,), t.int32), Type((4, 3), t.float64)), (BODY,), GraphError, "the body takes"),
        (
            Scan(4, 1, 0), (VECTOR,), (region(lambda i, h: [ops.sum(h)], INDEX, VECTOR),), GraphError,
            "carry 0 goes in as float64[3] and comes out as float64[]",
        ),
        (Switch(), (VECTOR, VECTOR), (BODY,), DTypeError, "must be an integer or bool scalar"),
        (Switch(), (INDEX, VECTOR), (BODY,), GraphError, "branch 0 takes"),
        (Switch(), (INDEX, VECTOR), (), GraphError, "at least one region"),
        (While(3, 1), (VECTOR,), (BODY, BODY), GraphError, "the condition takes"),
        (
            While(3, 1), (VECTOR,), (region(lambda i, h: [h], INDEX, VECTOR),) * 2, GraphError,
            "must return a bool scalar",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    op: Loop, types: Sequence[Type], regions: tuple[Graph, ...], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says.replace("[", r"\[").replace("]", r"\]").replace("(", r"\(")):
        op.results(*[new_input(type) for type in types], regions=regions)


def test_trips_count_against_the_limits() -> None:
    h = new_input(VECTOR)
    (y,) = scanned(lambda i, h: [h + 1], h, carries=1, xs=0, length=10**9)
    nothing = scanned(lambda i, h: [h], h, carries=1, xs=0, length=2**40)[0]

    assert check_cost(Graph.of([h], [y]), Limits(flops=10**10)) == 4 * 10**9  # three additions and a constant
    with pytest.raises(TooExpensive):
        check_cost(Graph.of([h], [y]), Limits(flops=10**9))
    with pytest.raises(TooExpensive, match="scan is one too many"):
        check_cost(Graph.of([h], [nothing]), Limits())


def test_a_gradient_that_multiplies_with_every_order_is_refused_before_it_is_made() -> None:
    x = new_input(VECTOR)
    y = x
    for _ in range(30):
        z = ops.sin(y) * ops.exp(y)
        (y,) = Gradient(1).results(z, z, x)
    function = Function(Graph.of([x], [y]))

    with pytest.raises(TooExpensive, match="more rules than one function may"):
        compile_function(function, limits=Limits(rules=3_000))


def test_loops_nested_deep_compile_in_no_time() -> None:
    graph = region(lambda i, h: [ops.sin(h) * h], INDEX, VECTOR)
    for _ in range(25):
        i, h = new_input(INDEX), new_input(VECTOR)
        graph = Graph.of([i, h], Scan(1, 1, 0).results(h, regions=(graph,)))
    x = new_input(VECTOR)
    y = graph.inline([x.literal(0, t.int64), x])[0]

    compile_function(Function(Graph.of([x], Gradient(1).results(y, y, x))), limits=Limits(rules=200))


def test_more_trips_than_a_block_of_numbers_holds() -> None:
    for reverse in (False, True):
        h = new_input(Type((), t.int64))
        last, ys = scanned(lambda i, h: [h + i, i], h, carries=1, xs=0, length=10_000, reverse=reverse)
        total, numbers = numpy_executor().run(compile_function(Function(Graph.of([h], [last, ys]))), [np.asarray(0)])

        assert total == 9999 * 5000
        np.testing.assert_array_equal(numbers, np.arange(10_000))


def test_regions_nest_only_so_deep() -> None:
    graph = region(lambda i, h: [h * 2], INDEX, VECTOR)
    for _ in range(40):
        i, h = new_input(INDEX), new_input(VECTOR)
        graph = Graph.of([i, h], Scan(1, 1, 0).results(h, regions=(graph,)))

    with pytest.raises(GraphError, match="more than 32 deep"):
        verify(graph)
