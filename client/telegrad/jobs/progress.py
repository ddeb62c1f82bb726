"""How far a job is, as text: what every display of it says."""

from __future__ import annotations

from dataclasses import dataclass

from telegrad.wire.jobs import JobEvent, JobInfo

_SHOWN_METRICS = 4

QUIET = frozenset(("Submitted", "Assigned", "Started", "Progressed", "Succeeded", "Failed", "Cancelled"))
"""Events that are no news beside a progress bar: it shows what they mean."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The parts of a line of progress; a part of which nothing is known is empty. ``share`` is from 0 to 1."""

    name: str
    state: str
    share: float
    epoch: str
    step: str
    rate: str
    left: str
    metrics: str
    where: str

    @property
    def line(self) -> str:
        """All of it on one line."""
        parts = (self.epoch, self.step, self.metrics, self.rate, self.left, self.where)
        return "  ".join([f"{self.name} {self.state}", *[part for part in parts if part]])


def progress_of(job: JobInfo) -> Progress:
    """How far a job is."""
    rate = job.steps_per_second if job.state == "RUNNING" else 0.0
    return Progress(
        name=job.name,
        state=job.state,
        share=min(1.0, job.live_step / job.last_step) if job.last_step else 0.0,
        epoch=f"epoch {epochs(job)}" if epochs(job) else "",
        step=f"step {job.live_step}/{job.last_step}",
        rate=f"{rate:.3g} steps/s" if rate else "",
        left=f"{duration((job.last_step - job.live_step) / rate)} left" if rate else "",
        metrics=metrics(job),
        where=f"number {job.position} in the line" if job.position else f"on {job.worker}" if job.worker else "",
    )


def epochs(job: JobInfo) -> str:
    """The epoch that is trained on, from 1, of how many: ``3/20``."""
    if not job.steps_per_epoch:
        return ""
    in_all = -(-job.last_step // job.steps_per_epoch)
    return f"{min(job.live_step // job.steps_per_epoch + 1, in_all)}/{in_all}"


def metrics(job: JobInfo) -> str:
    """The newest metrics, the first few of them."""
    return "  ".join([f"{name} {value:.4g}" for name, value in list(job.live_metrics.items())[:_SHOWN_METRICS]])


def duration(seconds: float) -> str:
    """A time for people: ``0:07``, ``3:20:00``, ``2 d 03:00``."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    if hour >= 24:
        return f"{hour // 24} d {hour % 24:02d}:{minute:02d}"
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"


def is_news(event: JobEvent) -> bool:
    """Whether an event is worth a line beside a progress bar."""
    return event.kind not in QUIET


def ending(job: JobInfo) -> str:
    """How a job ended, or where it was left, as a sentence."""
    what = metrics(job)
    end = f"{job.name} {_ENDS.get(job.state, f'is {job.state}')} at step {job.live_step}"
    if job.state in ("FAILED", "PAUSED") and job.message:
        return f"{end} ({job.reason}): {job.message}"
    return f"{end}: {what}" if what else end


_ENDS = {"SUCCEEDED": "has succeeded", "FAILED": "has failed", "CANCELLED": "was cancelled", "PAUSED": "is paused"}


def farewell(job: JobInfo) -> str:
    """What to say to who stops looking."""
    return (
        f"{job.name} goes on without you; come back with session.jobs[{job.name!r}].watch(),"
        f" or telegrad jobs watch {job.name}"
    )
