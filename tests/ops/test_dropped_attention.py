"""Attention with dropout: the parts it is made of, its joint rule, and that no matrix of weights is kept for it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from telegrad import ops
from telegrad.errors import DTypeError, GraphError
from telegrad.ir import Function, Graph, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ops import random as philox
from telegrad.ops.attention import DroppedAttention
from telegrad.ops.control import Gradient
from telegrad_server.compiler.pipeline import compile_function
from telegrad_server.executors.array import numpy_executor

from tests.ops.checks import Array, call, check_gradients, generator

RANDOM = generator("dropped attention")
Q, K, V = RANDOM.normal(size=(2, 4, 3)), RANDOM.normal(size=(2, 5, 3)), RANDOM.normal(size=(2, 5, 6))
BIAS = RANDOM.normal(size=(2, 4, 5))
KEY = np.array([1, 2, 3, 4], np.uint32)
P = 0.3


def by_hand(q: Array, k: Array, v: Array, bias: Array | None, *, is_causal: bool, stream: int) -> Array:
    drawn = call(lambda key: philox.RandomUniform((2, 4, 5), t.float32, stream)(key), KEY)
    scores = q @ np.swapaxes(k, -1, -2) * 0.5 + (0 if bias is None else bias)
    if is_causal:
        scores = np.where(np.arange(5) <= np.arange(4)[:, None], scores, -math.inf)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    return (weights * (drawn >= P) / (1 - P)) @ v


@pytest.mark.parametrize("is_causal", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("bias", [[], [BIAS]], ids=["plain", "bias"])
def test_it_drops_weights_and_its_rule_is_right(is_causal: bool, bias: Sequence[Array]) -> None:
    op = DroppedAttention(0.5, P, 7, is_causal)

    out, _ = call(lambda *xs: op.results(*xs), Q, K, V, KEY, *bias)

    wanted = by_hand(Q, K, V, bias[0] if bias else None, is_causal=is_causal, stream=7)
    np.testing.assert_allclose(out, wanted, rtol=1e-12)

    def build(q: Value, k: Value, v: Value, *rest: Value) -> list[Value]:
        (key,) = [x for x in rest if x.dtype is t.uint32]
        return list(op.results(q, k, v, key, *[x for x in rest if x is not key]))

    check_gradients(build, [Q, K, V, KEY, *bias], name="dropped attention", order=2, tolerance=1e-5)


def test_a_row_that_may_attend_to_nothing_gives_zeros() -> None:
    bias = np.where(np.arange(4)[:, None] == 1, -np.inf, np.zeros((2, 4, 5)))

    out, total = call(lambda *xs: DroppedAttention(0.5, P).results(*xs), Q, K, V, KEY, bias)

    assert (out[:, 1] == 0).all()
    assert (total[:, 1] == -np.inf).all()
    assert np.isfinite(np.delete(out, 1, axis=1)).all()


def test_no_keys_give_zeros() -> None:
    out, _ = call(lambda *xs: DroppedAttention(0.5, P).results(*xs), Q, K[:, :0], V[:, :0], KEY)

    assert out.shape == (2, 4, 6)
    assert (out == 0).all()


def test_no_matrix_of_weights_lives_from_the_forward_to_the_backward() -> None:
    """Four layers one after the other: each would keep 4 MiB; the plan needs the memory of about one."""
    n = 1024
    x = new_input(Type((n, 8), t.float32))
    key = new_input(Type((4,), t.uint32))

    def peak(layers: int) -> int:
        y = x
        for stream in range(layers):
            y = DroppedAttention(0.3, 0.1, stream).results(y, y, y, key)[0]
        graph = Graph.of([x, key], [y, *Gradient(1).results(y, ops.ones_like(y), x)])
        return compile_function(Function(graph)).peak_bytes

    assert peak(4) < 1.2 * peak(1)


def test_the_forward_and_the_backward_drop_the_same() -> None:
    x, key = new_input(Type((6, 6), t.float64)), new_input(Type((4,), t.uint32))
    eye = new_input(Type((6, 6), t.float64))
    out = DroppedAttention(1.0, 0.5).results(x, x, eye, key)[0]
    graph = Graph.of([x, key, eye], [out, *Gradient(1).results(out, ops.ones_like(out), eye)])
    arrays = [np.zeros((6, 6)), KEY, np.eye(6)]

    weights, gradient = numpy_executor(is_poisoned=True).run(compile_function(Function(graph)), arrays)

    assert 0 < (weights == 0).sum() < 36
    np.testing.assert_allclose(gradient, np.repeat(weights.sum(axis=0)[:, None], 6, axis=1), rtol=1e-12)


def test_what_does_not_fit_is_refused() -> None:
    q, k, v = (new_input(Type(a.shape, t.float64)) for a in (Q, K, V))
    with pytest.raises(GraphError, match="p must be from 0 to below 1"):
        DroppedAttention(1.0, 1.0).results(q, k, v, new_input(Type((4,), t.uint32)))
    with pytest.raises(DTypeError, match="the key must be"):
        DroppedAttention(1.0, 0.5).results(q, k, v, new_input(Type((4,), t.int64)))
