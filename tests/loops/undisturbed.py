"""A job that is hurt in tests, the same job left alone, and whether a folder says what it must of one that was hurt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import telegrad as tg
from telegrad import nn, optim
from telegrad.jobs import Job, KeepBest
from telegrad_server.checkpoints import CheckpointStore, Folders
from telegrad_server.jobs.job import Job as Standing
from telegrad_server.jobs.machine import replayed
from telegrad_server.journal import Journal

from tests.loops.training import BATCH, made, points

SEED = 23
NAME = "hurt"


def submitted(session: tg.Session, *, steps: int) -> Job:
    """The job: dropout, a schedule, a validation, the best checkpoint kept, and one every third step."""
    with session.active():
        _, _, step, evaluate = made()
        return session.submit(
            step, data=points(), steps=steps, batch_size=BATCH, checkpoint_every=3, keep_checkpoints=2, name=NAME,
            validate=evaluate, validation_data=points(1, rows=40), keep_best=KeepBest("val/loss", "min"),
        )  # fmt: skip


def submitted_in_replicas(session: tg.Session, *, steps: int) -> Job:
    """A job of two replicas."""
    with session.active():
        model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 3))
        optimizer = optim.AdamW(model.parameters(), lr=1e-2)

        @tg.function(replicas=2)
        def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.minimize(loss)
            return loss

        return session.submit(
            step, data=points(), steps=steps, batch_size=BATCH, checkpoint_every=3, keep_checkpoints=2, name=NAME
        )


History = Mapping[str, Mapping[str, npt.NDArray[Any]]]


@dataclass(frozen=True)
class Outcome:
    """What a job ended with."""

    state: Mapping[str, npt.NDArray[Any]]
    history: History

    @classmethod
    def of(cls, job: Job) -> Outcome:
        """Waits for it."""
        job.wait(timeout_seconds=300)
        return cls(job.state_dict(), job.history)

    def assert_equal(self, other: Outcome) -> None:
        """AssertionError unless both have the same bits, and the same metrics once each."""
        assert self.state.keys() == other.state.keys()
        for name, array in self.state.items():
            assert np.array_equal(array, other.state[name]), name
        assert self.history.keys() == other.history.keys()
        for name, series in self.history.items():
            for kind, values in series.items():
                assert np.array_equal(values, other.history[name][kind]), (name, kind)


def standing(folder: Path, undisturbed: Outcome, store: CheckpointStore | None = None) -> Standing | None:
    """How the job stands in a dead server's folder; None before it was taken in. AssertionError if a promise is broken.

    The journal is whole, has each metric of the steps that it covers once, with the value of the job left alone, and
    there is a whole checkpoint of the last step that it knows.
    """
    journal = Journal(folder / "journal.db")
    try:
        jobs = replayed([(entry.at, entry.event) for entry in journal.replay()])
        jobs.validate()
        found = jobs.in_order()
        if not found:
            return None
        (job,) = found
        for name, series in undisturbed.history.items():
            rows = [(row.step, row.value) for row in journal.metrics(job.id) if row.name == name]
            known = zip(series["step"].tolist(), series["value"].tolist(), strict=True)
            assert rows == [(step, value) for step, value in known if step <= job.step], name
    finally:
        journal.close()
    store = CheckpointStore(Folders(folder / "checkpoints")) if store is None else store
    assert store.verify(job.id).damaged == ()
    assert job.step in store.steps(job.id)
    return job
