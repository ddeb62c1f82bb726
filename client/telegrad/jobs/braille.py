"""Curves as text: each character of braille is two dots wide and four high."""

from __future__ import annotations

import math
from collections.abc import Sequence

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot of a character, by row and column (Unicode 15, Braille Patterns)."""

_BLANK = 0x2800
_LABEL = 10


def curve(title: str, x: Sequence[float], y: Sequence[float], *, width: int = 72, height: int = 8) -> list[str]:
    """Lines that show y over x, which rises, with the smallest and largest values; what is not finite is left out.

    Each column of dots covers all values that fall into it, so a spike is never thinned away.
    """
    points = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if not points:
        return [f"{title}: no value yet"]
    across, up = 2 * max(1, width - _LABEL), 4 * height
    low, high = min(b for _, b in points), max(b for _, b in points)
    first, last = points[0][0], points[-1][0]
    spans: dict[int, tuple[int, int]] = {}
    for a, b in points:
        column = round((across - 1) * (a - first) / ((last - first) or 1))
        row = round((up - 1) * (high - b) / ((high - low) or 1)) if high > low else up // 2
        above, below = spans.get(column, (row, row))
        spans[column] = min(above, row), max(below, row)
    cells = [[0] * (across // 2) for _ in range(height)]
    before: tuple[int, tuple[int, int]] | None = None
    for column, (above, below) in sorted(spans.items()):
        for at, top, bottom in _joined(before, column, above, below):
            for row in range(top, bottom + 1):
                cells[row // 4][at // 2] |= _DOTS[row % 4][at % 2]
        before = column, (above, below)
    labels = {0: f"{high:.4g}", height - 1: f"{low:.4g}"} if height > 1 and high > low else {height // 2: f"{high:.4g}"}
    lines = [
        f"{labels.get(number, ''):>{_LABEL - 2}} ┤{''.join(chr(_BLANK + cell) for cell in row)}".rstrip()
        for number, row in enumerate(cells)
    ]
    left, right = f"{first:g}", f"{last:g}"
    return [title, *lines, " " * _LABEL + left + right.rjust(max(0, across // 2 - len(left)))]


def _joined(
    before: tuple[int, tuple[int, int]] | None, column: int, above: int, below: int
) -> list[tuple[int, int, int]]:
    """The dots of a column, and those on the straight line from the one before, as (column, top, bottom)."""
    spans = [(column, above, below)]
    if before is None:
        return spans
    start, (top, bottom) = before
    begin, end = (bottom, above) if above > bottom else (top, below) if below < top else (above, above)
    for at in range(start + 1, column):
        row = round(begin + (end - begin) * (at - start) / (column - start))
        spans.append((at, row, row))
    if column == start + 1 and begin != end:  # neighbours with a jump between them
        middle = (begin + end) // 2
        spans += [(start, min(begin, middle), max(begin, middle)), (column, min(middle, end), max(middle, end))]
    return spans
