"""How the threads of a GPU share a group's work: from shapes and types alone, so that sums have one order everywhere.

A kernel is one of three forms. *Flat*: elements in a line, each thread some that lie together. *Rows*: the threads of a
row keep it in registers between one reduction and the next; a short row has a warp, a long one a block. *Columns*:
threads are side by side over columns and walk down a range of rows each. Where there are sums over columns, each range
of rows (a *unit*) makes partial sums, and a second kernel adds those up in order.
"""

from __future__ import annotations

from typing import NamedTuple

from telegrad_server.compiler.nest import Nest

FLAT_THREADS = COLUMN_THREADS = 128

ROW_THREADS = (32, 128, 256, 512, 1024)

HELD = 16
"""Elements of a row that a thread keeps of each value, at most: beyond that registers spill."""

UNITS = 1024
"""Blocks that a sum over columns is divided among, about: some for each of a large GPU's 132 processors."""

LEAST_UNIT_ROWS = 16

FAR = (1 << 31) - (1 << 20)
"""Beyond this indices are 64 bits wide; threads past the end count a little further than there are elements."""


class Form(NamedTuple):
    """Threads and what each does. ``vector`` elements are taken at once, ``passes`` times along a row of ``inner``."""

    vector: int
    threads: int
    """Those that share a row, or a tile of columns."""

    at_once: int
    """Rows that a block works on at the same time."""

    passes: int
    tiles: int
    units: int
    unit_rows: int
    inner: int
    rows: int
    word: str
    """The type of indices."""

    @property
    def block(self) -> int:
        """The threads of a block."""
        return self.threads * self.at_once


def form(nest: Nest) -> Form:
    """The form of a group's kernel."""
    op = nest.op
    word = "long long" if _reach(nest) > FAR else "int"
    vector = _vector(nest)
    if not op.length and not nest.columns:
        units = -(-op.size // (FLAT_THREADS * vector))
        return Form(vector, FLAT_THREADS, 1, 1, 1, units, 0, op.size, 1, word)
    while nest.inner % vector:
        vector //= 2
    if op.length:
        threads = next((n for n in ROW_THREADS if n * HELD >= nest.inner), ROW_THREADS[-1])
        tiles, at_once = 1, max(1, 128 // threads)
    else:
        wanted = -(-nest.inner // vector)
        threads = next((n for n in (32, 64) if n >= wanted), COLUMN_THREADS)
        tiles, at_once = -(-wanted // threads), COLUMN_THREADS // threads
    passes = 1 if not op.length else -(-nest.inner // (threads * vector))
    units, unit_rows = nest.rows, 1
    if nest.columns:
        units = max(1, min(UNITS * at_once // tiles, -(-nest.rows // LEAST_UNIT_ROWS)))
        unit_rows = -(-nest.rows // units)
        units = -(-nest.rows // unit_rows)
    return Form(vector, threads, at_once, passes, tiles, units, unit_rows, nest.inner, nest.rows, word)


def _vector(nest: Nest) -> int:
    """How many elements lie in 16 bytes: of the narrowest floats there are."""
    full = [v.dtype for v in (*nest.body.inputs, *nest.body.outputs) if 2 * v.size > nest.op.size]
    return 8 if any(dtype.is_float and dtype.itemsize == 2 for dtype in full) else 4


def _reach(nest: Nest) -> int:
    """How far an index goes, at most."""
    ends = [
        sum([abs(stride) * (size - 1) for stride, size in zip(access.strides, nest.sizes, strict=True)])
        for access in nest.access.values()
    ]
    return max([nest.op.size, *ends])
