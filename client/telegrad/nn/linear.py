"""Linear layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from telegrad.creation import zeros
from telegrad.errors import GraphError, ShapeError
from telegrad.ir import types
from telegrad.ir.types import DType, normalize_axis
from telegrad.nn import functional as F
from telegrad.nn import init
from telegrad.nn.module import Module
from telegrad.tensor import Tensor
from telegrad.variable import Parameter


class Linear(Module):
    """x[..., in] -> x @ weight[out, in].T + bias[out]. Initial values as in PyTorch: uniform within 1 / sqrt(in)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, dtype: DType = types.float32) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(zeros((out_features, in_features), dtype=dtype))
        self.register_parameter("bias", Parameter(zeros((out_features,), dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """input @ weight.T + bias."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Identity(Module):
    """The input."""

    def forward(self, input: Tensor) -> Tensor:
        """input."""
        return input


class Flatten(Module):
    """Axes ``start_dim`` to ``end_dim`` joined into one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        """input with its axes joined."""
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Axis ``dim`` split into several of sizes ``unflattened_size``, one of which may be -1."""

    def __init__(self, dim: int | str, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        if isinstance(dim, str):
            raise GraphError("Unflatten: axes have no names here; dim must be an integer")
        if not unflattened_size:
            raise GraphError("Unflatten: unflattened_size must name one size at least")
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, input: Tensor) -> Tensor:
        """input with one axis split."""
        axis = normalize_axis(self.dim, input.ndim, op="Unflatten")
        n, given = input.shape[axis], self.unflattened_size
        rest = math.prod(m for m in given if m != -1)
        fits = n == rest if -1 not in given else given.count(-1) == 1 and rest > 0 and n % rest == 0
        if not fits or min(given) < -1:
            raise ShapeError(f"Unflatten: axis {axis} of {input.type} cannot become {list(given)}")
        sizes = [n // rest if m == -1 else m for m in given]
        return input.reshape(*input.shape[:axis], *sizes, *input.shape[axis + 1 :])

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Bilinear(Module):
    """x1[..., in1] and x2[..., in2] -> x1 weight[out] x2 + bias[out]. Initially uniform within 1 / sqrt(in1)."""

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__()
        if in1_features < 1:
            raise ShapeError(f"Bilinear: in1_features must be positive, not {in1_features}")
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        self.weight = Parameter(zeros((out_features, in1_features, in2_features), dtype=dtype))
        self.register_parameter("bias", Parameter(zeros((out_features,), dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        bound = 1 / math.sqrt(self.in1_features)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """bilinear(input1, input2)."""
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, out_features={self.out_features},"
            f" bias={self.bias is not None}"
        )
