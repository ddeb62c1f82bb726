"""Padding as modules; see `functional.pad`."""

from __future__ import annotations

from collections.abc import Sequence

from telegrad.errors import ShapeError
from telegrad.nn import functional as F
from telegrad.nn.module import Module
from telegrad.tensor import Tensor


class _Pad(Module):
    """``padding`` is one width, or (before, after) of the last axis, of the one before it, and so on."""

    axes = 0
    mode = "constant"
    value = 0.0

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__()
        widths = (padding,) * (2 * self.axes) if isinstance(padding, int) else tuple(padding)
        if len(widths) != 2 * self.axes:
            raise ShapeError(f"{type(self).__name__}: padding is one width or {2 * self.axes}, not {widths}")
        self.padding = widths

    def forward(self, input: Tensor) -> Tensor:
        """input with its last axes padded."""
        if self.mode != "constant" and input.ndim not in (self.axes + 1, self.axes + 2):
            raise ShapeError(
                f"{type(self).__name__}({input.type}): takes {self.axes + 2} axes, or {self.axes + 1} without a batch"
            )
        return F.pad(input, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        self.value = value

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """The last axis of [N, C, L] with copies of ``value`` around."""

    axes = 1


class ConstantPad2d(_ConstantPad):
    """The last two axes of [N, C, H, W] with copies of ``value`` around."""

    axes = 2


class ConstantPad3d(_ConstantPad):
    """The last three axes of [N, C, D, H, W] with copies of ``value`` around."""

    axes = 3


class ZeroPad1d(_Pad):
    """The last axis of [N, C, L] with zeros around."""

    axes = 1


class ZeroPad2d(_Pad):
    """The last two axes of [N, C, H, W] with zeros around."""

    axes = 2


class ZeroPad3d(_Pad):
    """The last three axes of [N, C, D, H, W] with zeros around."""

    axes = 3


class ReflectionPad1d(_Pad):
    """The last axis of [N, C, L] with its mirror image, without the edge around."""

    axes = 1
    mode = "reflect"


class ReflectionPad2d(_Pad):
    """The last two axes of [N, C, H, W] with its mirror image, without the edge around."""

    axes = 2
    mode = "reflect"


class ReflectionPad3d(_Pad):
    """The last three axes of [N, C, D, H, W] with its mirror image, without the edge around."""

    axes = 3
    mode = "reflect"


class ReplicationPad1d(_Pad):
    """The last axis of [N, C, L] with copies of its edge around."""

    axes = 1
    mode = "replicate"


class ReplicationPad2d(_Pad):
    """The last two axes of [N, C, H, W] with copies of its edge around."""

    axes = 2
    mode = "replicate"


class ReplicationPad3d(_Pad):
    """The last three axes of [N, C, D, H, W] with copies of its edge around."""

    axes = 3
    mode = "replicate"


class CircularPad1d(_Pad):
    """The last axis of [N, C, L] with what lies at the other end around."""

    axes = 1
    mode = "circular"


class CircularPad2d(_Pad):
    """The last two axes of [N, C, H, W] with what lies at the other end around."""

    axes = 2
    mode = "circular"


class CircularPad3d(_Pad):
    """The last three axes of [N, C, D, H, W] with what lies at the other end around."""

    axes = 3
    mode = "circular"
