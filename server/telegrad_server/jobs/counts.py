"""What jobs have done since this process began, for `metrics`: told of every fact, and of the job as it is after it."""

from __future__ import annotations

from telegrad_server.jobs import events as e
from telegrad_server.jobs.job import Job, State
from telegrad_server.tally import WAIT_SECONDS, Durations


class JobCounts:
    """Counts over all jobs. Told under one lock; read at any time."""

    def __init__(self) -> None:
        self.restarts = 0
        """How often a job was taken from a worker before its end, and is to go on elsewhere."""
        self.steps = 0
        """The steps that checkpoints cover; those that a rewound job trains again count again."""
        self.waits = Durations(WAIT_SECONDS)
        """From being queued to being given to a worker."""
        self._queued_at: dict[str, float] = {}
        self._covered: dict[str, int] = {}

    def heard(self, fact: e.Event, job: Job | None, at: float) -> None:
        """A fact, the job after it, and when it was."""
        match fact:
            case e.Assigned() if fact.job in self._queued_at:
                self.waits.add(max(0.0, at - self._queued_at.pop(fact.job)))
            case e.Started():
                self._covered[fact.job] = fact.step
            case e.Progressed() if fact.job in self._covered:
                self.steps += max(0, fact.step - self._covered[fact.job])
                self._covered[fact.job] = fact.step
            case e.Lost() if fact.why != "WORKER_FULL":  # there it was never begun
                self.restarts += 1
            case _:
                pass
        if job is not None and job.state is State.QUEUED:
            self._queued_at.setdefault(fact.job, at)
        else:
            self._queued_at.pop(fact.job, None)
        if job is None or not job.is_placed:
            self._covered.pop(fact.job, None)
