"""Looking at a job: lines, a bar, a notebook's panel, curves; and leaving without hurting it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import NotFound, TimedOut
from telegrad.jobs.braille import curve
from telegrad.jobs.notebook import MOST_POINTS, Panel
from telegrad.jobs.plotting import chosen, plot
from telegrad.jobs.progress import duration, progress_of
from telegrad.jobs.watching import LINE_SECONDS, Lines, watch
from telegrad.wire.jobs import JobEvent, JobInfo, JobNews, MetricRow

from tests.loops.training import BATCH, made, points

INFO = JobInfo(
    id="1", name="<digits>", state="RUNNING", reason="STARTED", message="", line="", step=40, last_step=200,
    steps_per_epoch=20, position=0, restarts=0, worker="w1", submitted_at=0.0, changed_at=0.0, live_step=50,
    steps_per_second=2.0, live_metrics={"loss": 0.123456, "val/loss": 0.5},
)  # fmt: skip


def news(info: JobInfo = INFO, *events: JobEvent, rows: tuple[MetricRow, ...] = ()) -> JobNews:
    return JobNews(info, events, rows)


def test_progress_says_epoch_step_rate_rest_metrics_and_place() -> None:
    assert progress_of(INFO).line == (
        "<digits> RUNNING  epoch 3/10  step 50/200  loss 0.1235  val/loss 0.5  2 steps/s  1:15 left  on w1"
    )
    waiting = replace(INFO, state="QUEUED", position=2, worker="", live_step=0, live_metrics={})
    assert progress_of(waiting).line == "<digits> QUEUED  epoch 1/10  step 0/200  number 2 in the line"


@pytest.mark.parametrize(("seconds", "text"), [(7, "0:07"), (61, "1:01"), (3600, "1:00:00"), (90_000, "1 d 01:00")])
def test_a_duration_is_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_lines_come_at_changes_and_now_and_then() -> None:
    now, written = [100.0], list[str]()
    lines = Lines(written.append, clock=lambda: now[0])

    for seconds, state in ((0.0, "QUEUED"), (1.0, "RUNNING"), (2.0, "RUNNING"), (1.5 + LINE_SECONDS, "RUNNING")):
        now[0] = 100.0 + seconds
        lines.show(news(replace(INFO, state=state)))

    assert [line.split()[1] for line in written] == ["QUEUED", "RUNNING", "RUNNING"]


def test_who_watches_without_a_terminal_reads_lines(session: tg.Session, capsys: pytest.CaptureFixture[str]) -> None:
    job = session.submit(made().step, data=points(), epochs=2, batch_size=BATCH, name="watched")

    returned = job.watch()

    lines = capsys.readouterr().out.splitlines()
    assert returned is job and job.info.state == "SUCCEEDED"
    assert re.fullmatch(r"watched has succeeded at step 8: loss [\d.]+.*", lines[-1])
    assert all(line.startswith("watched ") for line in lines)


def test_what_happens_is_told_and_what_had_happened_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    lost = JobEvent(3, 0.0, "Lost", {"why": "WORKER_OOM"})
    old = JobEvent(2, 0.0, "Lost", {"message": "long ago"})
    checkpoint = JobEvent(4, 0.0, "Progressed", {"step": "50"})
    failed = replace(INFO, state="FAILED", reason="CRASH_LOOP", message="five times", worker="")

    last = watch(iter([news(INFO, old), news(INFO, lost, checkpoint), news(failed)]))

    said = capsys.readouterr().out
    assert last == failed
    assert "its worker was killed for want of memory" in said
    assert "long ago" not in said and "checkpoint of" not in said
    assert said.splitlines()[-1] == "<digits> has failed at step 50 (CRASH_LOOP): five times"


def interrupted() -> Iterator[JobNews]:
    yield news()
    raise KeyboardInterrupt


def test_ctrl_c_says_how_to_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    last = watch(interrupted())

    said = capsys.readouterr().out
    assert last == INFO
    assert "session.jobs['<digits>'].watch()" in said and "telegrad jobs watch <digits>" in said


class Shown:
    """What a cell of a notebook shows."""

    def __init__(self) -> None:
        self.outputs: list[str] = []

    def display(self, content: str, *, display_id: bool) -> Any:
        self.outputs.append(content)
        return SimpleNamespace(update=lambda content: self.outputs.__setitem__(-1, content))


def test_a_notebook_has_one_panel_with_bar_and_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown()
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    vars(ipython).update(get_ipython=lambda: SimpleNamespace(kernel=object()), display=display)
    vars(display).update(display=shown.display, HTML=str)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    rows = tuple(MetricRow(step, 0, "loss", 1.0 / step, 0.0) for step in range(1, 51))
    done = replace(INFO, state="SUCCEEDED", live_step=200, worker="")

    watch(iter([news(), news(INFO, rows=rows), news(done)]))

    (panel,) = shown.outputs
    assert "<digits>" not in panel and "&lt;digits&gt;" in panel
    assert "width:100.0%" in panel
    assert panel.count(",") >= 50 and "<polyline" in panel and "loss 0.02 to 1" in panel


def test_a_long_job_does_not_fill_the_notebook() -> None:
    shown = Shown()
    panel = Panel(shown.display, str)

    for at in range(0, 100_000, 1000):
        panel.show(news(INFO, rows=tuple(MetricRow(at + i, 0, "loss", 1.0, 0.0) for i in range(1000))))

    assert len(shown.outputs[0]) < 2 * MOST_POINTS * 20


def test_ipython_without_a_kernel_is_no_notebook(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ipython = ModuleType("IPython")
    vars(ipython).update(get_ipython=lambda: None)
    monkeypatch.setitem(sys.modules, "IPython", ipython)

    watch(iter([news()]))

    assert "epoch 3/10" in capsys.readouterr().out


def test_a_curve_shows_every_spike_and_leaves_out_what_is_not_finite() -> None:
    x, y = list(range(10_000)), [0.0] * 10_000
    y[5_000], y[7_000] = 1.0, float("nan")

    lines = curve("loss", x, y, width=40, height=3)

    assert lines[0] == "loss"
    assert [line[:10].strip(" ┤") for line in lines[1:4]] == ["1", "", "0"]
    assert [sum(c not in "⠀ " for c in line[10:]) for line in lines[1:4]] == [1, 1, 30]
    assert lines[4].split() == ["0", "9999"]


def test_a_slope_is_one_line_without_gaps() -> None:
    lines = curve("up", [0, 1], [0.0, 1.0], width=14, height=2)

    dots = [[line[10 + at : 11 + at] not in ("", "⠀") for line in lines[1:3]] for at in range(4)]
    assert all(any(column) for column in dots)
    assert dots[0] == [False, True] and dots[-1] == [True, False]


@pytest.mark.parametrize(
    ("y", "said"), [([], "up: no value yet"), ([float("inf")], "up: no value yet"), ([2.5], "2.5")]
)
def test_few_values_are_a_curve_too(y: list[float], said: str) -> None:
    assert said in "\n".join(curve("up", [1.0] * len(y), y))


def test_losses_are_shown_unless_others_are_named() -> None:
    none = {"step": np.zeros(0), "value": np.zeros(0)}
    history = {"accuracy": none, "loss": none, "val/loss": none, "epoch/loss": none}

    assert chosen(history, ()) == ["loss", "val/loss", "epoch/loss"]
    assert chosen(history, ("accuracy",)) == ["accuracy"]
    assert chosen({"accuracy": none}, ()) == ["accuracy"]
    with pytest.raises(NotFound, match="no metric 'lr' is recorded; there are accuracy"):
        chosen(history, ("lr",))


def test_a_plot_is_text_without_matplotlib(
    session: tg.Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telegrad.jobs.plotting.find_spec", lambda name: None)
    job = session.submit(made().step, data=points(), epochs=2, batch_size=BATCH).wait(timeout_seconds=120)

    assert job.plot() is None

    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line in ("loss", "epoch/loss")] == ["loss", "epoch/loss"]


@pytest.fixture
def pyplot() -> Iterator[Any]:
    """matplotlib without a screen."""
    import matplotlib
    from matplotlib import pyplot

    matplotlib.use("Agg")
    yield pyplot
    pyplot.close("all")


def test_a_plot_is_a_figure_of_matplotlib(session: tg.Session, pyplot: Any) -> None:
    job = session.submit(made().step, data=points(), epochs=2, batch_size=BATCH).wait(timeout_seconds=120)

    figure = job.plot("loss", "epoch/loss")

    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines] == ["loss", "epoch/loss"]
    assert axis.lines[0].get_ydata().tolist() == job.history["loss"]["value"].tolist()


def test_quantities_have_panels_of_their_own_and_every_curve_is_named(pyplot: Any) -> None:
    def of(*values: float) -> dict[str, Any]:
        return {"step": np.arange(len(values)), "value": np.array(values)}

    history = {"loss": of(2.0, np.nan), "val/loss": of(np.inf, 1.0), "_own": of(1.0, 2.0)}

    figure = plot("job", history, list(history))

    figure.canvas.draw()
    texts = [[text.get_text() for text in axis.get_legend().get_texts()] for axis in figure.axes]
    assert texts == [["loss", "val/loss"], ["_own"]]
    assert plot("none yet", {}, ()).axes[0].lines[:] == []


def test_waiting_for_a_job_that_is_paused_ends_in_time(session: tg.Session) -> None:
    job = session.submit(made().step, data=points(), epochs=100_000, batch_size=BATCH, name="paused").pause()
    for event in job.events():
        if getattr(event, "kind", "") == "Paused":
            break

    with pytest.raises(TimedOut, match=r"has not ended within 0\.2 s; it is PAUSED \(ASKED\)"):
        job.wait(timeout_seconds=0.2)

    assert job.state == "PAUSED"
    job.cancel()
