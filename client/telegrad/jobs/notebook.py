"""A job's progress in a notebook: a panel of HTML that needs no script and no library, with the curve of its loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from telegrad.jobs.progress import Progress, progress_of
from telegrad.wire.jobs import JobNews

WIDTH, HEIGHT = 480, 80
MOST_POINTS = 2_000
"""A curve with more points is thinned out: a notebook keeps what it shows."""

_COLOURS = {"SUCCEEDED": "#2a9d5c", "FAILED": "#c8403a", "CANCELLED": "#888888", "PAUSED": "#c58b1b"}


class Panel:
    """Keeps one output of a notebook's cell up to date. ``display`` and ``html`` are IPython's."""

    def __init__(self, display: Callable[..., Any], html: Callable[[str], Any]) -> None:
        self._display = display
        self._html = html
        self._handle: Any = None
        self._progress: Progress | None = None
        self._points: dict[str, list[tuple[int, float]]] = {}
        self._said: list[str] = []

    def show(self, news: JobNews) -> None:
        """Bring the panel up to date."""
        if (step := news.goes_back_to) is not None:
            self._points = {name: [p for p in own if p[0] <= step] for name, own in self._points.items()}
        for row in news.rows:
            own = self._points.setdefault(row.name, [])
            own.append((row.step, row.value))
            if len(own) > 2 * MOST_POINTS:
                del own[1:-1:2]
        self._progress = progress_of(news.job)
        self._draw()

    def say(self, sentence: str) -> None:
        """Add a sentence below the bar."""
        self._said.append(sentence)
        self._draw()

    def _draw(self) -> None:
        if self._progress is None:
            return
        name = next(iter(self._points), "")
        content = self._html(panel(self._progress, name, self._points.get(name, ()), self._said))
        if self._handle is None:
            self._handle = self._display(content, display_id=True)
        else:
            self._handle.update(content)


def panel(progress: Progress, metric: str, points: Sequence[tuple[int, float]], said: Sequence[str]) -> str:
    """The panel's HTML."""
    colour = _COLOURS.get(progress.state, "#2f6fab")
    parts = (progress.epoch, progress.step, progress.metrics, progress.rate, progress.left, progress.where)
    rest = " &middot; ".join([escape(part) for part in parts if part])
    lines = "".join([f"<div>{escape(sentence)}</div>" for sentence in said])
    return (
        f'<div style="font-family:monospace;max-width:{WIDTH + 160}px">'
        f"<div><b>{escape(progress.name)}</b> {escape(progress.state)}</div>"
        f'<div style="background:#8884;height:8px"><div style="background:{colour};height:8px;'
        f'width:{100 * progress.share:.1f}%"></div></div>'
        f"<div>{rest}</div>{_curve(metric, points, colour)}{lines}</div>"
    )


def _curve(metric: str, points: Sequence[tuple[int, float]], colour: str) -> str:
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    (first, last), values = (finite[0][0], finite[-1][0]), [value for _, value in finite]
    low, high = min(values), max(values)
    across, up = max(1, last - first), (high - low) or 1.0
    path = " ".join(
        [f"{WIDTH * (step - first) / across:.1f},{HEIGHT * (high - value) / up:.1f}" for step, value in finite]
    )
    return (
        f"<div>{escape(metric)} {low:.4g} to {high:.4g}</div>"
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 -2 {WIDTH} {HEIGHT + 4}" preserveAspectRatio="none">'
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/></svg>'
    )
