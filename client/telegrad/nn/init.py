"""Initial values of parameters, with PyTorch's names and formulas. Each assigns to the variable and returns it."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from telegrad import ops, random
from telegrad.creation import asarray, full
from telegrad.errors import GraphError, ShapeError
from telegrad.ir import types
from telegrad.ops.decompositions import qr
from telegrad.ops.linalg import diagonal
from telegrad.tensor import Tensor
from telegrad.variable import Variable

X = TypeVar("X", bound=Variable)

_LINEAR = ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


def uniform_(tensor: X, a: float = 0.0, b: float = 1.0) -> X:
    """Numbers from the uniform distribution on [a, b)."""
    tensor.assign(random.uniform(tensor.shape, a, b, dtype=tensor.dtype))
    return tensor


def normal_(tensor: X, mean: float = 0.0, std: float = 1.0) -> X:
    """Numbers from the normal distribution."""
    tensor.assign(random.normal(tensor.shape, mean, std, dtype=tensor.dtype))
    return tensor


def trunc_normal_(tensor: X, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> X:
    """Numbers from the normal distribution, of which those outside [a, b] are left out; a and b are no multiples."""
    if not a < b or std <= 0:
        raise GraphError(f"trunc_normal_: a ({a}) must be below b ({b}), and std ({std}) positive")
    low, high = (a - mean) / std, (b - mean) / std
    side = -1.0 if low > 0 else 1.0  # the upper tail is drawn as the lower one, where probabilities are exact
    low, high = (-high, -low) if side < 0 else (low, high)
    first, last = (math.erfc(-x / math.sqrt(2)) / 2 for x in (low, high))
    drawn = _normal_quantile(random.uniform(tensor.shape, first, last, dtype=types.float64))
    tensor.assign(ops.astype(ops.clip(drawn * (side * std) + mean, a, b), tensor.dtype))
    return tensor


def constant_(tensor: X, val: float) -> X:
    """One number everywhere."""
    tensor.assign(full(tensor.shape, val, dtype=tensor.dtype))
    return tensor


def zeros_(tensor: X) -> X:
    """Zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: X) -> X:
    """Ones."""
    return constant_(tensor, 1.0)


def eye_(tensor: X) -> X:
    """Ones on the diagonal of a matrix, zeros elsewhere."""
    if tensor.ndim != 2:
        raise ShapeError(f"eye_: takes a tensor of two axes, not {tensor.type}")
    return _assign(tensor, np.eye(tensor.shape[0], tensor.shape[1]))


def dirac_(tensor: X, groups: int = 1) -> X:
    """The weight[out, in, ...] of a convolution that hands as many of its channels on as it can, in each group."""
    if tensor.ndim not in (3, 4, 5):
        raise ShapeError(f"dirac_: takes the weight of a convolution, of 3, 4 or 5 axes, not {tensor.type}")
    if groups < 1 or tensor.shape[0] % groups:
        raise ShapeError(f"dirac_: {tensor.shape[0]} output channels must be divisible into {groups} groups")
    values = np.zeros(tensor.shape)
    each = tensor.shape[0] // groups
    for i in range(min(each, tensor.shape[1]) if values.size else 0):
        values[(slice(i, None, each), i, *(n // 2 for n in tensor.shape[2:]))] = 1.0
    return _assign(tensor, values)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan in, fan out) of a weight[out, in, ...]."""
    if len(shape) < 2:
        raise ShapeError(f"fan in and fan out need a weight of two axes or more, not {list(shape)}")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a nonlinearity's inputs are to be scaled."""
    gains = {**dict.fromkeys(_LINEAR, 1.0), "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2.0), "selu": 0.75}
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in gains:
        raise GraphError(f"calculate_gain: nonlinearity {nonlinearity!r} is not known")
    return gains[nonlinearity]


def xavier_uniform_(tensor: X, gain: float = 1.0) -> X:
    """Glorot and Bengio 2010, equation 16."""
    fan_in, fan_out = fans(tensor.shape)
    bound = gain * math.sqrt(6.0 / (fan_in + fan_out))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: X, gain: float = 1.0) -> X:
    """Glorot and Bengio 2010, equation 12, with normal numbers."""
    fan_in, fan_out = fans(tensor.shape)
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / (fan_in + fan_out)))


def _kaiming(shape: tuple[int, ...], a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise GraphError(f"mode must be 'fan_in' or 'fan_out', not {mode!r}")
    fan = fans(shape)[0 if mode == "fan_in" else 1]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def kaiming_uniform_(tensor: X, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> X:
    """He et al. 2015, equation 14, with uniform numbers. An empty tensor stays as it is."""
    if tensor.size == 0:
        return tensor
    bound = math.sqrt(3.0) * _kaiming(tensor.shape, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: X, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> X:
    """He et al. 2015, equation 14. An empty tensor stays as it is."""
    if tensor.size == 0:
        return tensor
    return normal_(tensor, 0.0, _kaiming(tensor.shape, a, mode, nonlinearity))


def orthogonal_(tensor: X, gain: float = 1.0) -> X:
    """Orthonormal rows, or columns if they are fewer, times ``gain``; axes behind the first are one (Saxe et al. 2013).

    Uniform among the orthogonal matrices: signs by the diagonal of R (Mezzadri 2007, section 5).
    """
    if tensor.ndim < 2:
        raise ShapeError(f"orthogonal_: takes a tensor of two axes or more, not {tensor.type}")
    if tensor.size == 0:
        return tensor
    rows, columns = tensor.shape[0], tensor.size // tensor.shape[0]
    dtype = types.promote(tensor.dtype, types.float32)
    q, r = qr(random.normal((max(rows, columns), min(rows, columns)), dtype=dtype))
    q = q * ops.where(diagonal(r) < 0, -gain, gain)
    tensor.assign(ops.astype(ops.reshape(q.mT if rows < columns else q, tensor.shape), tensor.dtype))
    return tensor


def sparse_(tensor: X, sparsity: float, std: float = 0.01) -> X:
    """Normal numbers, of which in each column a fraction ``sparsity``, rounded up, is zero (Martens 2010)."""
    if tensor.ndim != 2:
        raise ShapeError(f"sparse_: takes a tensor of two axes, not {tensor.type}")
    if not 0.0 <= sparsity <= 1.0:
        raise GraphError(f"sparse_: sparsity is a fraction from 0 to 1, not {sparsity}")
    order = ops.argsort(random.uniform(tensor.shape), axis=0)  # each column a random order of its rows
    values = random.normal(tensor.shape, 0.0, std, dtype=tensor.dtype)
    tensor.assign(ops.where(order < math.ceil(sparsity * tensor.shape[0]), 0, values))
    return tensor


def _assign(tensor: X, values: npt.NDArray[Any]) -> X:
    tensor.assign(asarray(values, dtype=tensor.dtype))
    return tensor


def _normal_quantile(p: Tensor) -> Tensor:
    """The number below which a standard normal one lies with probability p, to 1e-7 (Wichura 1988, AS 241, PPND7)."""
    q = p - 0.5
    r = 0.180625 - q * q
    middle = q * _polynomial(r, 3.3871327179, 50.434271938, 159.29113202, 59.109374720)
    middle = middle / _polynomial(r, 1.0, 17.895169469, 78.757757664, 67.187563600)
    far = ops.sqrt(-ops.log(ops.maximum(ops.minimum(p, 1 - p), 1e-300)))
    near, r = far - 1.6, far - 5.0
    tail = ops.where(
        far <= 5.0,
        _polynomial(near, 1.4234372777, 2.7568153900, 1.3067284816, 0.17023821103)
        / _polynomial(near, 1.0, 0.73700164250, 0.12021132975),
        _polynomial(r, 6.6579051150, 3.0812263860, 0.42868294337, 0.017337203997)
        / _polynomial(r, 1.0, 0.24197894225, 0.012258202635),
    )
    return ops.where(ops.abs(q) <= 0.425, middle, ops.where(q < 0, -tail, tail))


def _polynomial(x: Tensor, *coefficients: float) -> Tensor:
    """The coefficients times the powers of x, from the constant on."""
    found: Tensor = x * coefficients[-1] + coefficients[-2]
    for c in reversed(coefficients[:-2]):
        found = found * x + c
    return found
