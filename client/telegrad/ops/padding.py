"""Padding in PyTorch's form: by pairs from the last axis on, with a constant or with elements of the tensor itself."""

from __future__ import annotations

from collections.abc import Sequence

from telegrad.errors import GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.value import Number, V
from telegrad.ops import elementwise as e
from telegrad.ops import index as ix
from telegrad.ops import shape as s

MODES = ("constant", "reflect", "replicate", "circular")


def pad(input: V, pad: Sequence[int], mode: str = "constant", value: Number = 0) -> V:
    """input with ``pad`` = (before, after) of the last axis, then of the one before it, and so on.

    ``mode`` is "constant" (with ``value``; a negative width cuts off), "reflect" (mirrored, without the edge),
    "replicate" (the edge) or "circular". GraphError for another mode, ShapeError for widths that do not fit.
    """
    widths = tuple(pad)
    if mode not in MODES:
        raise GraphError(f"pad: mode {mode!r} is not one of {', '.join(MODES)}")
    if len(widths) % 2 or len(widths) > 2 * input.ndim:
        raise ShapeError(f"pad({input.type}): takes a pair of widths for each axis from the last on, not {widths}")
    pairs = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)]
    if mode == "constant":
        return _constant(input, pairs, value)
    for i, (before, after) in enumerate(pairs):
        axis = input.ndim - 1 - i
        n = input.shape[axis]
        most = {"reflect": n - 1, "circular": n, "replicate": before + after}[mode]
        if min(before, after) < 0 or max(before, after) > most or (n == 0 and before + after):
            raise ShapeError(f"pad({input.type}): {mode} padding of axis {axis} must be from 0 to {most}")
        if before or after:
            place = input.bind(e.Iota((before + n + after,), 0, t.int64), ())[0] - before
            if mode == "reflect":
                place = (n - 1) - e.abs((n - 1) - e.abs(place))
            elif mode == "replicate":
                place = e.minimum(e.maximum(place, 0), n - 1)
            else:
                place = place % n
            input = ix.take(input, place, axis=axis)
    return input


def _constant(x: V, pairs: Sequence[tuple[int, int]], value: Number) -> V:
    around = [(0, 0)] * (x.ndim - len(pairs)) + list(reversed(pairs))
    if any(b < 0 or a < 0 for b, a in around):
        if any(n + min(b, 0) + min(a, 0) < 0 for n, (b, a) in zip(x.shape, around, strict=True)):
            raise ShapeError(f"pad({x.type}): the negative widths {around} cut off more than there is")
        x = x[tuple([slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in zip(x.shape, around, strict=True)])]
    return s.pad(x, [(max(b, 0), max(a, 0)) for b, a in around], value=value)


__all__: list[str] = []
"""`telegrad.pad` has NumPy's form; this one is `telegrad.nn.functional.pad`."""
