"""The same expressions in PyTorch: values, first and second gradients, with random cotangents.

A second opinion beside NumPy and finite differences, which need no PyTorch and are in `test_ops` and `test_functions`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from telegrad import ops
from telegrad.autodiff import gradient
from telegrad.ir import Value
from telegrad.ops import activation, cross_entropy, indexing, linalg, loss, norm

from tests.ops import torch_rows
from tests.ops.checks import Array, evaluate, generator, inputs_for
from tests.ops.operands import Operand, integers, number, positive, real, values

torch: Any = pytest.importorskip("torch")
F: Any = torch.nn.functional

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
]


@dataclass(frozen=True)
class Row:
    """Our expression and PyTorch's. ``order`` is 1 where PyTorch has no second derivative, or another one at a tie."""

    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    operands: tuple[Operand, ...]
    order: int = 2
    constants: tuple[int, ...] = ()  # float operands that PyTorch does not differentiate


KINKS = values(-6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0, 0.3, -0.7, 20.0, -20.0)
LABELS = number([0, 3, 2, -100, 1])
LOGITS = real(5, 4)
WEIGHT = positive(4)


def both(
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    *operands: Operand,
    order: int = 2,
    constants: tuple[int, ...] = (),
) -> Row:
    return Row(ours, theirs, operands, order, constants)


def _cross_entropy(*weight: Operand, labels: Operand = LABELS, **how: Any) -> Row:
    return both(
        lambda *xs: cross_entropy.cross_entropy(*xs, **how), lambda *xs: F.cross_entropy(*xs, **how),
        LOGITS, labels, *weight, constants=(2,),
    )  # fmt: skip


ROWS: dict[str, Row] = {
    # activations, at the kinks too: there PyTorch's choice is ours
    "relu": both(ops.relu, F.relu, KINKS),
    "relu6": both(activation.relu6, F.relu6, KINKS),
    "hardtanh": both(activation.hardtanh, F.hardtanh, KINKS),
    "hardsigmoid": both(activation.hardsigmoid, F.hardsigmoid, KINKS, order=1),
    "leaky_relu": both(lambda x: activation.leaky_relu(x, 0.2), lambda x: F.leaky_relu(x, 0.2), KINKS),
    "elu": both(lambda x: activation.elu(x, 1.3), lambda x: F.elu(x, 1.3), real(8)),
    "celu": both(lambda x: activation.celu(x, 2.0), lambda x: F.celu(x, 2.0), real(8)),
    "selu": both(activation.selu, F.selu, real(8)),
    "gelu": both(activation.gelu, F.gelu, KINKS),
    "gelu_tanh": both(lambda x: activation.gelu(x, "tanh"), lambda x: F.gelu(x, approximate="tanh"), KINKS),
    "silu": both(activation.silu, F.silu, KINKS),
    "mish": both(activation.mish, F.mish, KINKS),
    "softplus": both(activation.softplus, F.softplus, KINKS),
    "softplus_beta": both(lambda x: activation.softplus(x, 2.0, 5.0), lambda x: F.softplus(x, 2.0, 5.0), real(8)),
    "softsign": both(activation.softsign, F.softsign, KINKS),
    "log_sigmoid": both(activation.log_sigmoid, F.logsigmoid, KINKS),
    "sigmoid": both(ops.sigmoid, torch.sigmoid, KINKS),
    "tanh": both(ops.tanh, torch.tanh, KINKS),
    "hardswish": both(activation.hardswish, F.hardswish, real(8, low=-4.0, high=4.0)),
    # elementwise at ties
    "abs": both(ops.abs, torch.abs, KINKS),
    "clip": both(lambda x: ops.clip(x, -1.0, 1.0), lambda x: torch.clamp(x, -1.0, 1.0), KINKS),
    "maximum": both(ops.maximum, torch.maximum, KINKS, KINKS),
    "minimum": both(ops.minimum, torch.minimum, KINKS, values(*range(11))),
    "pow": both(ops.pow, torch.pow, positive(5), real(5)),
    "pow_2": both(lambda x: x**2, lambda x: x**2, KINKS),
    "pow_3": both(lambda x: x**3, lambda x: x**3, KINKS),
    "atan2": both(ops.atan2, torch.atan2, real(5), real(5)),
    "hypot": both(ops.hypot, torch.hypot, real(5), real(5)),
    "logaddexp": both(ops.logaddexp, torch.logaddexp, KINKS, KINKS),
    "remainder": both(ops.remainder, torch.remainder, real(5), positive(5)),
    "copysign": both(ops.copysign, torch.copysign, real(5), real(5)),
    "erf": both(ops.erf, torch.erf, KINKS),
    "broadcast": both(
        lambda x, y, z: (x * y + z) / (y * y + 1),
        lambda x, y, z: (x * y + z) / (y * y + 1),
        real(3, 1),
        real(1, 2),
        real(2),
    ),
    # reductions
    "max_ties": both(
        lambda x: ops.max(x, axis=1), lambda x: torch.amax(x, 1), values([3.0, 1.0, 3.0], [2.0, 2.0, 2.0])
    ),
    "min_all": both(ops.min, torch.amin, values([3.0, 1.0, 3.0], [2.0, 1.0, 2.0])),
    "prod_zeros": both(
        lambda x: ops.prod(x, axis=1),
        lambda x: torch.prod(x, 1),
        values([0.0, 2.0, 3.0], [0.0, 0.0, 3.0], [1.0, 2.0, 0.5]),
    ),
    "prod": both(ops.prod, torch.prod, real(5)),
    "cumulative_prod": both(
        lambda x: ops.cumulative_prod(x, axis=0), lambda x: torch.cumprod(x, 0), values(2.0, 0.0, 3.0, 0.0, 1.5)
    ),
    "cumulative_sum": both(lambda x: ops.cumulative_sum(x, axis=1), lambda x: torch.cumsum(x, 1), real(2, 3)),
    "var": both(lambda x: ops.var(x, axis=0, correction=1), lambda x: torch.var(x, 0, correction=1), real(4, 2)),
    "std": both(lambda x: ops.std(x, axis=1), lambda x: torch.std(x, 1, correction=0), real(2, 4)),
    "logsumexp": both(lambda x: ops.logsumexp(x, axis=1), lambda x: torch.logsumexp(x, 1), real(2, 4)),
    "softmax": both(lambda x: ops.softmax(x, axis=0), lambda x: torch.softmax(x, 0), real(3, 2)),
    "log_softmax": both(ops.log_softmax, lambda x: torch.log_softmax(x, -1), real(3, 2)),
    # products and moves
    "matmul": both(ops.matmul, torch.matmul, real(2, 1, 2, 3), real(2, 3, 2)),
    "matmul_vector": both(ops.matmul, torch.matmul, real(2, 2, 3), real(3)),
    "matmul_row": both(ops.matmul, torch.matmul, real(3), real(2, 3, 2)),
    "matmul_shared_weight": both(ops.matmul, torch.matmul, real(2, 2, 3), real(3, 2)),
    "tensordot": both(
        lambda x, y: ops.tensordot(x, y, axes=((0, 2), (1, 0))),
        lambda x, y: torch.tensordot(x, y, dims=([0, 2], [1, 0])),
        real(2, 3, 2),
        real(2, 2),
    ),
    "outer": both(ops.outer, torch.outer, real(2), real(3)),
    "diagonal": both(lambda x: linalg.diagonal(x, offset=1), lambda x: torch.diagonal(x, 1, -2, -1), real(2, 3, 3)),
    "tril": both(lambda x: ops.tril(x, k=-1), lambda x: torch.tril(x, -1), real(3, 3)),
    "sort": both(lambda x: ops.sort(x, axis=0), lambda x: torch.sort(x, 0).values, real(4, 2)),
    "gather": both(
        lambda x, i: ops.take_along_axis(x, i, axis=1),
        lambda x, i: torch.gather(x, 1, i),
        real(2, 3),
        number([[2, 0, 0], [1, 1, 1]]),
    ),
    "embedding": both(
        lambda w, i: ops.take(w, i, axis=0), lambda w, i: F.embedding(i, w), real(4, 2), number([[3, 0], [0, 0]])
    ),
    "advanced_index": both(
        lambda x, i, j: x[:, i, j], lambda x, i, j: x[:, i, j], real(2, 3, 3), number([0, 2, 0]), number([1, 1, 1])
    ),
    "slices": both(lambda x: x[1:, ::2] * x[:-1, 1::2], lambda x: x[1:, ::2] * x[:-1, 1::2], real(3, 4)),
    "assignment": both(
        lambda x, y: indexing.set_items(x * 2.0, (slice(1, None), 0), y),
        lambda x, y: _assigned(x * 2.0, y),
        real(3, 2),
        real(2),
    ),
    # losses
    **{
        f"cross_entropy_{r}_{s}": _cross_entropy(reduction=r, label_smoothing=s)
        for r in ("mean", "sum", "none")
        for s in (0.0, 0.2)
    },
    **{
        f"cross_entropy_weight_{r}_{s}": _cross_entropy(WEIGHT, reduction=r, label_smoothing=s)
        for r in ("mean", "sum", "none")
        for s in (0.0, 0.2)
    },
    "cross_entropy_ignore": _cross_entropy(labels=number([0, 3, 2, 2, 1]), ignore_index=2),
    "cross_entropy_2d": both(
        cross_entropy.cross_entropy, F.cross_entropy, real(2, 4, 3), integers(2, 3, low=0, high=4)
    ),
    "cross_entropy_1d": both(cross_entropy.cross_entropy, F.cross_entropy, real(4), number(2)),
    "cross_entropy_probabilities": both(
        lambda x, y: cross_entropy.cross_entropy(x, ops.softmax(y, axis=1), label_smoothing=0.1),
        lambda x, y: F.cross_entropy(x, torch.softmax(y, 1), label_smoothing=0.1),
        LOGITS,
        LOGITS,
    ),
    "nll_loss": both(
        cross_entropy.nll_loss,
        F.nll_loss,
        LOGITS,
        LABELS,
        WEIGHT,
        constants=(2,),
    ),
    "mse_loss": both(loss.mse_loss, F.mse_loss, real(2, 3), real(2, 3)),
    "l1_loss": both(loss.l1_loss, F.l1_loss, real(2, 3), real(2, 3)),
    "smooth_l1_loss": both(
        lambda x, y: loss.smooth_l1_loss(x, y, beta=0.5), lambda x, y: F.smooth_l1_loss(x, y, beta=0.5), KINKS, real(11)
    ),
    "huber_loss": both(
        lambda x, y: loss.huber_loss(x, y, delta=0.5), lambda x, y: F.huber_loss(x, y, delta=0.5), real(6), real(6)
    ),
    "bce": both(
        loss.binary_cross_entropy, F.binary_cross_entropy, real(5, low=0.1, high=0.9), real(5, low=0.1, high=0.9)
    ),
    "bce_with_logits": both(
        lambda x, y, w: loss.binary_cross_entropy_with_logits(x, y, pos_weight=w),
        lambda x, y, w: F.binary_cross_entropy_with_logits(x, y, pos_weight=w),
        KINKS,
        real(11, low=0.0, high=1.0),
        positive(11),
        constants=(2,),
    ),
    "kl_div": both(
        lambda x, y: loss.kl_div(x, y, reduction="batchmean"),
        lambda x, y: F.kl_div(x, y, reduction="batchmean"),
        real(2, 3),
        positive(2, 3),
    ),
    "layer_norm": both(
        lambda x, w, b: norm.layer_norm(x, (3,), w, b),
        lambda x, w, b: F.layer_norm(x, (3,), w, b),
        real(2, 3),
        real(3),
        real(3),
    ),
    "rms_norm": both(
        lambda x, w: norm.rms_norm(x, (3,), w, eps=1e-6),
        lambda x, w: F.rms_norm(x, (3,), w, eps=1e-6),
        real(2, 3),
        real(3),
    ),
}

ROWS |= {name: Row(ours, theirs, operands, order) for name, ours, theirs, operands, order in torch_rows.rows(F)}


def _assigned(x: Any, y: Any) -> Any:
    x = x.clone()
    x[1:, 0] = y
    return x


@pytest.mark.parametrize("name", sorted(ROWS))
def test_values_and_gradients_are_those_of_pytorch(name: str) -> None:
    compare(name, ROWS[name])


def compare(name: str, row: Row, *, tolerance: float = 1e-7) -> None:
    """Assert that values and gradients to the row's order agree."""
    rng = generator(name)
    arrays = [make(rng) for make in row.operands]
    wrt = [i for i, a in enumerate(arrays) if a.dtype.kind == "f" and i not in row.constants]

    found = _ours(row.ours, arrays, wrt, row.order, generator(name + " cotangents"))
    wanted = _theirs(row.theirs, arrays, wrt, row.order, generator(name + " cotangents"))

    for level, (a, b) in enumerate(zip(found, wanted, strict=True)):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance / 100, err_msg=f"{name}, order {level}")


Levels = list[list[Array]]
"""The values, their gradients for random cotangents, the gradients of these, ..."""


def _ours(f: Callable[..., Value], arrays: list[Array], wrt: list[int], order: int, rng: np.random.Generator) -> Levels:
    xs = inputs_for(arrays)
    known = dict(zip(xs, arrays, strict=True))
    levels: list[list[Value]] = [[f(*xs)]]
    for _ in range(order):
        seeds = [rng.normal(size=y.shape) for y in levels[-1]]
        gs = inputs_for(seeds)
        known |= dict(zip(gs, seeds, strict=True))
        levels.append(list(gradient(levels[-1], gs, [xs[i] for i in wrt])))
    return [evaluate(level, known) for level in levels]


def _theirs(f: Callable[..., Any], arrays: list[Array], wrt: list[int], order: int, rng: np.random.Generator) -> Levels:
    xs = [torch.tensor(a, requires_grad=i in wrt) for i, a in enumerate(arrays)]
    levels: list[list[Any]] = [[f(*xs)]]
    for level in range(order):
        seeds = [torch.tensor(rng.normal(size=tuple(y.shape))) for y in levels[-1]]
        kept = [(y, g) for y, g in zip(levels[-1], seeds, strict=True) if y.requires_grad]
        leaves = [xs[i] for i in wrt]
        found: Any = [None] * len(leaves)
        if kept:
            ys, gs = zip(*kept, strict=True)
            found = torch.autograd.grad(ys, leaves, gs, create_graph=level + 1 < order, allow_unused=True)
        levels.append([torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)])
    return [[y.detach().numpy(force=True) for y in level] for level in levels]
