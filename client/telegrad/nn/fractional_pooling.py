"""Max pooling by windows at random distances as modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from telegrad.errors import GraphError
from telegrad.nn import functional as F
from telegrad.nn.module import Module
from telegrad.ops.convolution import Sizes
from telegrad.tensor import Tensor


class _FractionalMaxPool(Module):
    axes = 0

    def __init__(
        self,
        kernel_size: Sizes,
        output_size: Sizes | None = None,
        output_ratio: float | Sequence[float] | None = None,
        return_indices: bool = False,
        _random_samples: Tensor | None = None,
    ) -> None:
        super().__init__()
        if (output_size is None) == (output_ratio is None):
            raise GraphError(f"{type(self).__name__}: takes either output_size or output_ratio")
        self.kernel_size, self.output_size, self.output_ratio = kernel_size, output_size, output_ratio
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The largest element of each window, and with ``return_indices`` its place."""
        pool: Any = getattr(F, f"fractional_max_pool{self.axes}d")
        return pool(
            input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices, self._random_samples
        )

    def extra_repr(self) -> str:
        size = f"output_ratio={self.output_ratio}" if self.output_size is None else f"output_size={self.output_size}"
        return f"kernel_size={self.kernel_size}, {size}"


class FractionalMaxPool2d(_FractionalMaxPool):
    """Windows of [N, C, H, W] at random distances; see `functional.fractional_max_pool2d`."""

    axes = 2


class FractionalMaxPool3d(_FractionalMaxPool):
    """Windows of [N, C, D, H, W] at random distances; see `functional.fractional_max_pool2d`."""

    axes = 3
