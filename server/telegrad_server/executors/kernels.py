"""Bodies that write an op's result into a given array, where the array library has one.

A plan says where a result goes. An op without a row here is evaluated by its own ``eval`` and copied there. A
body takes the operands and then the arrays to write; its bits are those of ``eval``. Elementwise bodies may be
given an operand as the array to write.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from telegrad.ir.op import Op
from telegrad.ir.types import Type
from telegrad.ops.elementwise import Cast, Elementwise, Relu, Sigmoid, Where
from telegrad.ops.index import Gather
from telegrad.ops.linalg import Matmul
from telegrad.ops.probability import LogSoftmax, Softmax
from telegrad.ops.reduce import Max, Min, Sum
from telegrad.ops.shape import Concat, Pad, Reshape
from telegrad.ops.slices import Unslice
from telegrad.ops.systems import MatrixOp

from telegrad_server.compiler.collective import StartAllReduce, StartGather
from telegrad_server.executors.array_module import LibraryModule, NumpyModule
from telegrad_server.executors.blas import LARGE_FLOPS, LARGE_MATRIX_FLOPS, OpenBlas
from telegrad_server.executors.blend import blend, is_plain
from telegrad_server.executors.company import gather_body, start_body

Array = Any
Body = Callable[..., Any]


def body(op: Op, module: LibraryModule, types: tuple[Type, ...], *, results: int, over: int) -> Body:
    """The body of ``op`` on operands of these types. ``over`` is the number of the operand it writes over, or -1."""
    found = _body(op, module, types, results, over)
    large = LARGE_FLOPS if isinstance(op, Matmul) else LARGE_MATRIX_FLOPS if isinstance(op, MatrixOp) else None
    if large is not None and module.blas is not None and op.cost(*types).flops >= large:
        return partial(_on_all_threads, module.blas, found)
    return found


def _body(op: Op, module: LibraryModule, types: tuple[Type, ...], results: int, over: int) -> Body:
    if isinstance(op, StartAllReduce):
        return start_body(op, module.lib, is_in_place=over >= 0)
    if isinstance(op, StartGather):
        return gather_body(op)
    if results > 1:
        return partial(_evaluate_all_into, op, module, len(types))
    if isinstance(op, Elementwise) and op.word:
        ufunc = module.ufunc(op.word, types[0].dtype)
        if ufunc in (np.maximum, np.minimum):  # NumPy 2.4 means to give their third argument another meaning
            return lambda x, y, out: ufunc(x, y, out=out)
        if ufunc is not None:
            return ufunc
    if isinstance(op, Matmul):
        return _matmul(op, module, types)
    make = _SHARED.get(type(op)) or (_NUMPY.get(type(op)) if isinstance(module, NumpyModule) else None)
    found = make(op, module, types, over) if make is not None else None
    return found or partial(_evaluate_into, op, module)


def _evaluate_into(op: Op, module: LibraryModule, *arrays: Array) -> None:
    *operands, out = arrays
    module.copy_into(out, op.eval(module, *operands))


def _evaluate_all_into(op: Op, module: LibraryModule, operands: int, *arrays: Array) -> None:
    for out, result in zip(arrays[operands:], op.eval(module, *arrays[:operands]), strict=True):
        module.copy_into(out, result)


# ---- for every library


def _cast(op: Op, module: LibraryModule, types: tuple[Type, ...], over: int) -> Body:
    return lambda x, out: module.copy_into(out, x)


def _reshape(op: Op, module: LibraryModule, types: tuple[Type, ...], over: int) -> Body:
    return lambda x, out: module.copy_into(out.reshape(x.shape), x)


def _matmul(op: Matmul, module: LibraryModule, types: tuple[Type, ...]) -> Body:
    matmul: Any = module.lib.matmul
    if types[0].dtype.itemsize == 2 and types[0].dtype.is_float:
        return partial(_evaluate_into, op, module)
    return matmul if isinstance(matmul, np.ufunc) else lambda x, y, out: matmul(x, y, out=out)


def _on_all_threads(blas: OpenBlas, function: Body, *arrays: Array) -> None:
    blas.use_threads(blas.threads)
    function(*arrays)
    blas.use_threads(1)  # if the body raises, the end of the run does it


_SHARED: dict[type[Op], Callable[..., Body | None]] = {Cast: _cast, Reshape: _reshape}


# ---- for NumPy


def _where(op: Op, module: LibraryModule, types: tuple[Type, ...], over: int) -> Body | None:
    def choose(condition: Array, x: Array, y: Array, out: Array) -> None:
        if is_plain(condition, x, y, out):
            blend(condition, x, y, out)
        elif over == 1:
            np.copyto(out, y, where=np.logical_not(condition))
        else:
            if over != 2:
                np.copyto(out, y)
            np.copyto(out, x, where=condition)

    return choose if over in (-1, 1, 2) else None


def _relu(op: Op, module: LibraryModule, types: tuple[Type, ...], over: int) -> Body:
    zero = module.zeros((), types[0].dtype)
    return lambda x, out: np.maximum(x, zero, out=out)


def _reduction(ufunc: np.ufunc, op: Sum | Max | Min, types: tuple[Type, ...]) -> Body | None:
    dtype = types[0].dtype
    if dtype.itemsize == 2 and dtype.is_float:
        return None
    axes, keepdims = op.axes, op.keepdims
    return lambda x, out: ufunc.reduce(x, axis=axes, dtype=x.dtype, out=out, keepdims=keepdims)


def _softmax(op: Softmax, module: LibraryModule, types: tuple[Type, ...], over: int) -> Body | None:
    axes = (op.axis,)
    if types[0].dtype.itemsize == 2 or types[0].size == 0:
        return None

    def softmax(x: Array, out: Array) -> None:
        if not x.flags.c_contiguous:  # eval's temporaries then have x's layout, in which sums add up in another order
            return _evaluate_into(op, module, x, out)
        np.subtract(x, module.max(x, axis=axes, keepdims=True), out)
        np.exp(out, out)
        np.divide(out, module.sum(out, axis=axes, keepdims=True), out)
        return None

    return softmax


def _log_softmax(op: LogSoftmax, module: LibraryModule, types: tuple[Type, ...], over: int) -> Body | None:
    axes = (op.axis,)
    if types[0].dtype.itemsize == 2 or types[0].size == 0:
        return None

    def log_softmax(x: Array, out: Array) -> None:
        if not x.flags.c_contiguous:
            return _evaluate_into(op, module, x, out)
        np.subtract(x, module.max(x, axis=axes, keepdims=True), out)
        np.subtract(out, np.log(module.sum(np.exp(out), axis=axes, keepdims=True)), out)
        return None

    return log_softmax


def _concat(op: Concat, module: LibraryModule, types: tuple[Type, ...], over: int) -> Body:
    def concat(*arrays: Array) -> None:
        np.concatenate(arrays[:-1], axis=op.axis, out=arrays[-1])

    return concat


def _pad(op: Pad, module: LibraryModule, types: tuple[Type, ...], over: int) -> Body:
    inner = tuple(slice(b, b + size) for b, size in zip(op.before, types[0].shape, strict=True))

    def pad(x: Array, out: Array) -> None:
        out.fill(op.value)
        out[inner] = x

    return pad


def _unslice(op: Unslice, module: LibraryModule, types: tuple[Type, ...], over: int) -> Body:
    inner = op.slices

    def unslice(x: Array, out: Array) -> None:
        out.fill(0)
        out[inner] = x

    return unslice


def _sigmoid(op: Sigmoid, module: LibraryModule, types: tuple[Type, ...], over: int) -> Body | None:
    if types[0].dtype.itemsize < 4:
        return None

    def sigmoid(x: Array, out: Array) -> None:  # out may be x
        is_positive = np.logical_not(np.signbit(x))
        np.abs(x, out=out)
        np.negative(out, out=out)
        np.exp(out, out=out)
        total = out + 1
        np.maximum(out, is_positive, out=out)  # exp(-|x|) is at most 1; a choice by mask takes four times as long
        np.divide(out, total, out=out)

    return sigmoid


def _gather(op: Gather, module: LibraryModule, types: tuple[Type, ...], over: int) -> Body:
    def gather(x: Array, index: Array, out: Array) -> None:
        # the range is checked before; "wrap" then means what negative indices mean, and writes without a buffer
        np.take(x, module.checked_index(index, x.shape[0]), axis=0, out=out, mode="wrap")

    return gather


_NUMPY: dict[type[Op], Callable[..., Body | None]] = {
    Where: _where,
    Relu: _relu,
    Sum: lambda op, module, types, over: _reduction(np.add, op, types),
    Max: lambda op, module, types, over: _reduction(np.maximum, op, types),
    Min: lambda op, module, types, over: _reduction(np.minimum, op, types),
    Softmax: _softmax,
    LogSoftmax: _log_softmax,
    Concat: _concat,
    Pad: _pad,
    Unslice: _unslice,
    Gather: _gather,
    Sigmoid: _sigmoid,
}
