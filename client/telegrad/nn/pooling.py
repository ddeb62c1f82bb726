"""Pools over one to three axes, as modules without parameters."""

from __future__ import annotations

from typing import Any

from telegrad.nn import functional as F
from telegrad.nn.module import Module
from telegrad.ops.convolution import Sizes
from telegrad.tensor import Tensor


class _MaxPool(Module):
    axes = 0

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, input: Tensor) -> Any:
        """The largest element of each window; with its place if ``return_indices``."""
        pool: Any = getattr(F, f"max_pool{self.axes}d")
        return pool(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation},"
            f" ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The largest element of each window of [N, C, L]; see `functional.max_pool1d`."""

    axes = 1


class MaxPool2d(_MaxPool):
    """The largest element of each window of [N, C, H, W]; see `functional.max_pool2d`."""

    axes = 2


class MaxPool3d(_MaxPool):
    """The largest element of each window of [N, C, D, H, W]; see `functional.max_pool3d`."""

    axes = 3


class AvgPool1d(Module):
    """The mean of each window of [N, C, L]; see `functional.avg_pool1d`."""

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        """The mean of each window."""
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPool(Module):
    axes = 0

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        """The mean of each window."""
        pool: Any = getattr(F, f"avg_pool{self.axes}d")
        return pool(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(_AvgPool):
    """The mean of each window of [N, C, H, W]; see `functional.avg_pool2d`."""

    axes = 2


class AvgPool3d(_AvgPool):
    """The mean of each window of [N, C, D, H, W]; see `functional.avg_pool3d`."""

    axes = 3


class _Adaptive(Module):
    function = ""

    def __init__(self, output_size: int | tuple[int | None, ...]) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        """One number for each of ``output_size`` windows."""
        pool: Any = getattr(F, self.function)
        return pool(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_Adaptive):
    """The means of ``output_size`` windows over [N, C, L]; see `functional.adaptive_avg_pool1d`."""

    function = "adaptive_avg_pool1d"


class AdaptiveAvgPool2d(_Adaptive):
    """The means of ``output_size`` windows over [N, C, H, W]; see `functional.adaptive_avg_pool1d`."""

    function = "adaptive_avg_pool2d"


class AdaptiveAvgPool3d(_Adaptive):
    """The means of ``output_size`` windows over [N, C, D, H, W]; see `functional.adaptive_avg_pool1d`."""

    function = "adaptive_avg_pool3d"


class AdaptiveMaxPool1d(_Adaptive):
    """The largest elements of ``output_size`` windows over [N, C, L]; see `functional.adaptive_max_pool1d`."""

    function = "adaptive_max_pool1d"


class AdaptiveMaxPool2d(_Adaptive):
    """The largest elements of ``output_size`` windows over [N, C, H, W]; see `functional.adaptive_max_pool1d`."""

    function = "adaptive_max_pool2d"


class AdaptiveMaxPool3d(_Adaptive):
    """The largest elements of ``output_size`` windows over [N, C, D, H, W]; see `functional.adaptive_max_pool1d`."""

    function = "adaptive_max_pool3d"
