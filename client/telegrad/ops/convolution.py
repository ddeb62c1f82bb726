"""Convolution over one to three axes, forwards, to its input and to its weight.

Each of the three ops is linear in both of its operands, and the derivatives of each are the other two: any order.
Layouts are PyTorch's: x[N, C, *size], weight[O, C / groups, *kernel], y[N, O, *positions], where along each axis

    y[p] = sum over k of x[p * stride - before + k * dilation] * weight[k]

with zeros outside x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from telegrad.errors import DTypeError, ShapeError
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import Shape, Type, check_shape, product
from telegrad.ir.value import V, Value
from telegrad.ir.xp import Array, ArrayModule
from telegrad.ops import elementwise as e
from telegrad.ops import shape as s

Sizes = int | Sequence[int]


def positions(
    op: str, size: Shape, kernel: Shape, stride: Shape, before: Shape, after: Shape, dilation: Shape
) -> Shape:
    """How many windows of ``kernel`` fit along each axis. ShapeError if the geometry is not possible."""
    axes = len(size)
    if not len(kernel) == len(stride) == len(before) == len(after) == len(dilation) == axes:
        raise ShapeError(f"{op}: kernel, stride, padding and dilation must have {axes} numbers each")
    if min((*kernel, *stride, *dilation, 1)) < 1:
        raise ShapeError(f"{op}: kernel {kernel}, stride {stride} and dilation {dilation} must be positive")
    if min((*before, *after, 0)) < 0:
        raise ShapeError(f"{op}: padding {before} and {after} must not be negative")
    found: list[int] = []
    for n, k, st, b, a, d in zip(size, kernel, stride, before, after, dilation, strict=True):
        room = n + b + a - d * (k - 1) - 1
        if room < 0:
            raise ShapeError(f"{op}: a window of {d * (k - 1) + 1} is larger than the {n + b + a} padded elements")
        found.append(room // st + 1)
    return tuple(found)


def padded_bytes(x: Shape, before: Shape, after: Shape, itemsize: int) -> int:
    """The bytes of x[N, C, *size] with its padding; 16-bit floats are padded as float32."""
    padded = [n + b + a for n, b, a in zip(x[2:], before, after, strict=True)]
    return product((*x[:2], *padded)) * max(itemsize, 4)


@dataclass(frozen=True)
class Convolving(Op, abstract=True):
    """What the three have in common: the geometry of the windows."""

    stride: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    uses_blas: ClassVar[bool] = True

    def _outputs(self, x: Shape, weight: Shape) -> Shape:
        """The shape of the convolution of these two."""
        axes = len(x) - 2
        if axes not in (1, 2, 3) or len(weight) != len(x):
            raise ShapeError(
                f"{self.name}: takes an input of 3 to 5 axes and a weight of as many, not {list(x)} and {list(weight)}"
            )
        if self.groups < 1 or x[1] != weight[1] * self.groups or weight[0] % self.groups:
            raise ShapeError(
                f"{self.name}: {x[1]} channels in {self.groups} groups do not fit the weight {list(weight)},"
                " which is [out, in / groups, ...] with out divisible by groups"
            )
        found = positions(self.name, x[2:], weight[2:], self.stride, self.before, self.after, self.dilation)
        return (x[0], weight[0], *found)

    def _geometry(self) -> dict[str, object]:
        return {
            "stride": self.stride,
            "before": self.before,
            "after": self.after,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def _cost(self, y: Shape, weight: Shape, *types: Type) -> Cost:
        moved = sum(t.nbytes for t in types)
        return Cost(2 * product(y) * product(weight[1:]), moved)


def _floating(op: Op, x: Type, y: Type) -> None:
    if x.dtype is not y.dtype or not x.dtype.is_float:
        raise DTypeError(f"{op.name}({x}, {y}): takes two tensors of one floating-point dtype")


@dataclass(frozen=True)
class Convolution(Convolving):
    """x[N, C, *size] with weight[O, C / groups, *kernel] -> y[N, O, *positions]."""

    def infer(self, x: Type, weight: Type) -> Type:
        _floating(self, x, weight)
        return Type(check_shape(self._outputs(x.shape, weight.shape), op=self.name), x.dtype)

    def vjp(self, g: Value, out: Value, x: Value, weight: Value) -> tuple[Value, Value]:
        geometry = (self.stride, self.before, self.after, self.dilation, self.groups)
        return (
            ConvolutionInput(*geometry, size=x.shape[2:])(g, weight),
            ConvolutionWeight(*geometry, kernel=weight.shape[2:])(x, g),
        )

    def eval(self, xp: ArrayModule, x: Array, weight: Array) -> Array:
        return xp.convolution(x, weight, **self._geometry())

    def working_bytes(self, *types: Type) -> int:
        return padded_bytes(types[0].shape, self.before, self.after, types[0].dtype.itemsize)

    def cost(self, *types: Type) -> Cost:
        x, weight = types
        out = self.infer(x, weight)
        return self._cost(out.shape, weight.shape, x, weight, out)


@dataclass(frozen=True)
class ConvolutionInput(Convolving):
    """y[N, O, *positions] with weight[O, C / groups, *kernel] -> x[N, C, *size]: the transposed convolution."""

    size: tuple[int, ...] = ()

    def infer(self, y: Type, weight: Type) -> Type:
        _floating(self, y, weight)
        if y.ndim < 3 or weight.ndim != y.ndim or len(self.size) != y.ndim - 2:
            raise ShapeError(
                f"{self.name}({y}, {weight}): takes an input of 3 to 5 axes and a weight of as many, and gives"
                f" {y.ndim - 2} sizes, not {list(self.size)}"
            )
        x = check_shape((y.shape[0], weight.shape[1] * self.groups, *self.size), op=self.name)
        if self._outputs(x, weight.shape) != y.shape:
            raise ShapeError(
                f"{self.name}({y}, {weight}): no convolution of an input of {list(self.size)} gives {list(y.shape)}"
            )
        return Type(x, y.dtype)

    def vjp(self, g: Value, out: Value, y: Value, weight: Value) -> tuple[Value, Value]:
        geometry = (self.stride, self.before, self.after, self.dilation, self.groups)
        return (
            Convolution(*geometry)(g, weight),
            ConvolutionWeight(*geometry, kernel=weight.shape[2:])(g, y),
        )

    def eval(self, xp: ArrayModule, y: Array, weight: Array) -> Array:
        return xp.convolution_input(y, weight, size=self.size, **self._geometry())

    def working_bytes(self, *types: Type) -> int:
        return padded_bytes(self.infer(*types).shape, self.before, self.after, types[0].dtype.itemsize)

    def cost(self, *types: Type) -> Cost:
        y, weight = types
        return self._cost(y.shape, weight.shape, y, weight, self.infer(y, weight))


@dataclass(frozen=True)
class ConvolutionWeight(Convolving):
    """x[N, C, *size] with y[N, O, *positions] -> weight[O, C / groups, *kernel], summed over N and positions."""

    kernel: tuple[int, ...] = ()

    def infer(self, x: Type, y: Type) -> Type:
        _floating(self, x, y)
        if x.ndim < 3 or y.ndim != x.ndim or len(self.kernel) != x.ndim - 2 or self.groups < 1:
            raise ShapeError(
                f"{self.name}({x}, {y}): takes two tensors of 3 to 5 axes and gives {x.ndim - 2} kernel sizes,"
                f" not {list(self.kernel)}"
            )
        weight = check_shape((y.shape[1], x.shape[1] // self.groups, *self.kernel), op=self.name)
        if self._outputs(x.shape, weight) != y.shape:
            raise ShapeError(
                f"{self.name}({x}, {y}): no convolution of {list(x.shape)} with a kernel {list(self.kernel)} gives"
                f" {list(y.shape)}"
            )
        return Type(weight, x.dtype)

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value, Value]:
        geometry = (self.stride, self.before, self.after, self.dilation, self.groups)
        return ConvolutionInput(*geometry, size=x.shape[2:])(y, g), Convolution(*geometry)(x, g)

    def eval(self, xp: ArrayModule, x: Array, y: Array) -> Array:
        return xp.convolution_weight(x, y, kernel=self.kernel, **self._geometry())

    def working_bytes(self, *types: Type) -> int:
        return padded_bytes(types[0].shape, self.before, self.after, types[0].dtype.itemsize)

    def cost(self, *types: Type) -> Cost:
        x, y = types
        out = self.infer(x, y)
        return self._cost(y.shape, out.shape, x, y, out)


# ---- what users call


def sizes(value: Sizes, axes: int, what: str) -> tuple[int, ...]:
    """One number for each axis."""
    found = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(found) == 1:
        found *= axes
    if len(found) != axes:
        raise ShapeError(f"{what} must be one number or {axes}, not {found}")
    return found


def _padding(
    value: Sizes | Literal["same", "valid"], kernel: Shape, stride: Shape, dilation: Shape, op: str
) -> tuple[Shape, Shape]:
    if value == "same":
        if any(st != 1 for st in stride):
            raise ShapeError(f"{op}: padding='same' needs a stride of 1")
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        before = tuple([n // 2 for n in total])
        return before, tuple([n - b for n, b in zip(total, before, strict=True)])
    if isinstance(value, str):
        if value != "valid":
            raise ShapeError(f"{op}: padding is a number, numbers, 'same' or 'valid', not {value!r}")
        value = 0
    widths = sizes(value, len(kernel), f"{op}: padding")
    return widths, widths


def _operands(axes: int, op: str, input: V, weight: V, bias: V | None) -> tuple[V, V, V | None, bool]:
    """In a common dtype, the input with a batch axis, and whether it had one."""
    given = (input, weight) if bias is None else (input, weight, bias)
    x, w, *rest = e.common(*given)
    if x.ndim not in (axes + 1, axes + 2) or w.ndim != axes + 2:
        raise ShapeError(
            f"{op}({input.type}, {weight.type}): takes an input of {axes + 2} axes, or {axes + 1} without a batch,"
            f" and a weight of {axes + 2}"
        )
    has_batch = x.ndim == axes + 2
    return (x if has_batch else s.expand_dims(x, axis=0)), w, rest[0] if rest else None, has_batch


def _with_bias(out: V, bias: V | None, has_batch: bool, op: str) -> V:
    if bias is not None:
        if bias.shape != (out.shape[1],):
            raise ShapeError(f"{op}: the bias {bias.type} must have {out.shape[1]} elements, one for each channel")
        out = out + s.reshape(bias, (bias.size, *(1,) * (out.ndim - 2)))
    return out if has_batch else s.squeeze(out, axis=0)


def _conv(
    axes: int,
    input: V,
    weight: V,
    bias: V | None,
    stride: Sizes,
    padding: Sizes | Literal["same", "valid"],
    dilation: Sizes,
    groups: int,
) -> V:
    op = f"conv{axes}d"
    x, w, b, has_batch = _operands(axes, op, input, weight, bias)
    steps, apart = sizes(stride, axes, f"{op}: stride"), sizes(dilation, axes, f"{op}: dilation")
    before, after = _padding(padding, w.shape[2:], steps, apart, op)
    return _with_bias(Convolution(steps, before, after, apart, groups)(x, w), b, has_batch, op)


def conv1d(
    input: V,
    weight: V,
    bias: V | None = None,
    stride: Sizes = 1,
    padding: Sizes | Literal["same", "valid"] = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> V:
    """input[N, C, L] with weight[O, C / groups, K] (plus bias[O]) -> [N, O, positions]; N may be missing.

    As in PyTorch this is the cross-correlation. ShapeError where channels, groups or windows do not fit.
    """
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: V,
    weight: V,
    bias: V | None = None,
    stride: Sizes = 1,
    padding: Sizes | Literal["same", "valid"] = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> V:
    """input[N, C, H, W] with weight[O, C / groups, KH, KW] (plus bias[O]) -> [N, O, *positions]; see `conv1d`."""
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: V,
    weight: V,
    bias: V | None = None,
    stride: Sizes = 1,
    padding: Sizes | Literal["same", "valid"] = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> V:
    """input[N, C, D, H, W] with weight[O, C / groups, KD, KH, KW] -> [N, O, *positions]; see `conv1d`."""
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


def _conv_transpose(
    axes: int,
    input: V,
    weight: V,
    bias: V | None,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    groups: int,
    dilation: Sizes,
) -> V:
    op = f"conv_transpose{axes}d"
    y, w, b, has_batch = _operands(axes, op, input, weight, bias)
    steps, apart = sizes(stride, axes, f"{op}: stride"), sizes(dilation, axes, f"{op}: dilation")
    widths, extra = sizes(padding, axes, f"{op}: padding"), sizes(output_padding, axes, f"{op}: output_padding")
    if y.shape[1] != w.shape[0]:
        raise ShapeError(
            f"{op}: {y.shape[1]} channels do not fit the weight {w.type}, which is [in, out / groups, ...]"
        )
    if any(not 0 <= x < max(st, d) for x, st, d in zip(extra, steps, apart, strict=True)):
        raise ShapeError(f"{op}: output_padding {extra} must be smaller than the stride {steps} or dilation {apart}")
    # what the padding cuts off behind, output_padding gives back; beyond that it is zeros
    after = tuple([max(p - x, 0) for p, x in zip(widths, extra, strict=True)])
    zeros = tuple([max(x - p, 0) for p, x in zip(widths, extra, strict=True)])
    size = tuple(
        [
            (n - 1) * st - p - a + d * (k - 1) + 1
            for n, st, p, a, d, k in zip(y.shape[2:], steps, widths, after, apart, w.shape[2:], strict=True)
        ]
    )
    if min((*size, 0)) < 0:
        raise ShapeError(f"{op}: the padding {widths} leaves nothing of the output")
    out = ConvolutionInput(steps, widths, after, apart, groups, size)(y, w)
    if any(zeros):
        out = s.Pad((0,) * (axes + 2), (0, 0, *zeros))(out)
    return _with_bias(out, b, has_batch, op)


def conv_transpose1d(
    input: V,
    weight: V,
    bias: V | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> V:
    """input[N, C, L] with weight[C, O / groups, K] (plus bias[O]) -> [N, O, size]: the gradient of `conv1d`.

    size = (L - 1) * stride - 2 * padding + dilation * (K - 1) + output_padding + 1.
    """
    return _conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: V,
    weight: V,
    bias: V | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> V:
    """input[N, C, H, W] with weight[C, O / groups, KH, KW] -> [N, O, *size]; see `conv_transpose1d`."""
    return _conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: V,
    weight: V,
    bias: V | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> V:
    """input[N, C, D, H, W] with weight[C, O / groups, KD, KH, KW] -> [N, O, *size]; see `conv_transpose1d`."""
    return _conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


__all__: list[str] = []
"""Nothing here is an array function: the public face is `telegrad.nn.functional`."""
