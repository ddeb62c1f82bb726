"""Power means of windows and the inverse of max pooling as modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from telegrad.nn import functional as F
from telegrad.nn.module import Module
from telegrad.ops.convolution import Sizes
from telegrad.tensor import Tensor


class _LPPool(Module):
    axes = 0

    def __init__(
        self, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        self.norm_type, self.kernel_size, self.stride, self.ceil_mode = norm_type, kernel_size, stride, ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        """The p-norm of each window."""
        pool: Any = getattr(F, f"lp_pool{self.axes}d")
        return pool(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride},"
            f" ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """The p-norm of each window of [N, C, L]; see `functional.lp_pool1d`."""

    axes = 1


class LPPool2d(_LPPool):
    """The p-norm of each window of [N, C, H, W]; see `functional.lp_pool1d`."""

    axes = 2


class LPPool3d(_LPPool):
    """The p-norm of each window of [N, C, D, H, W]; see `functional.lp_pool1d`."""

    axes = 3


class _MaxUnpool(Module):
    axes = 0

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0) -> None:
        super().__init__()
        self.kernel_size, self.padding = kernel_size, padding
        self.stride = kernel_size if stride is None else stride

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """input at its places, zeros elsewhere."""
        unpool: Any = getattr(F, f"max_unpool{self.axes}d")
        return unpool(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """Elements of [N, C, L] back at their places; see `functional.max_unpool1d`."""

    axes = 1


class MaxUnpool2d(_MaxUnpool):
    """Elements of [N, C, H, W] back at their places; see `functional.max_unpool1d`."""

    axes = 2


class MaxUnpool3d(_MaxUnpool):
    """Elements of [N, C, D, H, W] back at their places; see `functional.max_unpool1d`."""

    axes = 3
