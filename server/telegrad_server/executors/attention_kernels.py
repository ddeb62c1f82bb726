"""Attention by the library's kernels: float32, in any layout whose rows lie together."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
from telegrad.ir import types as t
from telegrad.ir.types import Shape, Type, product
from telegrad.ops.attention import Attention, AttentionGradient

from telegrad_server.compiler.layout import Strides, is_contiguous
from telegrad_server.executors.driver import KernelCall, Layout
from telegrad_server.executors.library import Library

STRIP, CHUNK, ENOUGH_MATRICES = 32, 128, 16
"""``attention.c``'s: queries of a strip, keys of a chunk backward, and how many matrices are enough to share out."""

_ADDRESSES = (
    "q", "k", "v", "bias", "out", "total", "g", "row", "dq", "dk", "dv",
    "q_offset", "k_offset", "v_offset", "bias_offset", "g_offset",
)  # fmt: skip
_NUMBERS = (
    "q_row", "k_row", "v_row", "g_row", "bias_row", "bias_column",
    "matrices", "queries", "keys", "size", "width", "is_causal",
)  # fmt: skip


class AttentionArguments(ctypes.Structure):
    """``struct tg_attention``."""

    _fields_ = (
        *[(name, ctypes.c_void_p) for name in _ADDRESSES],
        *[(name, ctypes.c_long) for name in _NUMBERS],
        ("scale", ctypes.c_double),
    )


def attention_calls(
    op: Attention, library: Library, operands: Sequence[Layout], results: Sequence[Type]
) -> list[KernelCall]:
    """The calls for q, k, v, maybe bias -> out, total; none if NumPy must do it."""
    if not _fits(operands[:3], operands[3:]):
        return []
    names = ("q", "k", "v", *("bias",) * (len(operands) - 3), "out", "total")
    made = _Arguments(op, dict(zip(names, operands, strict=False)))
    return [made.call(library.address("tg_attention"), names, made.matrices * made.strips)]


def attention_gradient_calls(
    op: AttentionGradient, library: Library, operands: Sequence[Layout], results: Sequence[Type]
) -> list[KernelCall]:
    """The calls for g, q, k, v, total, row, maybe bias -> dq, dk, dv; none if NumPy must do it."""
    if not _fits(operands[:4], operands[4:]) or not all(is_contiguous(x.shape, s) for x, s in operands[4:6]):
        return []
    names = ("g", "q", "k", "v", "total", "row", *("bias",) * (len(operands) - 6), "dq", "dk", "dv")
    made = _Arguments(op, dict(zip(names, operands, strict=False)))
    if made.matrices >= ENOUGH_MATRICES:
        return [made.call(library.address("tg_attention_gradient"), names, made.matrices)]
    chunks = -(-made.keys // CHUNK)
    return [
        made.call(library.address("tg_attention_queries"), names, made.matrices * made.strips),
        made.call(library.address("tg_attention_keys"), names, made.matrices * chunks),
    ]


def _fits(rows: Sequence[Layout], rest: Sequence[Layout]) -> bool:
    """Whether all are float32, the elements of each of the ``rows`` lie together, and there is something to do."""
    return all(type.dtype is t.float32 for type, _ in (*rows, *rest)) and all(
        product(type.shape[:-2]) > 0 and (type.shape[-1] < 2 or strides[-1] == 1) for type, strides in rows
    )


class _Arguments:
    """A kernel's arguments, without the addresses that a run brings."""

    def __init__(self, op: Attention | AttentionGradient, operands: dict[str, Layout]) -> None:
        given = self._given = AttentionArguments()
        q, k, v = (operands[name][0].shape for name in "qkv")
        self.matrices, self.strips, self.keys = product(q[:-2]), -(-q[-2] // STRIP), k[-2]
        given.matrices, given.queries, given.keys, given.size, given.width = self.matrices, q[-2], k[-2], q[-1], v[-1]
        given.is_causal, given.scale = op.is_causal, op.scale
        self._offsets: list[np.ndarray] = []
        for name in ("q", "k", "v", "g", "bias"):
            if name in operands:
                type, strides = operands[name]
                offsets = _offsets(type.shape[:-2], strides[:-2])
                self._offsets.append(offsets)
                setattr(given, f"{name}_offset", offsets.ctypes.data)
                setattr(given, f"{name}_row", strides[-2])
        if "bias" in operands:
            given.bias_column = operands["bias"][1][-1]

    def call(self, kernel: int, names: Sequence[str], units: int) -> KernelCall:
        """The call of a kernel whose step has these operands and results."""
        pointers = tuple([(k, getattr(AttentionArguments, name).offset) for k, name in enumerate(names)])
        return KernelCall(kernel, self._given, units, pointers=pointers, memory=tuple(self._offsets))


def _offsets(shape: Shape, strides: Strides) -> np.ndarray:
    """Elements from the first matrix to each."""
    found = np.zeros((), np.int64)
    for size, stride in zip(shape, strides, strict=True):
        found = found[..., None] + np.arange(size) * stride
    return np.ascontiguousarray(found).reshape(-1)
