"""Random numbers by the library: uniform ones in float32, with NumPy's bits."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import ClassVar

from telegrad.ir.op import Op
from telegrad.ir.types import Type, float32
from telegrad.ops.random import RandomUniform

from telegrad_server.executors.driver import KernelCall, Layout
from telegrad_server.executors.library import Library

UNIT = 16384
"""``random.c``'s numbers of a unit."""


class Uniform(ctypes.Structure):
    """``struct tg_uniform``."""

    _fields_: ClassVar = [
        ("key", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        *[(name, ctypes.c_long) for name in ("offset", "count", "stream")],
    ]


def uniform_calls(op: Op, library: Library, operands: Sequence[Layout], results: Sequence[Type]) -> list[KernelCall]:
    """The call of a `RandomUniform`; none in float64."""
    (_, strides), (out,) = operands[0], results
    if not isinstance(op, RandomUniform) or out.dtype is not float32 or not out.size or strides != (1,):
        return []
    arguments = Uniform(None, None, op.offset, out.size, op.stream)
    pointers = ((0, Uniform.key.offset), (1, Uniform.out.offset))
    return [KernelCall(library.address("tg_random_uniform"), arguments, -(-out.size // UNIT), pointers=pointers)]
