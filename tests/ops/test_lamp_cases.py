"""The 144 gradient cases of lamp, by its names: its values, and gradients where it never looked.

lamp (github.com/pityka/lamp) is the library whose ideas telegrad continues. It differentiates every case through the
sum or the mean of the result, that is for a cotangent of equal numbers, at fixtures with much symmetry; several of its
rules are wrong for any other. So here each case is also differentiated for a random cotangent, at lamp's operands and
near them. Fixtures and expressions are only those that a case needs; everything goes through public functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import telegrad as tg
import telegrad.nn.functional as F
from telegrad.autodiff import gradient
from telegrad.ir import Value
from telegrad.sparse import Coo, Sizes

from tests.ops.checks import Array, call, check_gradients, differences, evaluate, generator, inputs_for

linalg = tg.linalg


def ones(*shape: int) -> Array:
    return np.ones(shape)


def count(*shape: int, start: int = 0) -> Array:
    """start, start + 1, ... in this shape."""
    return np.arange(start, start + np.prod(shape), dtype=np.float64).reshape(shape)


def integers(*numbers: Any) -> Array:
    return np.array(numbers, np.int64)


# ---- lamp's fixtures, with its names

MAT1X1 = ones(1, 1)
MAT1X3 = np.array([[1.0, 2.0, 3.0]])
MAT2X2 = np.array([[4.0, 1.0], [6.0, 2.0]])
MAT2X2PD = np.array([[52.0, 16.0], [16.0, 5.0]])
MAT2X3 = np.array([[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]])
MAT2X3_2 = np.array([[-1.0, 3.0, 5.0], [2.0, -4.0, 6.0]])
MAT3X1, MAT3X1_2 = MAT1X3.T.copy(), MAT1X3.T + 1.0
MAT3X2 = MAT2X3.T.copy()
MAT3X3 = np.array([[5.0, 14.0, 20.0], [14.0, 42.0, 59.0], [20.0, 59.0, 85.0]])
DOUBLE = 2.0 * MAT2X3
ND1X2X3 = MAT2X3.reshape(1, 2, 3)
ND1X3X3 = np.array([[[1.0, 2.0, 0.0], [4.0, 5.0, 1.0], [6.0, 7.0, 0.0]]])
ND1X2X3X3, ND1X4X3X3 = count(1, 2, 3, 3), count(1, 4, 3, 3)
NDX3, NDX6 = count(3, start=1), count(6, start=1)
NDX18 = np.tile(NDX6, 3)
ND3X2X3, ND3X3X2 = NDX18.reshape(3, 2, 3), NDX18.reshape(3, 3, 2)

IS_2 = MAT2X3_2 == 2.0
FIRST = np.array([[[True, False], [False, False]]])
IDENTITY = np.eye(3)
LABELS = integers(0, 1, 2)
PROBABILITIES = np.array([[0.0, 0.0], [1.0, 0.5], [0.5, 1.0]])
HEADS = (1, 1, 8, 8)  # lamp's (batch, sequence, heads, width) of (1, 8, 1, 8), in the order that PyTorch has


# ---- expressions that are no single function


def assign(_abandon: Any, keep: Any) -> Any:
    return keep


def squared_frobenius(x: Any) -> Any:
    return tg.sum(x * x, axis=(-2, -1))


def lamp_cross_entropy(log_p: Any, target: Any) -> Any:
    return -tg.sum(log_p * target, axis=1, keepdims=True)


def euclidean_distance(x: Any, y: Any) -> Any:
    return linalg.vector_norm(x - y, axis=1, keepdims=True)


def weight_norm(v: Any, g: Any) -> Any:
    return g * v / linalg.vector_norm(v, axis=0, keepdims=True)


def capped_exponential(x: Any) -> Any:
    return tg.where(x <= 2.5, 1.0, tg.exp(2.5 - x))


def logits_to_bce(w: Any, data: Any, y: Any, weight: Any, *, reduction: str) -> Any:
    return F.binary_cross_entropy_with_logits(data @ w, y, reduction=reduction, pos_weight=weight)


def logistic_loss(w: Any, data: Any, y: Any) -> Any:
    return tg.sum(lamp_cross_entropy(tg.log_softmax(data @ w, axis=1), y)) + squared_frobenius(w)


def logistic_nll(w: Any, data: Any, y: Any, weight: Any, *, reduction: str) -> Any:
    loss = F.nll_loss(tg.log_softmax(data @ w, axis=1), y, weight, reduction=reduction)
    return tg.sum(loss) + squared_frobenius(w)


def scatter_columns(x: Any, flat: Any) -> Any:
    """out[index[i, j], j] += x[i, j], the index being given as positions in the flattened result."""
    return tg.reshape(tg.scatter_add(tg.reshape(x, -1), flat, rows=x.size), x.shape)


def batch_norm(x: Any, weight: Any, bias: Any) -> Any:
    return F.batch_norm(x, None, None, weight, bias, training=True)


def flat_batch_norm(x: Any, weight: Any, bias: Any) -> Any:
    """lamp's, which takes all axes but the first as channels. Ours refuses a channel with one element, as PyTorch's."""
    x = tg.flatten(x, 1)
    mean, var = tg.mean(x, axis=0), tg.var(x, axis=0)
    return (x - mean) / tg.sqrt(var + 1e-5) * weight + bias


def layer_norm(x: Any, weight: Any, bias: Any) -> Any:
    return F.layer_norm(x, (3,), weight, bias)


# ---- the table


@dataclass(frozen=True)
class Case:
    """An expression, its operands, the number of the one differentiated, and what lamp's scalar is.

    ``total`` makes the scalar of the result. ``there`` are the operands for gradients, where lamp's own have none.
    """

    expression: Callable[..., Any]
    operands: tuple[Array, ...]
    wrt: int
    expected: float
    total: Callable[..., Any] = tg.sum
    there: tuple[Array, ...] | None = None
    step: float = 1e-6

    @property
    def point(self) -> tuple[Array, ...]:
        return self.there or self.operands


def _one(expression: Callable[..., Any], operand: Array, expected: float, **how: Any) -> Case:
    return Case(expression, (operand,), 0, expected, **how)


_mean = partial(_one, total=tg.mean)
ATTENTION = (ones(*HEADS), ones(*HEADS), ones(*HEADS))
CONV1D = (ND1X2X3, ones(1, 2, 2), ones(1))
CONV2D = (ND1X2X3X3, ones(1, 2, 2, 2), ones(1))
# lamp transposes the first two axes of its weights, which are (in, out, ...) here
TRANSPOSED = (ND1X2X3X3, ones(1, 2, 2, 2), ones(1))
NORM1D = (MAT2X3, NDX3, np.zeros(3))
BIAS1D = (MAT2X3, np.zeros(3), NDX3)
NORM2D = (ND1X2X3X3, ones(2), ones(2))
BCE = (MAT2X2, MAT3X2, PROBABILITIES, ones(1, 2))
NLL = (MAT2X3_2, MAT3X2, LABELS, ones(3))


def _transposed_conv(x: Any, weight: Any, bias: Any) -> Any:
    return F.conv_transpose2d(x, tg.permute_dims(weight, (1, 0, 2, 3)), bias)


def _transposed_padded(x: Any, weight: Any, bias: Any) -> Any:
    return F.conv_transpose2d(x, tg.permute_dims(weight, (1, 0, 2, 3)), bias, padding=1)


CASES: dict[str, Case] = {
    "scaled dot product attention - by q": Case(F.scaled_dot_product_attention, ATTENTION, 0, 64),
    "scaled dot product attention - by k": Case(F.scaled_dot_product_attention, ATTENTION, 1, 64),
    "scaled dot product attention - by v": Case(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v + 10.0), ATTENTION, 2, 704
    ),
    # arithmetic
    "sum": _one(tg.sum, MAT2X3, 21),
    "colSum": _one(lambda x: tg.sum(x, axis=0, keepdims=True), MAT2X3, 21),
    "rowSum": _one(lambda x: tg.sum(x, axis=1, keepdims=True), MAT2X3, 21),
    "assign - right": Case(assign, (DOUBLE, MAT2X3), 1, 21),
    "assign - left": Case(assign, (MAT2X3, DOUBLE), 0, 42),
    "add broadcasted - left": Case(tg.add, (MAT1X1, DOUBLE), 0, 48),
    "add - left": Case(tg.add, (MAT2X3, DOUBLE), 0, 63),
    "add broadcasted - right": Case(tg.add, (DOUBLE, MAT1X1), 1, 48),
    "add - right": Case(tg.add, (DOUBLE, MAT2X3), 1, 63),
    "minus - left": Case(tg.subtract, (MAT2X3, DOUBLE), 0, -21),
    "minus broadcasted - left": Case(tg.subtract, (MAT1X1, DOUBLE), 0, -36),
    "minus broadcasted - right": Case(tg.subtract, (DOUBLE, MAT1X1), 1, 36),
    "minus - right": Case(tg.subtract, (DOUBLE, MAT2X3), 1, 21),
    "constmult": _one(lambda x: x * 2.0, MAT2X3, 42),
    # linear, and a step of 1/4 is exact in float32 while 1e-6 is lost
    "cast to float": _one(lambda x: tg.astype(x, tg.float32), MAT2X3, 21, step=0.25),
    "constadd": _one(lambda x: x + 2.0, MAT2X3, 33),
    "mult broadcasted - left": Case(tg.multiply, (MAT1X1, DOUBLE), 0, 42),
    "mult broadcasted - right": Case(tg.multiply, (DOUBLE, MAT1X1), 1, 42),
    "mult - right": Case(tg.multiply, (DOUBLE, MAT2X3), 1, 182),
    "div - left": Case(tg.divide, (MAT2X3, DOUBLE), 0, 3),
    "div broadcasted - left": Case(tg.divide, (MAT1X1, DOUBLE), 0, 1.225),
    "div - right": Case(tg.divide, (DOUBLE, MAT2X3), 1, 12),
    "min - left": Case(tg.minimum, (MAT2X3, DOUBLE), 0, 21),
    "min - right": Case(tg.minimum, (DOUBLE, MAT2X3), 1, 21),
    "max - left": Case(tg.maximum, (MAT2X3, DOUBLE), 0, 42),
    "max - right": Case(tg.maximum, (DOUBLE, MAT2X3), 1, 42),
    # linear algebra
    "mm - left": Case(tg.matmul, (MAT2X3, 2.0 * MAT3X2), 0, 358),
    "mm - right": Case(tg.matmul, (2.0 * MAT3X2, MAT2X3), 1, 450),
    "bmm - wrt left": Case(tg.matmul, (ND3X2X3, ND3X3X2), 0, 489),
    "bmm - wrt right": Case(tg.matmul, (ND3X2X3, ND3X3X2), 1, 489),
    "diag": _one(lambda x: tg.diag(tg.reshape(x, -1)), MAT3X1, 6),
    "inv": _one(linalg.inv, MAT2X2, -0.5),
    "inv2": _one(linalg.inv, MAT3X3, 2),
    "inv batch": _one(linalg.inv, ND1X3X3, 0),
    "pinv": _one(linalg.pinv, MAT3X3, 2),
    "pinv batch": _one(lambda x: linalg.pinv(tg.stack([x, x]))[0], MAT3X3, 2),
    "logdet": _one(linalg.logdet, MAT2X2PD, 1.3863),
    "cholesky solve, b": Case(lambda b, a: linalg.cholesky_solve(b, linalg.cholesky(a)), (MAT2X2, MAT2X2PD), 0, 58.25),
    "cross left": Case(linalg.cross, (MAT2X3, MAT2X3_2), 0, 28),
    "cross right": Case(linalg.cross, (MAT2X3_2, MAT2X3), 1, -28),
    "squaredFrobenius": _one(squared_frobenius, MAT2X3_2, 91),
    "transpose": _one(tg.matrix_transpose, MAT2X3_2, 11),
    "norm2": _one(lambda x: linalg.vector_norm(x, axis=(0, 1), keepdims=True), MAT2X3_2, 9.5394),
    "weight norm - wrt g": Case(weight_norm, (ones(2, 3), MAT2X3[:1]), 1, 12.7279),
    "weight norm - wrt v": Case(weight_norm, (MAT2X3, ones(1, 3)), 0, 4.15),
    "euclidean distance wrt a": Case(euclidean_distance, (MAT2X3_2, MAT2X3), 0, 10),
    "euclidean distance wrt b": Case(euclidean_distance, (MAT2X3, MAT2X3_2), 1, 10),
    # elementwise functions
    "leakyrelu": _one(lambda x: F.leaky_relu(x, 0.5), MAT2X3_2, 13.5),
    "relu": _one(F.relu, MAT2X3_2, 16),
    "gelu": _one(F.gelu, MAT2X3_2, 15.7917),
    "sigmoid": _one(F.sigmoid, MAT2X3_2, 4.1111),
    "hardswish": _one(F.hardswish, MAT2X3_2 + 0.1, 15.77),
    "exp": _one(tg.exp, MAT2X3_2, 579.7027407),
    "log": _one(tg.log, MAT2X3, 6.579251212),
    "log1p": _one(tg.log1p, MAT2X3, 8.5252),
    "softplus": _one(lambda x: F.softplus(x, 2.0, 0.0), MAT2X3, 21),
    "sin": _one(tg.sin, MAT2X3_2, -0.2725908275),
    "cos": _one(tg.cos, MAT2X3_2, -0.275648176),
    "tan": _one(tg.tan, MAT2X3_2, -8.714336611),
    "atan": _one(tg.atan, MAT2X3_2, 3.024027079),
    "tanh": _one(tg.tanh, MAT2X3_2, 2.1981),
    "capped exp": _one(capped_exponential, MAT3X1, 2.6065),
    "pow": _one(lambda x: tg.pow(x, 2.0), MAT2X3_2, 91),
    # the power of a negative number has no derivative by the exponent: lamp compares NaN with NaN
    "pow 2": Case(tg.pow, (MAT2X3_2, MAT1X1), 1, 11, there=(MAT2X3, MAT1X1)),
    "softmax": _one(lambda x: F.log_softmax(x, 1), MAT2X3_2, -22.44191026),
    # reductions
    "mean": _one(lambda x: tg.mean(x, axis=(0, 1), keepdims=True), MAT2X3_2, 1.8333),
    "variance": _one(lambda x: tg.var(x, axis=1, correction=1, keepdims=True), MAT2X3, 8),
    # losses
    "crossentropy - left": Case(lamp_cross_entropy, (MAT2X3, DOUBLE), 0, -182),
    "crossentropy - right": Case(lamp_cross_entropy, (DOUBLE, MAT2X3), 1, -182),
    "mse loss": Case(F.mse_loss, (MAT3X1, MAT3X1_2), 0, 1),
    "l1 loss": Case(F.smooth_l1_loss, (MAT3X1, MAT3X1_2), 0, 0.5),
    "l2 logistic regression loss": Case(logistic_loss, (MAT2X3_2, MAT3X2, IDENTITY), 0, 151.0000008),
    "l2 logistic regression loss - bce loss": Case(partial(logits_to_bce, reduction="sum"), BCE, 0, 54.5067),
    "l2 logistic regression loss - bce loss mean": Case(partial(logits_to_bce, reduction="mean"), BCE, 0, 9.0845),
    "l2 logistic regression loss - nll_loss": Case(partial(logistic_nll, reduction="sum"), NLL, 0, 151.0000008),
    "l2 logistic regression loss - nll_loss unreduced": Case(
        partial(logistic_nll, reduction="none"), NLL, 0, 151.0000008
    ),
    # selection and indexing
    "where true branch": Case(lambda x, y, c: tg.where(c, x, y), (MAT2X3_2, MAT2X3, IS_2), 0, 21),
    "where false branch": Case(lambda x, y, c: tg.where(c, x, y), (MAT2X3_2, MAT2X3, IS_2), 1, 21),
    "mask-fill": Case(lambda x, mask: tg.where(mask, 2.0, x), (ones(1, 2, 2), FIRST), 0, 5),
    # a graph holds no shape that depends on data: the positions of a mask are found outside
    "mask-select": Case(lambda x, at: tg.take(x, at), (ones(1, 2, 2), integers(0, 3)), 0, 2),
    "index_fill": Case(
        lambda x, rows: tg.where(tg.reshape(tg.equal(rows, 1), (1, 2, 1)), 2.0, x),
        (ones(1, 2, 2), integers(0, 1)),
        0,
        6,
    ),
    "index_select": Case(lambda x, at: tg.take(x, at, axis=1), (ones(1, 2, 2), integers(1, 1, 1)), 0, 6),
    "index sum": Case(lambda x, at: tg.scatter_add(x, at, rows=2), (MAT2X3, integers(1, 1)), 0, 21),
    "index add by target": Case(
        lambda x, y, at: x + tg.scatter_add(y, at, rows=2), (MAT2X3, MAT1X3, integers(0)), 0, 27
    ),
    "index add by src": Case(lambda x, y, at: x + tg.scatter_add(y, at, rows=2), (MAT2X3, MAT1X3, integers(0)), 1, 27),
    "scatter sum": Case(scatter_columns, (MAT2X3, integers(0, 1, 5, 0, 4, 5)), 0, 21),
    "repeat interleave": Case(lambda x, at: tg.take(x, at, axis=0), (MAT2X3, integers(0, 0, 1, 1, 1)), 0, 54),
    "embedding": Case(lambda w, at: F.embedding(at, w), (MAT2X3, np.ones((4, 5), np.int64)), 0, 240),
    "select 0 0": _one(lambda x: x[0], ND1X2X3X3, 153),
    "select 2 1": _one(lambda x: x[:, :, 1], ND1X2X3X3, 51),
    "slice": _one(lambda x: x[:, :, 1:3:1], ND1X2X3X3, 120),
    # sparse
    "sparse to dense": Case(
        lambda x, at: Coo(at, tg.reshape(x, -1), Sizes((3, 2))).to_dense(),
        (MAT3X1, integers([1, 0, 1], [0, 1, 1])),
        0,
        6,
    ),
    "sparse mm - right": Case(
        lambda x, at, values: Coo(at, values, Sizes((3, 2))) @ x,
        (MAT2X3, integers([1, 0], [0, 1]), np.array([2.0, 3.0])),
        0,
        54,
    ),
    # shapes
    "expand as": _one(lambda x: tg.broadcast_to(x, (2, 2, 2, 2)), ones(1, 2, 2), 16),
    "flatten": _one(lambda x: tg.flatten(x, 1), ND1X2X3X3, 153),
    "stack 0": _one(lambda x: tg.stack([x, x], axis=0), ND1X2X3, 42),
    "stack 1": _one(lambda x: tg.stack([x, x], axis=1), ND1X2X3, 42),
    "cat 1": Case(lambda x, y: tg.concat([x, y], axis=1), (ND1X2X3, 3.0 * ND1X2X3), 0, 84),
    "cat 2": Case(lambda x, y: tg.concat([x, y], axis=2), (ND1X2X3, 3.0 * ND1X2X3), 0, 84),
    "view 1": _one(lambda x: tg.expand_dims(x, axis=0), ND1X2X3, 21),
    "reshape 1": _one(lambda x: tg.reshape(x, (1, 1, 2, 3)), ND1X2X3, 21),
    # convolution and pooling
    "conv1d - wrt weights": Case(F.conv1d, CONV1D, 1, 30),
    "conv1d - wrt input": Case(F.conv1d, CONV1D, 0, 30),
    "conv1d - padded - wrt weights": Case(partial(F.conv1d, padding=1), CONV1D, 1, 46),
    "conv1d -padded - wrt input": Case(partial(F.conv1d, padding=1), CONV1D, 0, 46),
    "conv1d - stride-2 - wrt weights": Case(partial(F.conv1d, stride=2, padding=1), CONV1D, 1, 23),
    "conv1d -stride-2 - wrt input": Case(partial(F.conv1d, stride=2, padding=1), CONV1D, 0, 23),
    "conv1d -stride-2 - wrt bias": Case(partial(F.conv1d, stride=2, padding=1), CONV1D, 2, 23),
    "conv2d - wrt weights": Case(F.conv2d, CONV2D, 1, 276),
    "conv2d - wrt weights - groups": Case(partial(F.conv2d, groups=2), (ND1X4X3X3, ones(2, 2, 2, 2), ones(2)), 1, 1128),
    "conv2d - wrt input": Case(F.conv2d, CONV2D, 0, 276),
    "conv2d - padded - wrt input": Case(partial(F.conv2d, padding=1), CONV2D, 0, 628),
    "conv2d - wrt bias": Case(F.conv2d, CONV2D, 2, 276),
    "tranposed conv2d - wrt input": Case(_transposed_conv, TRANSPOSED, 0, 628),
    "tranposed conv2d - wrt input - padded": Case(_transposed_padded, TRANSPOSED, 0, 276),
    "tranposed conv2d - wrt weight": Case(_transposed_conv, TRANSPOSED, 1, 628),
    "tranposed conv2d - wrt bias": Case(_transposed_conv, TRANSPOSED, 2, 628),
    "maxpool1d padded": _one(lambda x: F.max_pool1d(x, 2, 1, 1), ND1X2X3, 32),
    "maxpool1d unpadded": _one(lambda x: F.max_pool1d(x, 2, 1), ND1X2X3, 18),
    "maxpool1d strided": _one(lambda x: F.max_pool1d(x, 2, 2), ND1X2X3, 7),
    "maxpool2d strided": _one(lambda x: F.max_pool2d(x, 2, 2), ND1X2X3X3, 17),
    "maxpool2d strided padded": _one(lambda x: F.max_pool2d(x, 2, 2, 1), ND1X2X3X3, 68),
    "avgpool2d strided padded": _one(lambda x: F.avg_pool2d(x, 2, 2, 1), ND1X2X3X3, 38.25),
    # normalisation
    "batch norm 1d - wrt to input": Case(batch_norm, NORM1D, 0, 0),
    "batch norm 1d - wrt to weight": Case(batch_norm, NORM1D, 1, 0),
    "batch norm 1d - wrt to bias": Case(batch_norm, BIAS1D, 2, 12),
    "batch norm 2d - wrt to input": Case(flat_batch_norm, (ND1X2X3, ones(6), ones(6)), 0, 6),
    "batch norm 2d - wrt to weights": Case(flat_batch_norm, (ND1X2X3, NDX6, ones(6)), 1, 6),
    "batch norm 2d - wrt to bias": Case(flat_batch_norm, (ND1X2X3, ones(6), NDX6), 2, 21),
    "batch norm 3d - wrt to input": Case(flat_batch_norm, (ND1X2X3X3, ones(18), ones(18)), 0, 18),
    "batch norm 3d - wrt to weights": Case(flat_batch_norm, (ND1X2X3X3, NDX18, ones(18)), 1, 18),
    "batch norm 3d - wrt to bias": Case(flat_batch_norm, (ND1X2X3X3, ones(18), NDX18), 2, 63),
    "BatchNorm2D - wrt to input": Case(batch_norm, NORM2D, 0, 18),
    "BatchNorm2D - wrt to weights": Case(batch_norm, NORM2D, 1, 18),
    "BatchNorm2D - wrt to bias": Case(batch_norm, NORM2D, 2, 18),
    "layer norm 1d - wrt to input": Case(layer_norm, NORM1D, 0, 0.8165, total=tg.mean),
    "layer norm 1d - wrt to input - no scale and no bias": _mean(lambda x: F.layer_norm(x, (3,)), MAT2X3, 0),
    "layer norm 1d - wrt to weight": Case(layer_norm, NORM1D, 1, 0.8165, total=tg.mean),
    "layer norm 1d - wrt to weight - no bias": Case(
        lambda x, w: F.layer_norm(x, (3,), w), (MAT2X3, NDX3), 1, 0.8165, total=tg.mean
    ),
    "layer norm 1d - wrt to bias": Case(layer_norm, BIAS1D, 2, 2, total=tg.mean),
    "layer norm 1d - wrt to bias - no scale": Case(
        lambda x, b: F.layer_norm(x, (3,), None, b), (MAT2X3, NDX3), 1, 2, total=tg.mean
    ),
}

NAMES = pytest.mark.parametrize("name", CASES)


def _check_slope(name: str, case: Case, operands: tuple[Array, ...], seed: Callable[[Value], Array]) -> None:
    """The gradient of <seed, result> by the named operand, against central differences."""
    xs = inputs_for(operands)
    y = case.expression(*xs)
    g = seed(y)
    (cotangent,) = inputs_for([g])
    (slope,) = gradient([y], [cotangent], [xs[case.wrt]])

    (found,) = evaluate([slope], {**dict(zip(xs, operands, strict=True)), cotangent: g})
    wanted = differences(lambda at: float(np.sum(g * call(case.expression, *at))), operands, case.wrt, case.step)

    scale = max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * scale, err_msg=name, equal_nan=False)


def _random(name: str, y: Value) -> Array:
    return generator(name).normal(size=y.shape).astype(np.float32 if y.dtype is tg.float32 else np.float64)


def _near(name: str, operands: tuple[Array, ...]) -> tuple[Array, ...]:
    """The operands with small random changes to those that are real numbers: no symmetry and no equal ones."""
    rng = generator(name)
    return tuple(a + rng.uniform(-0.02, 0.02, a.shape) if a.dtype == np.float64 else a for a in operands)


def test_the_144_cases_of_lamp_are_accounted_for() -> None:
    assert len(CASES) == 144


@NAMES
def test_value_is_that_of_lamp(name: str) -> None:
    case = CASES[name]

    found = call(lambda *xs: case.total(case.expression(*xs)), *case.operands)

    assert abs(float(found) - case.expected) < 0.51e-4  # four decimals


@NAMES
def test_gradient_of_the_scalar_that_lamp_has(name: str) -> None:
    case = CASES[name]
    scalar = replace(case, expression=lambda *xs: case.total(case.expression(*xs)))

    _check_slope(name, scalar, case.point, lambda y: np.ones(y.shape))


@NAMES
def test_gradient_for_a_random_cotangent(name: str) -> None:
    case = CASES[name]

    _check_slope(name, case, case.point, partial(_random, name))


@NAMES
def test_gradient_for_a_random_cotangent_without_symmetry(name: str) -> None:
    case = CASES[name]

    _check_slope(name, case, _near(name, case.point), partial(_random, name))


# ---- what is wrong in lamp


def _draw(*shape: int) -> Array:
    return generator(str(shape)).uniform(0.5, 2.0, shape)


def _used_twice(x: Any, at: Any) -> Any:
    return x * tg.take(x, at, axis=0) + tg.take(x * x, at, axis=0)


DEFECTS: dict[str, tuple[Callable[..., Any], tuple[Array, ...]]] = {
    "cross": (linalg.cross, (_draw(2, 3), _draw(4, 1, 3))),
    "pow by a scalar exponent": (tg.pow, (_draw(2, 3), _draw(1))),
    "pow by an exponent for each element": (tg.pow, (_draw(2, 3), _draw(2, 3))),
    "minimum, broadcast": (tg.minimum, (_draw(4, 3), _draw(3))),
    "maximum, broadcast": (tg.maximum, (_draw(4, 3), _draw(4, 1))),
    "variance over two axes": (lambda x: tg.var(x, axis=(0, 2), correction=1), (_draw(2, 3, 4),)),
    "inv": (linalg.inv, (_draw(3, 3) + 2.0 * np.eye(3),)),
    "inv of a stack": (linalg.inv, (_draw(2, 3, 3) + 2.0 * np.eye(3),)),
    "pinv, square": (linalg.pinv, (_draw(3, 3) + 2.0 * np.eye(3),)),
    "pinv, tall": (linalg.pinv, (_draw(4, 2),)),
    "pinv, wide": (linalg.pinv, (_draw(2, 4),)),
    "index select of a variable used twice": (_used_twice, (_draw(3, 2), integers(2, 0, 2))),
    "repeat along axis 1": (lambda x: tg.repeat(x, 3, axis=1), (_draw(2, 3),)),
    "uneven repeat along axis 1": (lambda x, at: tg.take(x, at, axis=1), (_draw(2, 3), integers(0, 0, 1, 2, 2))),
    "sum over a middle axis": (lambda x: tg.sum(x, axis=1), (_draw(2, 2, 2),)),
    "mean over a middle axis": (lambda x: tg.mean(x, axis=1), (_draw(2, 2, 2),)),
    "mean over a negative axis": (lambda x: tg.mean(x, axis=-2), (_draw(2, 2, 2),)),
    "norm over a middle axis": (lambda x: linalg.vector_norm(x, axis=1), (_draw(2, 2, 2),)),
}
"""Where a rule of lamp is wrong for some cotangent or operand."""


@pytest.mark.parametrize("name", DEFECTS)
def test_defect_of_lamp_is_not_ours(name: str) -> None:
    build, operands = DEFECTS[name]

    check_gradients(build, operands, name=name, order=1)


@pytest.mark.parametrize("extreme", [tg.minimum, tg.maximum], ids=["minimum", "maximum"])
def test_equal_elements_share_the_gradient_of_an_extreme(extreme: Callable[..., Any]) -> None:
    # central differences at a tie are the mean of both sides, which is what equal shares give
    tied = np.array([1.0, 2.0, 3.0]), np.array([1.0, 5.0, 3.0])

    check_gradients(extreme, tied, name="ties", order=1)
