"""Layers on graphs: against loops over nodes and edges in NumPy, central differences, and what must not matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn, optim

F = nn.functional
Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)

NODES, FEATURES, WIDTH = 6, 3, 4
EDGES = np.array([[0, 1, 2, 3, 1, 1, 4, 2, 2], [1, 0, 1, 1, 0, 0, 4, 2, 3]])  # doubled, loops; 5 stands alone
X = RNG.normal(size=(NODES, FEATURES))
WEIGHTS = RNG.uniform(0.5, 2.0, size=EDGES.shape[1])
ATTRIBUTES = RNG.normal(size=(EDGES.shape[1], 2))


@pytest.fixture(autouse=True)
def _session() -> Any:
    with tg.connect(backend="numpy", new=True) as session:
        yield session


def _close(a: Any, b: Any, what: str = "") -> None:
    assert a.shape == b.shape, what
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12, err_msg=what)


def _random_state(module: nn.Module) -> dict[str, Array]:
    state = {name: RNG.normal(size=x.shape) for name, x in module.state_dict().items()}
    module.load_state_dict(state)
    return state


def _linear(x: Array, state: dict[str, Array], name: str) -> Array:
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0.0)


def _softmax(x: Array) -> Array:
    found = np.exp(x - x.max(axis=0))
    return found / found.sum(axis=0)


def _leaky(x: Array) -> Array:
    return np.where(x > 0, x, 0.2 * x)


# ---- the formulas, by node and by edge


def gcn(s: dict[str, Array], weights: Array, *, improved: bool = False) -> Array:
    """By the dense matrices of the paper."""
    a = np.zeros((NODES, NODES))
    loops = np.full(NODES, 2.0 if improved else 1.0)
    for w, (j, i) in zip(weights, EDGES.T, strict=True):
        if i == j:
            loops[i] = w
        else:
            a[i, j] += w
    a += np.diag(loops)
    root = np.diag(a.sum(axis=1) ** -0.5)
    return root @ a @ root @ X @ s["lin.weight"].T + s["bias"]


def _neighbours(i: int) -> Array:
    return EDGES[0][EDGES[1] == i]


def _joined(join: Callable[..., Array], x: Array = X) -> Array:
    return np.stack([join(x[_neighbours(i)], axis=0) if len(_neighbours(i)) else np.zeros(x.shape[1]) for i in
                     range(NODES)])  # fmt: skip


def graph_conv(s: dict[str, Array], join: Callable[..., Array], weights: Array | None = None) -> Array:
    out = _joined(join)
    if weights is not None:
        out = np.zeros((NODES, FEATURES))
        for w, (j, i) in zip(weights, EDGES.T, strict=True):
            out[i] += w * X[j]
    return _linear(out, s, "lin_rel") + _linear(X, s, "lin_root")


def sage(s: dict[str, Array], join: Callable[..., Array]) -> Array:
    projected = np.maximum(_linear(X, s, "lin"), 0)
    out = _linear(_joined(join, projected), s, "lin_l") + _linear(X, s, "lin_r")
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def _with_loops(attributes: Array, fill: float | str) -> tuple[Array, Array]:
    kept = EDGES[0] != EDGES[1]
    loops = np.zeros((NODES, attributes.shape[1]))
    for i in range(NODES):
        here = attributes[kept & (EDGES[1] == i)]
        if fill == "mean":
            loops[i] = here.mean(axis=0) if len(here) else 0
        else:
            loops[i] = here.sum(axis=0) if fill == "add" else fill
    both = np.concatenate([EDGES[:, kept], np.stack([np.arange(NODES)] * 2)], axis=1)
    return both, np.concatenate([attributes[kept], loops])


def _attended(edges: Array, scores: Array, values: Array, concat: bool = True) -> Array:
    """scores[edges, heads], values[edges, heads, out]."""
    out = np.zeros((NODES, *values.shape[1:]))
    for i in range(NODES):
        here = edges[1] == i
        if here.any():
            out[i] = (_softmax(scores[here])[:, :, None] * values[here]).sum(axis=0)
    return out.reshape(NODES, -1) if concat else out.mean(axis=1)


def gat(s: dict[str, Array], attributes: Array, fill: float | str, concat: bool) -> Array:
    edges, attributes = _with_loops(attributes, fill)
    h, e = (_linear(x, s, n).reshape(len(x), 2, WIDTH) for x, n in ((X, "lin"), (attributes, "lin_edge")))
    parts = (h[edges[0]] * s["att_src"], h[edges[1]] * s["att_dst"], e * s["att_edge"])
    scores = _leaky(sum(part.sum(axis=2) for part in parts))
    return _attended(edges, scores, h[edges[0]], concat) + _linear(X, s, "res") + s["bias"]


def gat_v2(s: dict[str, Array], attributes: Array, fill: float | str, concat: bool) -> Array:
    edges, attributes = _with_loops(attributes, fill)
    left, right = (_linear(X, s, n).reshape(NODES, 2, WIDTH) for n in ("lin_l", "lin_r"))
    e = _linear(attributes, s, "lin_edge").reshape(len(attributes), 2, WIDTH)
    scores = (_leaky(left[edges[0]] + right[edges[1]] + e) * s["att"]).sum(axis=2)
    return _attended(edges, scores, left[edges[0]], concat) + _linear(X, s, "res") + s["bias"]


def transformer(s: dict[str, Array], attributes: Array, concat: bool) -> Array:
    q, k, v = (_linear(X, s, f"lin_{n}").reshape(NODES, 2, WIDTH) for n in ("query", "key", "value"))
    e = _linear(attributes, s, "lin_edge").reshape(len(attributes), 2, WIDTH)
    scores = (q[EDGES[1]] * (k[EDGES[0]] + e)).sum(axis=2) / np.sqrt(WIDTH)
    out, own = _attended(EDGES, scores, v[EDGES[0]] + e, concat), _linear(X, s, "lin_skip")
    gate = 1 / (1 + np.exp(-_linear(np.concatenate([out, own, out - own], axis=1), s, "lin_beta")))
    return gate * own + (1 - gate) * out


def mpnn(s: dict[str, Array], attributes: Array) -> Array:
    out = np.zeros((NODES, WIDTH))
    for e, (j, i) in zip(attributes, EDGES.T, strict=True):
        out[i] += np.tanh(_linear(np.concatenate([X[i], X[j], e]), s, "message_nn.0"))
    return _linear(np.concatenate([X, out], axis=1), s, "update_nn")


def gin(s: dict[str, Array]) -> Array:
    return _linear(_joined(np.sum) + (1 + s["eps"]) * X, s, "nn")


D = tg.float64
MEAN, MOST, LEAST, SUM = np.mean, np.max, np.min, np.sum
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[Array, ...], Callable[[dict[str, Array]], Array]]] = {
    "gcn": (lambda: nn.GCNConv(FEATURES, WIDTH, dtype=D), (), lambda s: gcn(s, np.ones(EDGES.shape[1]))),
    "gcn weighted": (lambda: nn.GCNConv(FEATURES, WIDTH, dtype=D), (WEIGHTS,), lambda s: gcn(s, WEIGHTS)),
    "gcn improved": (
        lambda: nn.GCNConv(FEATURES, WIDTH, improved=True, dtype=D), (WEIGHTS,),
        lambda s: gcn(s, WEIGHTS, improved=True),
    ),
    "graph": (lambda: nn.GraphConv(FEATURES, WIDTH, dtype=D), (), lambda s: graph_conv(s, SUM)),
    "graph weighted": (
        lambda: nn.GraphConv(FEATURES, WIDTH, dtype=D), (WEIGHTS,), lambda s: graph_conv(s, SUM, WEIGHTS),
    ),
    "graph max": (lambda: nn.GraphConv(FEATURES, WIDTH, "max", dtype=D), (), lambda s: graph_conv(s, MOST)),
    "graph min": (lambda: nn.GraphConv(FEATURES, WIDTH, "min", dtype=D), (), lambda s: graph_conv(s, LEAST)),
    "sage": (
        lambda: nn.SAGEConv(FEATURES, WIDTH, normalize=True, project=True, dtype=D), (), lambda s: sage(s, MEAN),
    ),
    "gin": (lambda: nn.GINConv(nn.Linear(FEATURES, WIDTH, dtype=D), 0.5, train_eps=True, dtype=D), (), gin),
    "mpnn": (
        lambda: nn.MPNN(
            nn.Sequential(nn.Linear(2 * FEATURES + 2, WIDTH, dtype=D), nn.Tanh()),
            nn.Linear(FEATURES + WIDTH, WIDTH, dtype=D),
        ),
        (ATTRIBUTES,), lambda s: mpnn(s, ATTRIBUTES),
    ),
    **{
        f"gat {fill} {concat}": (
            lambda fill=fill, concat=concat: nn.GATConv(
                FEATURES, WIDTH, 2, concat, edge_dim=2, fill_value=fill, residual=True, dtype=D
            ),
            (ATTRIBUTES,), lambda s, fill=fill, concat=concat: gat(s, ATTRIBUTES, fill, concat),
        )
        for fill, concat in (("mean", True), ("add", False), (0.5, True))
    },
    "gat v2": (
        lambda: nn.GATv2Conv(FEATURES, WIDTH, 2, edge_dim=2, residual=True, dtype=D), (ATTRIBUTES,),
        lambda s: gat_v2(s, ATTRIBUTES, "mean", True),
    ),
    "transformer": (
        lambda: nn.TransformerConv(FEATURES, WIDTH, 2, beta=True, edge_dim=2, dtype=D), (ATTRIBUTES,),
        lambda s: transformer(s, ATTRIBUTES, True),
    ),
    "transformer mean": (
        lambda: nn.TransformerConv(FEATURES, WIDTH, 2, concat=False, beta=True, edge_dim=2, dtype=D), (ATTRIBUTES,),
        lambda s: transformer(s, ATTRIBUTES, False),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_its_formula_by_node_and_edge(name: str) -> None:
    make, more, formula = CASES[name]
    layer = make()
    state = _random_state(layer)

    found = layer(tg.asarray(X), tg.asarray(EDGES), *map(tg.asarray, more)).numpy()

    _close(found, formula(state), name)


@pytest.mark.parametrize("name", CASES)
def test_a_layers_gradients_are_central_differences(name: str) -> None:
    make, more, _ = CASES[name]
    layer = make()
    _random_state(layer)
    inputs = [X, *more]
    given = [tg.asarray(x).requires_grad_() for x in inputs]
    out = layer(given[0], tg.asarray(EDGES), *given[1:])
    cotangent = RNG.normal(size=out.shape)
    (out * tg.asarray(cotangent)).sum().backward()

    @tg.function
    def value(*arrays: tg.Tensor) -> tg.Tensor:
        return (layer(arrays[0], EDGES_TENSOR, *arrays[1:]) * COTANGENT).sum()

    EDGES_TENSOR, COTANGENT = tg.asarray(EDGES), tg.asarray(cotangent)
    step = 1e-6
    for i, tensor in enumerate(given):
        direction = RNG.normal(size=inputs[i].shape)
        ends = [
            value(*(x + s * direction if k == i else x for k, x in enumerate(inputs))).item() for s in (step, -step)
        ]
        slope = (tensor.grad.numpy() * direction).sum()  # type: ignore[union-attr]
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=2e-6, atol=1e-7, err_msg=f"input {i}")
    for key, parameter in layer.named_parameters():
        now, direction = parameter.numpy(), RNG.normal(size=parameter.shape)
        ends = []
        for s in (step, -step):
            parameter.assign(now + s * direction)
            ends.append(value(*inputs).item())
        parameter.assign(now)
        slope = (parameter.grad.numpy() * direction).sum()  # type: ignore[union-attr]
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=2e-6, atol=1e-7, err_msg=key)


@pytest.mark.parametrize("name", CASES)
def test_neither_the_order_of_edges_nor_that_of_nodes_matters(name: str) -> None:
    make, more, _ = CASES[name]
    layer = make()
    _random_state(layer)
    edges, nodes = RNG.permutation(EDGES.shape[1]), RNG.permutation(NODES)
    number = np.argsort(nodes)

    found = layer(tg.asarray(X), tg.asarray(EDGES), *map(tg.asarray, more)).numpy()
    moved = layer(tg.asarray(X[nodes]), tg.asarray(number[EDGES][:, edges]), *(tg.asarray(m[edges]) for m in more))

    _close(moved.numpy(), found[nodes], name)


def test_weights_of_attention_sum_to_one_at_each_node() -> None:
    layer = nn.GATConv(FEATURES, WIDTH, 2, dtype=D)

    _, (edges, weights) = layer(tg.asarray(X), tg.asarray(EDGES), return_attention_weights=True)

    total = np.zeros((NODES, 2))
    np.add.at(total, edges.numpy()[1], weights.numpy())
    _close(total, np.ones((NODES, 2)))
    loops = EDGES[0] == EDGES[1]
    assert (weights.numpy()[: EDGES.shape[1]][loops] == 0).all()


def test_segments_that_lie_far_apart_have_their_own_softmax() -> None:
    scores, index = np.array([1000.0, 1001.0, -1000.0, -1001.0, -np.inf]), np.array([0, 0, 2, 2, 3])

    found = F.scatter_softmax(tg.asarray(scores), tg.asarray(index), 4).numpy()

    a = 1 / (1 + np.exp(-1.0))
    _close(found, np.array([1 - a, a, a, 1 - a, 0.0]))


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
def test_scatter_along_any_axis(reduce: str) -> None:
    x, index = RNG.normal(size=(2, 5, 3)), np.array([3, 0, 3, 1, -1])
    join = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min}[reduce]
    wanted = np.zeros((2, 4, 3))
    for i in range(4):
        here = x[:, index % 4 == i]
        wanted[:, i] = join(here, axis=1) if here.shape[1] else 0

    _close(F.scatter(tg.asarray(x), tg.asarray(index), 1, 4, reduce).numpy(), wanted)


@pytest.mark.parametrize("pool", [nn.global_add_pool, nn.global_mean_pool, nn.global_max_pool])
def test_pools_give_a_row_for_each_graph(pool: Callable[..., tg.Tensor]) -> None:
    join = {"add": np.sum, "mean": np.mean, "max": np.max}[pool.__name__.split("_")[1]]
    batch = np.array([0, 0, 0, 1, 1, 3])

    found = pool(tg.asarray(X), tg.asarray(batch), 4).numpy()

    _close(found, np.stack([join(X[batch == i], axis=0) if i != 2 else np.zeros(FEATURES) for i in range(4)]))
    _close(pool(tg.asarray(X), None).numpy(), join(X, axis=0, keepdims=True))


def test_graphs_in_a_filled_batch_do_not_hear_of_each_other() -> None:
    graphs = [(RNG.normal(size=(n, FEATURES)), RNG.integers(0, n, (2, e)), RNG.normal(size=(e, 2))) for n, e in
              ((3, 4), (5, 2), (1, 0))]  # fmt: skip
    layer = nn.GATConv(FEATURES, WIDTH, edge_dim=2, dtype=D)
    traces = 0

    @tg.function
    def run(graph: nn.GraphBatch) -> tg.Tensor:
        nonlocal traces
        traces += 1
        out = layer(graph.x, graph.edge_index, graph.edge_attr)
        return nn.global_mean_pool(out, graph.batch, graph.is_graph.shape[0])

    alone = [layer(*map(tg.asarray, graph)).numpy().mean(axis=0) for graph in graphs]
    for chosen in ([0, 1, 2], [2, 1, 0], [1, 2, 1]):
        graph = nn.batch_graphs([graphs[i] for i in chosen], nodes=16, edges=12)
        found = run(graph).numpy()
        assert list(graph.is_graph) == [True, True, True, False]
        _close(found[:3], np.stack([alone[i] for i in chosen]))
    assert traces == 1
    with pytest.raises(tg.TelegradError, match="do not fit"):
        nn.batch_graphs(graphs, nodes=9)


def test_a_layer_of_ones_own_passes_its_messages() -> None:
    class Difference(nn.MessagePassing):
        def message(self, x_i: tg.Tensor, x_j: tg.Tensor, edge_attr: tg.Tensor | None) -> tg.Tensor:
            return (x_i - x_j) ** 2

    found = Difference(aggr="max")(tg.asarray(X), tg.asarray(EDGES)).numpy()

    wanted = [max(((X[i] - X[j]) ** 2)[0] for j in _neighbours(i)) if len(_neighbours(i)) else 0 for i in range(NODES)]
    np.testing.assert_allclose(found[:, 0], wanted)


def test_two_communities_are_learnt_from_one_labelled_node_each() -> None:
    """What GCN was made for: Zachary's idea on two rings of nodes with a few edges between."""
    n = 20
    ring = np.stack([np.arange(n), (np.arange(n) + 1) % n])
    chords = np.stack([np.arange(n), (np.arange(n) + 3) % n])
    edges = np.concatenate([ring, ring[::-1], chords, chords[::-1]], axis=1)
    edges = np.concatenate([edges, edges + n, np.array([[0, n], [n, 0]])], axis=1)
    x, edge_index, labelled = tg.asarray(np.eye(2 * n, dtype=np.float32)), tg.asarray(edges), tg.asarray([5, n + 5])
    first, second = nn.GCNConv(2 * n, 8), nn.GCNConv(8, 2)
    optimizer = optim.Adam([*first.parameters(), *second.parameters()], lr=0.05)

    def scores() -> tg.Tensor:
        return second(F.relu(first(x, edge_index)), edge_index)

    @tg.function
    def step() -> tg.Tensor:
        loss = F.cross_entropy(tg.take(scores(), labelled, axis=0), tg.asarray([0, 1]))
        optimizer.minimize(loss)
        return loss

    for _ in range(60):
        step()

    found = scores().argmax(1).numpy()
    assert (found == np.repeat([0, 1], n)).mean() > 0.9


def test_what_is_no_graph_is_refused_in_a_sentence() -> None:
    x, edges = tg.asarray(X), tg.asarray(EDGES)
    for make, words in (
        (lambda: nn.GCNConv(3, 4)(x[0], edges), "takes nodes as"),
        (lambda: nn.GCNConv(3, 4)(x, edges[0]), r"must be \[2, edges\]"),
        (lambda: nn.GCNConv(3, 4)(x, tg.asarray(EDGES * 1.0)), "must hold integers"),
        (lambda: nn.GCNConv(3, 4)(x, edges, tg.ones(3)), "one for each edge"),
        (lambda: nn.GCNConv(3, 4, normalize=False, add_self_loops=True), "goes with normalize"),
        (lambda: nn.GATConv(3, 4)(x, edges, tg.ones((9, 2))), "not be given without edge_dim"),
        (lambda: nn.GATConv(3, 4, edge_dim=2)(x, edges, tg.ones((9, 3))), r"must be \[edges, 2\]"),
        (lambda: nn.GATConv(3, 4, fill_value="max"), "fill_value is"),
        (lambda: nn.TransformerConv(3, 4, edge_dim=2)(x, edges), "with edge_dim=2"),
        (lambda: nn.MessagePassing("median"), "aggr is one of"),
        (lambda: nn.MPNN(nn.Identity())(x, edges, tg.ones((3, 2))), "9 edges need as many rows"),
        (lambda: nn.global_add_pool(x, tg.asarray([0])), "say size"),
        (lambda: F.scatter(x, edges[0], 0), "say dim_size"),
        (lambda: F.scatter(x, edges[0], 0, 3), "the index must be"),
        (lambda: F.scatter(x, tg.asarray([0]), 0, 3, "mode"), "reduce is one of"),
        (lambda: F.scatter(x, tg.asarray([0, 1, 2, 3, 4, 5]), 0, 3).numpy(), "index"),
    ):
        with pytest.raises(tg.TelegradError, match=words):
            make()
