"""lamp's modules for graphs and for text, as our layers and models say them; each with its numbers in NumPy.

`docs/lamp-parity.md` names these tests where our layer is a near relation of lamp's and what lies between is shown.
An edge of lamp goes from I to J: `edge_index` is the two, one upon the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import models, nn

F = nn.functional
Array = Any
NODES = 5
EDGES = np.array([[0, 1, 2, 0, 3], [1, 2, 0, 3, 2]])  # no loops, none doubled; node 4 stands alone
ATTRIBUTES = np.random.default_rng(7).normal(size=(5, 2))


@pytest.fixture(autouse=True)
def session() -> Iterator[tg.Session]:
    """The embedded worker."""
    with tg.connect(backend="numpy", new=True) as session:
        yield session


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def close(found: Any, wanted: Array) -> None:
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-10, atol=1e-12)


def load(module: nn.Module, *, seed: int = 0) -> dict[str, Array]:
    """Random state in the module."""
    state = {
        name: numbers(*x.shape, seed=seed + i) if x.ndim else x
        for i, (name, x) in enumerate(module.state_dict().items())
    }
    module.load_state_dict(state)
    return state


# ---- graph convolution


def aggregated(x: Array) -> Array:
    """D^-1/2 (A + A^T + I) D^-1/2 x, with the dense matrices."""
    a = np.zeros((NODES, NODES))
    a[EDGES[0], EDGES[1]] = 1
    a = a + a.T + np.eye(NODES)
    root = np.diag((1.0 + np.bincount(EDGES.ravel(), minlength=NODES)) ** -0.5)
    return root @ a @ root @ x


def both_ways(edges: Array) -> tg.Tensor:
    return tg.asarray(np.concatenate([edges, edges[::-1]], axis=1))


def test_a_graph_convolution_over_edges_both_ways_is_lamps() -> None:
    layer = nn.GCNConv(3, 4, bias=False, dtype=tg.float64)
    w, x, g = load(layer)["lin.weight"], numbers(NODES, 3, seed=1), numbers(NODES, 4, seed=2)
    nodes = tg.asarray(x).requires_grad_()

    y = layer(nodes, both_ways(EDGES))
    (y * tg.asarray(g)).sum().backward()

    close(y, aggregated(x) @ w.T)
    close(nodes.grad, aggregated(g @ w))  # the matrix is symmetric
    close(layer.lin.weight.grad, g.T @ aggregated(x))


class Gcn(nn.Module):
    """lamp's `GCN.gcn`: any layers behind the sum over neighbours, which is added if the width stays."""

    def __init__(self, inputs: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.aggregate = nn.GCNConv(inputs, inputs, bias=False)
        self.aggregate.lin = nn.Identity()
        self.transform = nn.Sequential(
            nn.Linear(inputs, outputs, bias=False, dtype=tg.float64),
            nn.BatchNorm1d(outputs, dtype=tg.float64), nn.ReLU(), nn.Dropout(dropout),
        )  # fmt: skip

    def forward(self, x: tg.Tensor, edge_index: tg.Tensor) -> tg.Tensor:
        message = self.aggregate(x, edge_index)
        y = self.transform(message)
        return message + y if y.shape == message.shape else y


@pytest.mark.parametrize("outputs", [3, 4])
def test_a_graph_convolution_goes_before_any_layers(outputs: int) -> None:
    model = Gcn(3, outputs)
    assert list(model.state_dict())[:3] == ["transform.0.weight", "transform.1.weight", "transform.1.bias"]
    w, scale, shift = (load(model)[f"transform.{name}"] for name in ("0.weight", "1.weight", "1.bias"))
    x = numbers(NODES, 3, seed=1)

    y = model(tg.asarray(x), both_ways(EDGES))

    message = aggregated(x)
    h = message @ w.T
    h = np.maximum((h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5) * scale + shift, 0)
    close(y, message + h if outputs == 3 else h)


# ---- graph attention


class Attention(nn.Module):
    """lamp's `GraphAttention`: keys apart from values, scores by a weight on keys and edge or by a product."""

    def __init__(self, nodes: int, edges: int, key: int, heads: int, value: int, *, is_product: bool) -> None:
        super().__init__()
        self.heads, self.is_product = heads, is_product
        self.source, self.target, self.value = (
            nn.Linear(nodes, heads * width, bias=False, dtype=tg.float64) for width in (key, key, value)
        )
        self.edge = nn.Linear(edges, heads if is_product else heads * key, bias=False, dtype=tg.float64)
        self.score = None if is_product else nn.Parameter(tg.zeros((heads, 3 * key), dtype=tg.float64))

    def forward(self, x: tg.Tensor, edge_index: tg.Tensor, edge_attr: tg.Tensor) -> tg.Tensor:
        i, j = edge_index[0], edge_index[1]
        source, target, value, edge = (
            y.reshape(y.shape[0], self.heads, -1)
            for y in (self.source(x), self.target(x), self.value(x), self.edge(edge_attr))
        )
        if self.score is None:
            scores = (tg.take(source, i, axis=0) * tg.take(target, j, axis=0)).sum(2) / np.sqrt(self.heads) + edge[
                :, :, 0
            ]
        else:
            scores = tg.concat([tg.take(source, i, axis=0), tg.take(target, j, axis=0), edge], axis=2) * self.score
            scores = tg.tanh(scores.sum(2))
        weights = F.scatter_softmax(scores, j, x.shape[0]).unsqueeze(2)
        y = F.silu(F.scatter(weights * tg.take(value, i, axis=0), j, 0, x.shape[0]).flatten(1))
        return x + y if y.shape == x.shape else y


def attended(s: dict[str, Array], x: Array, *, is_product: bool) -> Array:
    """By node, edge and head."""
    source, target, value = ((x @ s[f"{n}.weight"].T).reshape(NODES, 2, -1) for n in ("source", "target", "value"))
    edge = (ATTRIBUTES @ s["edge.weight"].T).reshape(len(ATTRIBUTES), 2, -1)
    out = np.zeros((NODES, 2, value.shape[2]))
    for j, head in product(range(NODES), range(2)):
        here = np.flatnonzero(EDGES[1] == j)
        if is_product:
            scores = [source[EDGES[0, e], head] @ target[j, head] / np.sqrt(2) + edge[e, head, 0] for e in here]
        else:
            parts = [np.concatenate([source[EDGES[0, e], head], target[j, head], edge[e, head]]) for e in here]
            scores = [np.tanh(part @ s["score"][head]) for part in parts]
        for e, score in zip(here, scores, strict=True):
            out[j, head] += np.exp(score) / np.exp(scores).sum() * value[EDGES[0, e], head]
    flat = out.reshape(NODES, -1)
    y = flat / (1 + np.exp(-flat))
    return x + y if y.shape == x.shape else y


@pytest.mark.parametrize("value", [2, 3], ids=["residual", "wider"])
@pytest.mark.parametrize("is_product", [False, True], ids=["tanh", "product"])
def test_attention_by_other_scores_is_a_softmax_over_arriving_edges(is_product: bool, value: int) -> None:
    model = Attention(4, 2, 3, 2, value, is_product=is_product)
    state, x = load(model), numbers(NODES, 4, seed=9)

    y = model(tg.asarray(x), tg.asarray(EDGES), tg.asarray(ATTRIBUTES))

    close(y, attended(state, x, is_product=is_product))


# ---- messages


class Messages(nn.Module):
    """lamp's `MPNN`: messages divided by degrees of either end, to one end or to both."""

    def __init__(self, message: nn.Module, update: nn.Module, *, over: tuple[bool, bool], to_both: bool) -> None:
        super().__init__()
        self.message, self.update, self.over, self.to_both = message, update, over, to_both

    def forward(self, x: tg.Tensor, edge_index: tg.Tensor, edge_attr: tg.Tensor) -> tg.Tensor:
        i, j = edge_index[0], edge_index[1]
        messages = self.message(tg.concat([edge_attr, tg.take(x, i, axis=0), tg.take(x, j, axis=0)], axis=1))
        for end, is_divided in zip((i, j), self.over, strict=True):
            if is_divided:
                degree = F.scatter(tg.ones_like(messages[:, :1]), end, 0, x.shape[0])
                messages = messages * tg.take(degree, end, axis=0) ** (-0.5 if all(self.over) else -1.0)
        joined = F.scatter(messages, j, 0, x.shape[0])
        joined = joined + F.scatter(messages, i, 0, x.shape[0]) if self.to_both else joined
        y = self.update(tg.concat([x, joined], axis=1))
        return x + y if y.shape == x.shape else y


CHOICES = [((a, b), c) for a, b, c in product([False, True], repeat=3)]


@pytest.mark.parametrize(("over", "to_both"), CHOICES)
def test_messages_are_divided_by_degrees_and_joined_at_either_end(over: tuple[bool, bool], to_both: bool) -> None:
    message, update = nn.Linear(8, 4, dtype=tg.float64), nn.Linear(7, 3, dtype=tg.float64)
    first, second, x = load(message), load(update, seed=3), numbers(NODES, 3, seed=9)

    y = Messages(message, update, over=over, to_both=to_both)(*map(tg.asarray, (x, EDGES, ATTRIBUTES)))

    power = -0.5 if all(over) else -1.0
    degrees = [np.bincount(ends, minlength=NODES) for ends in EDGES]
    joined = np.zeros((NODES, 4))
    for (i, j), e in zip(EDGES.T, ATTRIBUTES, strict=True):
        m = np.concatenate([e, x[i], x[j]]) @ first["weight"].T + first["bias"]
        m = m * (degrees[0][i] ** power if over[0] else 1.0) * (degrees[1][j] ** power if over[1] else 1.0)
        joined[j] += m
        if to_both:
            joined[i] += m
    close(y, x + np.concatenate([x, joined], axis=1) @ second["weight"].T + second["bias"])


@pytest.mark.parametrize("aggr", ["add", "mean"])
def test_messages_to_one_end_are_those_of_mpnn(aggr: str) -> None:
    message, update = nn.Linear(8, 4, dtype=tg.float64), nn.Linear(7, 3, dtype=tg.float64)
    w, x = load(message)["weight"], numbers(NODES, 3, seed=9)
    load(update, seed=3)
    given = [tg.asarray(a) for a in (x, EDGES, ATTRIBUTES)]
    wanted = Messages(message, update, over=(False, aggr == "mean"), to_both=False)(*given).numpy()

    message.load_state_dict({"weight": np.concatenate([w[:, 5:], w[:, 2:5], w[:, :2]], axis=1)}, strict=False)
    y = nn.MPNN(message, update, aggr)(*given)

    close(given[0] + y, wanted)  # lamp's inputs in our order: where it goes, where it comes from, the edge


# ---- places


@pytest.mark.parametrize("is_added", [True, False], ids=["added", "beside"])
def test_an_embedding_knows_its_place(is_added: bool) -> None:
    table, tokens = nn.Embedding(7, 4, dtype=tg.float64), np.random.default_rng(0).integers(0, 7, (3, 5))
    rows, places = load(table)["weight"], models.sinusoidal_positions(5, 4, dtype=tg.float64)

    x = table(tg.asarray(tokens))
    found = x + places if is_added else tg.concat([x, tg.broadcast_to(places, x.shape)], axis=2)

    angles = np.arange(5)[:, None] / 10000 ** (np.array([0, 0, 2, 2]) / 4)
    wanted = np.where(np.arange(4) % 2 == 0, np.sin(angles), np.cos(angles))
    both = np.broadcast_to(wanted, (3, 5, 4))
    close(found, rows[tokens] + wanted if is_added else np.concatenate([rows[tokens], both], axis=2))


def test_places_by_their_distances_are_singular_vectors() -> None:
    place = tg.arange(9, dtype=tg.float64)
    distance = tg.minimum(tg.abs(place[:, None] - place), 4.0)

    u, s, _ = tg.linalg.svd(distance / tg.linalg.vector_norm(distance, axis=1, keepdims=True))
    found = (u[:, :3] * tg.sqrt(s[:3])).numpy()

    rows = np.minimum(np.abs(np.subtract.outer(np.arange(9), np.arange(9))), 4.0)
    rows /= np.sqrt((rows**2).sum(1, keepdims=True))
    values, vectors = np.linalg.eigh(rows @ rows.T)
    wanted = vectors[:, :-4:-1] * values[:-4:-1] ** 0.25
    np.testing.assert_allclose(np.abs(found), np.abs(wanted), rtol=1e-8, atol=1e-10)  # of either sign


# ---- models of text


def log_softmax(x: Array) -> Array:
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


BERT = models.BertConfig(
    vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12,
    max_position_embeddings=6,
)  # fmt: skip


def test_berts_loss_is_that_of_masked_tokens_and_of_the_whole_text() -> None:
    model = models.BertForPreTraining(BERT, dtype=tg.float64).eval()
    rng = np.random.default_rng(0)
    ids, segments, follows = rng.integers(1, 11, (3, 6)), rng.integers(0, 2, (3, 6)), np.array([0, 1, 1])
    mask = np.arange(6) < np.array([6, 4, 5])[:, None]
    labels = np.full((3, 6), -100)
    labels[[0, 0, 1, 2], [1, 3, 2, 4]] = [5, 2, 7, 10]
    given = {"attention_mask": tg.asarray(mask), "token_type_ids": tg.asarray(segments)}

    loss = model.loss(tg.asarray(ids), tg.asarray(labels), tg.asarray(follows), **given)

    tokens, whole = (x.numpy() for x in model(tg.asarray(ids), **given))
    masked = -np.mean([log_softmax(tokens)[i, j, labels[i, j]] for i, j in np.argwhere(labels != -100)])
    logit = whole[:, 1] - whole[:, 0]  # two scores of a softmax are one of a sigmoid
    binary = np.mean(np.where(follows == 1, np.log1p(np.exp(-logit)), np.log1p(np.exp(logit))))
    close(loss, masked + binary)
    close(F.binary_cross_entropy_with_logits(tg.asarray(logit), tg.asarray(follows.astype(np.float64))), binary)


def test_a_language_models_loss_ignores_filling() -> None:
    config = models.GPT2Config(vocab_size=11, n_positions=6, n_embd=8, n_layer=1, n_head=2)
    model, pad = models.GPT2LMHeadModel(config, dtype=tg.float64).eval(), 0
    ids = np.random.default_rng(0).integers(1, 11, (2, 6))
    ids[0, 3:] = pad

    @tg.function
    def loss_of(ids: tg.Tensor) -> tg.Tensor:
        return model.loss(ids, tg.where(ids == pad, -100, ids))

    loss = loss_of(tg.asarray(ids))

    log_p = log_softmax(model(tg.asarray(ids)).numpy())
    counted = [log_p[i, j, ids[i, j + 1]] for i in range(2) for j in range(5) if ids[i, j + 1] != pad]
    assert len(counted) == 7
    close(loss, -np.mean(counted))
