"""Jobs: training loops that the server runs by itself. `Session.submit` makes one, `Session.jobs` finds it again."""

from telegrad.jobs.checkpoint import Checkpoint
from telegrad.jobs.job import Job
from telegrad.jobs.known import Jobs
from telegrad.wire.job_spec import EarlyStopping, KeepBest
from telegrad.wire.jobs import JobEvent, MetricRow

__all__ = ["Checkpoint", "EarlyStopping", "Job", "JobEvent", "Jobs", "KeepBest", "MetricRow"]
