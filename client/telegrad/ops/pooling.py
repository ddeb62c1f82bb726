"""Pooling over windows of one to three axes: the largest element, the mean, and both for a given number of windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from telegrad.errors import DTypeError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import Shape, Type, check_shape, product
from telegrad.ir.value import V
from telegrad.ir.xp import Array, ArrayModule
from telegrad.ops import elementwise as e
from telegrad.ops import index as ix
from telegrad.ops import linalg
from telegrad.ops import reduce as r
from telegrad.ops import shape as s
from telegrad.ops.convolution import Convolution, Sizes, padded_bytes, positions, sizes


@dataclass(frozen=True)
class WindowArgmax(Op):
    """Where the largest element of each window of x[N, C, *size] is, as its number within size; the first of equals.

    NaN is larger than all numbers. What lies outside x is no element; every window must have one inside.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilation: tuple[int, ...]

    def infer(self, x: Type) -> Type:
        if x.ndim not in (3, 4, 5):
            raise ShapeError(f"{self.name}({x}): takes a tensor of 3 to 5 axes")
        size = x.shape[2:]
        out = positions(self.name, size, self.kernel, self.stride, self.before, self.after, self.dilation)
        for n, k, st, b, d, count in zip(size, self.kernel, self.stride, self.before, self.dilation, out, strict=True):
            if b > d * (k - 1) or (count - 1) * st - b >= n or (b and n < d):
                raise ShapeError(f"{self.name}({x}): with padding {self.before} a window lies outside the input")
        return Type(check_shape((*x.shape[:2], *out), op=self.name), t.int64)

    def vjp(self, g: object, out: object, x: object) -> tuple[None]:
        return (None,)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.window_argmax(
            x,
            kernel=self.kernel,
            stride=self.stride,
            before=self.before,
            after=self.after,
            dilation=self.dilation,
        )

    def working_bytes(self, *types: Type) -> int:
        return padded_bytes(types[0].shape, self.before, self.after, types[0].dtype.itemsize)

    def cost(self, *types: Type) -> Cost:
        out = self.infer(*types)
        return Cost(out.size * product(self.kernel), types[0].nbytes + out.nbytes)


def _batched(axes: int, op: str, input: V) -> tuple[V, bool]:
    if input.ndim not in (axes + 1, axes + 2):
        raise ShapeError(f"{op}({input.type}): takes {axes + 2} axes, or {axes + 1} without a batch")
    has_batch = input.ndim == axes + 2
    return (input if has_batch else s.expand_dims(input, axis=0)), has_batch


def _unbatched(out: V, has_batch: bool) -> V:
    return out if has_batch else s.squeeze(out, axis=0)


def _windows(
    op: str, size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil_mode: bool
) -> Shape:
    """The padding behind each axis. With ``ceil_mode`` a last window may go beyond it, but must begin within."""
    after: list[int] = []
    for n, k, st, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        if p < 0 or 2 * p > d * (k - 1) + 1:
            raise ShapeError(f"{op}: padding {p} must be at most half of the window of {d * (k - 1) + 1}")
        more = 0
        if ceil_mode and st > 0:
            room = n + 2 * p - d * (k - 1) - 1
            count = -(-room // st) + 1
            if (count - 1) * st >= n + p:
                count -= 1
            more = max(0, (count - 1) * st - room)
        after.append(p + more)
    return tuple(after)


def _max_pool(
    axes: int,
    input: V,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
    return_indices: bool,
) -> V | tuple[V, V]:
    op = f"max_pool{axes}d"
    x, has_batch = _batched(axes, op, input)
    if x.dtype.kind == "bool":
        raise DTypeError(f"{op}({input.type}): takes numbers")
    kernel, apart = sizes(kernel_size, axes, f"{op}: kernel_size"), sizes(dilation, axes, f"{op}: dilation")
    steps = kernel if stride is None else sizes(stride, axes, f"{op}: stride")
    before = sizes(padding, axes, f"{op}: padding")
    after = _windows(op, x.shape[2:], kernel, steps, before, apart, ceil_mode)
    where = WindowArgmax(kernel, steps, before, after, apart)(x)
    flat = ix.take_along_axis(s.flatten(x, 2), s.flatten(where, 2), axis=2)
    out = _unbatched(s.reshape(flat, where.shape), has_batch)
    return (out, _unbatched(where, has_batch)) if return_indices else out


def _avg_pool(
    axes: int,
    input: V,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> V:
    op = f"avg_pool{axes}d"
    x, has_batch = _batched(axes, op, input)
    if not x.dtype.is_float:
        raise DTypeError(f"{op}({input.type}): takes floating-point numbers")
    kernel = sizes(kernel_size, axes, f"{op}: kernel_size")
    steps = kernel if stride is None else sizes(stride, axes, f"{op}: stride")
    before, apart = sizes(padding, axes, f"{op}: padding"), (1,) * axes
    size = x.shape[2:]
    after = _windows(op, size, kernel, steps, before, apart, ceil_mode)
    if divisor_override is not None and divisor_override == 0:
        raise ShapeError(f"{op}: divisor_override must not be 0")
    ones = s.broadcast_to(x.literal(1, x.dtype), (1, 1, *kernel))
    rows = s.reshape(x, (x.shape[0] * x.shape[1], 1, *size))  # each channel is an image of its own
    total = Convolution(steps, before, after, apart)(rows, ones)
    total = s.reshape(total, (*x.shape[:2], *total.shape[2:]))
    if divisor_override is not None:
        return _unbatched(total / divisor_override, has_batch)
    for axis, (n, k, st, b) in enumerate(zip(size, kernel, steps, before, strict=True)):
        count = total.shape[axis + 2]
        low, high = (-b, n + b) if count_include_pad else (0, n)
        if low <= -b and (count - 1) * st - b + k <= high:
            total = total / k
            continue
        begin = x.bind(e.Iota((count,), 0, t.int64), ())[0] * st - b
        counts = e.minimum(begin + k, high) - e.maximum(begin, low)
        total = total / e.astype(s.reshape(counts, (count, *(1,) * (axes - 1 - axis))), x.dtype)
    return _unbatched(total, has_batch)


def max_pool1d(
    input: V,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> V | tuple[V, V]:
    """The largest element of each window of input[N, C, L] -> [N, C, positions]; N may be missing.

    The stride is the window if not given. Padding counts as minus infinity. The gradient goes to the first of equal
    elements. With ``return_indices`` also its place along L (in 2-d and 3-d: within the flattened size).
    """
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: V,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> V | tuple[V, V]:
    """The largest element of each window of input[N, C, H, W]; see `max_pool1d`."""
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: V,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> V | tuple[V, V]:
    """The largest element of each window of input[N, C, D, H, W]; see `max_pool1d`."""
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def avg_pool1d(
    input: V,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> V:
    """The mean of each window of input[N, C, L] -> [N, C, positions]; N may be missing.

    Padding counts as zeros, or not at all without ``count_include_pad``. The stride is the window if not given.
    """
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: V,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> V:
    """The mean of each window of input[N, C, H, W], or its sum over ``divisor_override``; see `avg_pool1d`."""
    return _avg_pool(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: V,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> V:
    """The mean of each window of input[N, C, D, H, W]; see `avg_pool2d`."""
    return _avg_pool(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


# ---- a given number of windows: the i-th of m over n elements is [floor(i n / m), ceil((i + 1) n / m))


def _adaptive(axes: int, op: str, input: V, output_size: Sizes | tuple[int | None, ...]) -> tuple[V, Shape, bool]:
    x, has_batch = _batched(axes, op, input)
    given = (output_size,) * axes if isinstance(output_size, int) else tuple(output_size)
    if len(given) == 1:
        given *= axes
    if len(given) != axes:
        raise ShapeError(f"{op}: output_size must be one number or {axes}, not {given}")
    wanted = tuple([n if m is None else m for m, n in zip(given, x.shape[2:], strict=True)])
    if min((*wanted, 0)) < 0:
        raise ShapeError(f"{op}: output_size {wanted} must not be negative")
    if 0 in x.shape[2:] and product(wanted):
        raise ShapeError(f"{op}({input.type}): an axis without elements has no windows")
    return x, wanted, has_batch


def _bounds(x: V, m: int, n: int) -> tuple[V, V]:
    """The first place of each of m windows over n elements, and the one behind its last: int64[m]."""
    number = x.bind(e.Iota((m,), 0, t.int64), ())[0]
    return number * n // m, ((number + 1) * n + (m - 1)) // m


def _along_axes(x: V, wanted: Shape, pool: Callable[[V, int], V]) -> V:
    """Pool the last axis, whichever it is, one axis after another: each keeps its place."""
    for axis in range(x.ndim - 1, 1, -1):
        m = wanted[axis - 2]
        if m != x.shape[axis]:
            x = s.moveaxis(pool(s.moveaxis(x, axis, -1), m), -1, axis)
    return x


def _adaptive_mean(x: V, m: int) -> V:
    n = x.shape[-1]
    if m and n % m == 0:
        return r.mean(s.reshape(x, (*x.shape[:-1], m, n // m)), axis=-1)
    begin, end = _bounds(x, m, n)
    place = x.bind(e.Iota((n,), 0, t.int64), ())[0]
    column = s.expand_dims(place, axis=1)
    weight = e.astype((column >= begin) & (column < end), x.dtype)  # [n, m]
    return linalg.matmul(x, weight) / e.astype(end - begin, x.dtype)


def _adaptive_max(x: V, m: int) -> V:
    n = x.shape[-1]
    begin, end = _bounds(x, m, n)
    longest = max([ceil((i + 1) * n / m) - i * n // m for i in range(m)], default=0)
    offset = x.bind(e.Iota((longest,), 0, t.int64), ())[0]
    places = e.minimum(s.expand_dims(begin, axis=1) + offset, s.expand_dims(end - 1, axis=1))  # [m, longest]
    choices = s.reshape(ix.take(x, s.flatten(places), axis=x.ndim - 1), (*x.shape[:-1], m, longest))
    first = s.expand_dims(r.argmax(choices, axis=-1), axis=-1)
    return s.squeeze(ix.take_along_axis(choices, first, axis=-1), axis=-1)


def _adaptive_avg_pool(axes: int, input: V, output_size: Sizes | tuple[int | None, ...]) -> V:
    x, wanted, has_batch = _adaptive(axes, f"adaptive_avg_pool{axes}d", input, output_size)
    if not x.dtype.is_float:
        raise DTypeError(f"adaptive_avg_pool{axes}d({input.type}): takes floating-point numbers")
    return _unbatched(_along_axes(x, wanted, _adaptive_mean), has_batch)


def _adaptive_max_pool(axes: int, input: V, output_size: Sizes | tuple[int | None, ...]) -> V:
    x, wanted, has_batch = _adaptive(axes, f"adaptive_max_pool{axes}d", input, output_size)
    return _unbatched(_along_axes(x, wanted, _adaptive_max), has_batch)


def adaptive_avg_pool1d(input: V, output_size: Sizes | tuple[int | None, ...]) -> V:
    """The means of ``output_size`` windows that cover input[N, C, L] evenly -> [N, C, output_size]; N may be missing.

    None keeps the size of an axis. The i-th of m windows over n elements is [floor(i n / m), ceil((i + 1) n / m)).
    """
    return _adaptive_avg_pool(1, input, output_size)


def adaptive_avg_pool2d(input: V, output_size: Sizes | tuple[int | None, ...]) -> V:
    """The means of windows that cover input[N, C, H, W] evenly; see `adaptive_avg_pool1d`."""
    return _adaptive_avg_pool(2, input, output_size)


def adaptive_avg_pool3d(input: V, output_size: Sizes | tuple[int | None, ...]) -> V:
    """The means of windows that cover input[N, C, D, H, W] evenly; see `adaptive_avg_pool1d`."""
    return _adaptive_avg_pool(3, input, output_size)


def adaptive_max_pool1d(input: V, output_size: Sizes | tuple[int | None, ...]) -> V:
    """The largest elements of windows that cover input[N, C, L] evenly; see `adaptive_avg_pool1d`."""
    return _adaptive_max_pool(1, input, output_size)


def adaptive_max_pool2d(input: V, output_size: Sizes | tuple[int | None, ...]) -> V:
    """The largest elements of windows that cover input[N, C, H, W] evenly; see `adaptive_avg_pool1d`."""
    return _adaptive_max_pool(2, input, output_size)


def adaptive_max_pool3d(input: V, output_size: Sizes | tuple[int | None, ...]) -> V:
    """The largest elements of windows that cover input[N, C, D, H, W] evenly; see `adaptive_avg_pool1d`."""
    return _adaptive_max_pool(3, input, output_size)


__all__: list[str] = []
"""Nothing here is an array function: the public face is `telegrad.nn.functional`."""
