"""What users ask for that a job cannot be, or that is odd and yet right: one clear sentence, or the job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn
from telegrad.errors import JobFailed, NotFound, SessionError, TelegradError
from telegrad.jobs import EarlyStopping, Job

from tests.faults.conftest import Server

X = np.ones((8, 2), np.float32)


def submitted(session: tg.Session, data: Any = None, **options: Any) -> Job:
    """A job of two steps that is quick; ``options`` are what is odd about it."""
    w = tg.Variable(np.float32(0.0), name="w")

    def step(x: tg.Tensor) -> tg.Tensor:
        w.assign(w + 1.0)
        return (x * w).mean()

    if "epochs" not in options and "steps" not in options:
        options["epochs"] = 1
    return session.submit(step, data={"x": X} if data is None else data, **{"batch_size": 4, **options})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no epoch": ({"epochs": 0}, r"epochs must be an integer of at least 1, not 0"),
    "half an epoch": ({"epochs": 1.5}, r"epochs must be an integer of at least 1, not 1\.5"),
    "epochs and steps": ({"epochs": 2, "steps": 3}, r"either epochs or steps; give one of them"),
    "an empty batch": ({"batch_size": 0}, r"batch_size must be an integer of at least 1"),
    "no whole batch": ({"batch_size": 100, "drop_last": True}, r"8 rows make no batch of 100; use drop_last=False"),
    "an array": ({"data": X}, r"arrays by the names of the step's arguments.*not ndarray"),
    "a dataset's name": ({"data": "digits"}, r"such as session\.datasets\['digits'\].*not str"),
    "no column": ({"data": {}}, r"from 1 to 1024 columns, not 0"),
    "no row": ({"data": {"x": X[:0]}}, r"rows of the data must be an integer from 1"),
    "text": ({"data": {"x": np.array(["a"] * 8)}}, r"dtype <U1 is not offered; use one of"),
    "another name": ({"data": {"z": X}}, r"takes x, and the data has the columns z"),
    "a checkpoint too rarely": ({"checkpoint_every": -3}, r"checkpoint_every must be an integer of at least 0"),
    "no checkpoint": ({"keep_checkpoints": 0}, r"keep_checkpoints must be an integer of at least 1"),
    "a backend of others": ({"backend": "torch"}, r"the backend must be one of '', 'numpy', 'cupy', not 'torch'"),
    "an unknown metric": ({"early_stopping": EarlyStopping("acc", "max", 1)}, r"the metric 'acc'; there are loss"),
    "a name with a blank": ({"name": "a b"}, r"'a b' is no name of a job"),
    "a name of other letters": ({"name": "größe"}, r"'größe' is no name of a job"),
}


@pytest.mark.parametrize("odd", REFUSED)
def test_a_job_that_cannot_be_is_refused_in_a_sentence(session: tg.Session, odd: str) -> None:
    options, sentence = REFUSED[odd]

    with pytest.raises(TelegradError, match=sentence):
        submitted(session, **options)

    assert session.jobs.list() == []


def test_numpys_integers_are_integers(session: tg.Session) -> None:
    two = np.int64(2)

    job = submitted(session, epochs=two, batch_size=two, keep_checkpoints=two, seed=two, checkpoint_every=two).wait()

    assert job.info.step == 8
    assert job.extend(epochs=np.int64(3)).wait().info.step == 12
    assert job.checkpoint(np.int64(12)).step == 12
    assert job.fork(np.int64(10), name="fork").wait().info.step == 12
    assert job.rewind(np.int64(10)).wait().info.step == 12


def test_a_batch_may_be_larger_than_the_data(session: tg.Session) -> None:
    assert submitted(session, batch_size=100).wait().info.step == 1


def test_a_function_may_be_called_anything(session: tg.Session) -> None:
    def größe(x: tg.Tensor) -> tg.Tensor:
        return x.mean()

    for step, called in ((größe, "job-"), (lambda x: x.mean(), "lambda-")):
        assert session.submit(step, data={"x": X}, epochs=1, batch_size=4).wait().name.startswith(called)


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda job: job.extend(epochs=1.5), r"epochs must be an integer of at least 1, not 1\.5"),
        (lambda job: job.extend(steps=-1), r"steps must be an integer of at least 1, not -1"),
        (lambda job: job.extend(epochs=1), r"ends after step 2 already; give it more than that"),
        (lambda job: job.fork(-1), r"at_step must be an integer of at least 0, not -1"),
        (lambda job: job.fork("newest"), r"at_step must be an integer of at least 0, not 'newest'"),
        (lambda job: job.fork(lr="fast"), r"lr must be a number, not 'fast'"),
        (lambda job: job.fork(epochs=3, lr=0.1), r"has no number 'lr' that a fork could change; it has none"),
        (lambda job: job.fork(1), r"no checkpoint of step 1; there are those of \[0, 2\]"),
        (lambda job: job.rewind(1), r"no checkpoint of step 1; there are those of \[0, 2\]"),
        (lambda job: job.rewind(-1), r"step must be an integer of at least 0, not -1"),
        (lambda job: job.checkpoint(-1), r"step must be an integer of at least 0, not -1"),
        (lambda job: job.pause(), r"is SUCCEEDED and cannot be paused"),
        (lambda job: job.resume(), r"is SUCCEEDED and cannot be resumed; rewind it"),
        (lambda job: job.load_state(nn.Linear(5, 5)), r"holds no state of a model like this Linear; it has w"),
    ],
)
def test_what_a_job_cannot_do_is_refused_in_a_sentence(
    session: tg.Session, ask: Callable[[Job], object], sentence: str
) -> None:
    job = submitted(session).wait()

    with pytest.raises(TelegradError, match=sentence):
        ask(job)


@pytest.mark.parametrize("key", ["nothing", "", "a b/ä", 5, None])
def test_a_job_that_is_not_there_is_not_found(session: tg.Session, key: Any) -> None:
    with pytest.raises(NotFound, match=r"no job|a job is found by its name"):
        session.jobs[key]

    assert key not in session.jobs


def test_a_session_that_is_closed_says_so_of_jobs_and_data(session: tg.Session) -> None:
    session.close()

    def submit() -> Job:
        return session.submit(lambda x: x.mean(), data={"x": X}, epochs=1, batch_size=4)

    for ask in (lambda: session.jobs, lambda: session.datasets, submit):
        with pytest.raises(SessionError, match="the session is closed; connect again"):
            ask()


@pytest.mark.slow
def test_what_was_had_of_a_server_before_closing_says_so_too(server: Server) -> None:
    with tg.connect(server.address, new=True) as session:
        job, jobs, datasets = submitted(session).wait(), session.jobs, session.datasets

    for ask in (lambda: job.state, jobs.list, datasets.list, lambda: next(job.news())):
        with pytest.raises(SessionError, match="the session is closed; connect again"):
            ask()


def test_a_job_goes_on_without_the_name_of_its_data(session: tg.Session) -> None:
    data = session.datasets.put("in-use", x=X)
    job = submitted(session, data=data, epochs=10_000, name="user")

    session.datasets.delete("in-use")

    for event in job.pause().events():
        if getattr(event, "kind", "") == "Paused":
            break
    job.resume().cancel()
    with pytest.raises(JobFailed, match="CANCELLED"):
        job.wait(timeout_seconds=60)
