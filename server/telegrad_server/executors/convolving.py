"""Convolutions as kernels of the library: which ops and types have one, and its arguments.

One and two axes in float32 have kernels; of three axes, of other dtypes and of windows with more than `MOST_TAPS`
elements NumPy's bodies take care.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import ClassVar

from telegrad.ir.op import Op
from telegrad.ir.types import Shape, Type, float32, product
from telegrad.ops.convolution import Convolution, ConvolutionInput, ConvolutionWeight, Convolving

from telegrad_server.compiler.layout import contiguous_strides
from telegrad_server.executors.driver import KernelCall, Layout
from telegrad_server.executors.library import Library

MOST_TAPS = 4096
"""A kernel keeps a few numbers for each element of a window on its stack."""

SIZES = (
    "samples", "groups", "channels", "height", "width", "outputs", "rows", "columns", "kernel_y", "kernel_x",
    "stride_y", "stride_x", "before_y", "before_x", "dilation_y", "dilation_x",
)  # fmt: skip


class Window(ctypes.Structure):
    """``struct tg_convolution``."""

    _fields_: ClassVar = [
        *[(name, ctypes.c_void_p) for name in ("left", "right", "out")],
        *[(name, ctypes.c_long) for name in SIZES],
    ]


def convolution_calls(
    op: Op, library: Library, operands: Sequence[Layout], results: Sequence[Type]
) -> list[KernelCall]:
    """The call of a convolution or of one of its gradients; none where NumPy is to do it."""
    if any(strides != contiguous_strides(t.shape) for t, strides in operands):
        return []
    made = convolving(op, [t for t, _ in operands])
    if made is None:
        return []
    name, arguments = made
    units = library.count(f"{name}_units", ctypes.addressof(arguments))
    pointers = tuple([(k, k * ctypes.sizeof(ctypes.c_void_p)) for k in range(3)])
    return [KernelCall(library.address(name), arguments, units, pointers=pointers)]


def convolving(op: Op, types: Sequence[Type]) -> tuple[str, Window] | None:
    """The kernel of an op on operands of these types in C order, and what it is given but for addresses; or None."""
    make = _KERNELS.get(type(op))
    if make is None or not isinstance(op, Convolving) or any(t.dtype is not float32 for t in types):
        return None
    out = op.infer(*types)
    assert isinstance(out, Type)
    name, x, weight, y = make(types, out.shape)
    window = weight[2:]
    if len(window) > 2 or min(x + weight + y) == 0 or product(window) > MOST_TAPS:
        return None
    arguments = Window(
        None, None, None, x[0], op.groups, weight[1], *_two(x[2:]), weight[0] // op.groups, *_two(y[2:]), *_two(window),
        *_two(op.stride), *_two(op.before, 0), *_two(op.dilation),
    )  # fmt: skip
    return name, arguments


def _two(sizes: Shape, missing: int = 1) -> Shape:
    """The sizes of two axes; one axis is the last of them."""
    return sizes if len(sizes) == 2 else (missing, *sizes)


def _forwards(types: Sequence[Type], out: Shape) -> tuple[str, Shape, Shape, Shape]:
    x, weight = types
    return "tg_convolution", x.shape, weight.shape, out


def _to_input(types: Sequence[Type], out: Shape) -> tuple[str, Shape, Shape, Shape]:
    y, weight = types
    return "tg_convolution_input", out, weight.shape, y.shape


def _to_weight(types: Sequence[Type], out: Shape) -> tuple[str, Shape, Shape, Shape]:
    x, y = types
    return "tg_convolution_weight", x.shape, out, y.shape


_KERNELS: dict[type[Op], Callable[[Sequence[Type], Shape], tuple[str, Shape, Shape, Shape]]] = {
    Convolution: _forwards,
    ConvolutionInput: _to_input,
    ConvolutionWeight: _to_weight,
}
