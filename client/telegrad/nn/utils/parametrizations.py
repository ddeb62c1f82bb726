"""Weight and spectral normalisation as parametrizations, with PyTorch's state keys."""

from __future__ import annotations

from telegrad import context, ops, random
from telegrad.errors import AxisError, GraphError
from telegrad.ir.value import Value
from telegrad.lazy import Leaf
from telegrad.nn import functional as F
from telegrad.nn.conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from telegrad.nn.module import Module
from telegrad.nn.utils.parametrize import register_parametrization
from telegrad.ops.matrix_norms import vector_norm
from telegrad.tensor import Tensor
from telegrad.variable import Variable


def norm_except_dim(v: Tensor, dim: int | None) -> Tensor:
    """The length of v over all axes but one, which stay as axes of size 1; over all as a number if dim is None."""
    if dim is None:
        return vector_norm(v)
    if not -v.ndim <= dim < v.ndim:
        raise AxisError(f"weight_norm: axis {dim} is out of range for {v.type}")
    axes = tuple(i for i in range(v.ndim) if i != dim % v.ndim)
    return vector_norm(v, axis=axes, keepdims=True) if axes else ops.abs(v)


class _WeightNorm(Module):
    """original0 times original1 over its length."""

    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.dim = None if dim == -1 else dim  # PyTorch takes -1 for all axes, too

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        """weight_g * weight_v / |weight_v|."""
        return weight_v * (weight_g / norm_except_dim(weight_v, self.dim))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(its length, itself)."""
        return norm_except_dim(weight, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Learn a weight's length and direction apart (Salimans, Kingma 2016): a length for each index of axis ``dim``.

    One length for all of it if ``dim`` is None. State keys: ``parametrizations.weight.original0`` (the lengths) and
    ``original1``. Undone by `parametrize.remove_parametrizations`.
    """
    return register_parametrization(module, name, _WeightNorm(dim), unsafe=True)


class _SpectralNorm(Module):
    """A weight over its largest singular value, which a power iteration follows while the weight learns."""

    def __init__(self, weight: Tensor, n_power_iterations: int, dim: int, eps: float) -> None:
        super().__init__()
        if n_power_iterations < 1:
            raise GraphError(f"spectral_norm: n_power_iterations must be positive, not {n_power_iterations}")
        if not -weight.ndim <= dim < weight.ndim:
            raise AxisError(f"spectral_norm: axis {dim} is out of range for {weight.type}")
        self.n_power_iterations, self.dim, self.eps = n_power_iterations, dim % weight.ndim, eps
        if weight.ndim > 1:
            with context.no_grad():
                matrix = as_matrix(weight, self.dim)
                u, v = start(matrix, eps)
                for _ in range(15):
                    u, v = self._step(matrix, v)
            self.register_buffer("_u", Variable(u))
            self.register_buffer("_v", Variable(v))

    def _step(self, matrix: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        u = F.normalize(matrix @ v, dim=0, eps=self.eps)
        return u, F.normalize(matrix.mT @ u, dim=0, eps=self.eps)

    def forward(self, weight: Tensor) -> Tensor:
        """weight over its largest singular value."""
        if weight.ndim == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        u, v = self._u.detach(), self._v.detach()
        if self.training:
            with context.no_grad():
                for _ in range(self.n_power_iterations):
                    u, v = self._step(matrix.detach(), v)
                self._u.assign(u)
                self._v.assign(v)
            u, v = constant(u), constant(v)
        return weight / ops.vecdot(u, matrix @ v)


def constant(x: Tensor) -> Tensor:
    """x as it is now, for gradients that are asked for after the variables it was computed from have moved on.

    Sends what is pending, unless a function is traced, where a value is what it is.
    """
    if context.TRACE.get() is not None:
        return x
    return x.session.tensor(Value(Leaf(x.type, x.session.handle_of(x))))


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """The weight as rows by axis ``dim``."""
    return ops.reshape(ops.moveaxis(weight, dim, 0), (weight.shape[dim], -1))


def start(matrix: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Random vectors of length 1 to begin a power iteration with."""
    u, v = (random.normal(n, dtype=matrix.dtype) for n in matrix.shape)
    return F.normalize(u, dim=0, eps=eps), F.normalize(v, dim=0, eps=eps)


def default_dim(module: Module, dim: int | None) -> int:
    """The axis of a weight's outputs."""
    is_transposed = isinstance(module, (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d))
    return dim if dim is not None else int(is_transposed)


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """Divide a weight by its largest singular value, as a matrix by axis ``dim`` (Miyato et al. 2018).

    Each reading in training mode makes ``n_power_iterations`` steps of the power iteration, whose vectors are the
    buffers ``parametrizations.weight.0._u`` and ``_v``. Axis 0 if not given, 1 for a transposed convolution.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise GraphError(f"spectral_norm: {type(module).__name__} has no parameter {name!r}")
    return register_parametrization(
        module, name, _SpectralNorm(weight, n_power_iterations, default_dim(module, dim), eps)
    )


__all__ = ["spectral_norm", "weight_norm"]
