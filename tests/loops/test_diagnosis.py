"""A job that comes upon a number that is not finite names the op and the user's line where that began."""

from __future__ import annotations

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn, optim
from telegrad.errors import JobFailed
from telegrad.jobs import Job

from tests.loops.training import BATCH, points


def failed(job: Job) -> tuple[str, str]:
    """The message and the text of the line that is named."""
    with pytest.raises(JobFailed) as caught:
        job.wait(timeout_seconds=60)
    assert caught.value.details["cause"] == "NONFINITE"
    location = str(caught.value.location or "")
    if not location or location == "None":
        return caught.value.message, ""
    file, _, number = location.rpartition(":")
    with open(file) as source:
        return caught.value.message, source.readlines()[int(number) - 1].strip()


def test_the_op_that_began_it_is_named(session: tg.Session) -> None:
    w = tg.Variable(np.float32(3.0), name="w")

    def step(x: tg.Tensor) -> tg.Tensor:
        w.assign(w - 1.0)
        small = tg.log(w * x)
        return (small + 2.0).mean()

    job = session.submit(step, data={"x": np.ones((4, 1), np.float32)}, steps=6, batch_size=4, checkpoint_every=1)
    message, line = failed(job)

    assert "loss was -inf at step 3 (the first value that was not finite came from log(float32[4,1]) at " in message
    assert line == "small = tg.log(w * x)"


def test_a_mask_of_infinities_is_not_taken_for_it(session: tg.Session) -> None:
    w = tg.Variable(np.float32(2.0), name="w")

    def step(x: tg.Tensor) -> tg.Tensor:
        w.assign(w - 1.0)
        masked = tg.where(x > 0.0, x, float("-inf"))
        weights = nn.functional.softmax(masked, dim=-1)
        return (weights / w).sum()

    x = np.array([[1.0, -1.0], [2.0, -3.0]], np.float32)
    message, line = failed(session.submit(step, data={"x": x}, steps=6, batch_size=2))

    assert "at step 2" in message and "divide(" in message
    assert line == "return (weights / w).sum()"


def test_variables_that_were_not_finite_lead_to_the_step_that_made_them_so(session: tg.Session) -> None:
    """The update of step 3 overflows, in a gradient; the loss shows it in step 4, and the checkpoint is of step 1."""
    w = tg.Parameter(np.ones(2, np.float32))
    n = tg.Variable(np.float32(0.0), name="n")
    optimizer = optim.SGD([w], lr=1.0)

    def step(x: tg.Tensor) -> tg.Tensor:
        n.assign(n + 1.0)
        huge = tg.where(n == 3.0, 3e38, 0.0)
        loss = (w * huge * 0.0).sum() + ((w - w.detach()) * huge * x * 10.0).mean()
        optimizer.minimize(loss)
        return (w * 0.0).sum()

    data = {"x": np.full((2, 1), 2.0, np.float32)}
    job = session.submit(step, data=data, steps=9, batch_size=2, checkpoint_seconds=1e6, shuffle=False)
    message, line = failed(job)

    assert "in step 3" in message and job.checkpoints == [0]
    assert "huge" in line


def test_data_that_is_not_finite_is_named(session: tg.Session) -> None:
    data = points()
    data["x"][70, 3] = np.nan
    model = nn.Linear(8, 3)
    trainer = tg.Trainer(model, nn.functional.cross_entropy, optim.SGD(model.parameters(), lr=0.1))

    message, line = failed(trainer.fit(data, epochs=1, batch_size=BATCH, shuffle=False))

    assert "the column x of" in message and "in step 3" in message and line == ""


def test_a_validation_is_looked_into_as_well(session: tg.Session) -> None:
    data, held_out = points(), points(1, rows=80)
    model = nn.Linear(8, 3)
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.minimize(loss)
        return loss

    def validate(x: tg.Tensor, y: tg.Tensor) -> dict[str, tg.Tensor]:
        far = tg.where(x[:, 0] > 9.0, 0.0, 1.0)
        ratio = (1.0 / far).sum()
        return {"loss": nn.functional.cross_entropy(model(x), y), "ratio": ratio}

    held_out["x"][75, 0] = 10.0
    job = session.submit(
        step, data=data, epochs=3, batch_size=BATCH, validate=validate, validation_data=held_out, name="validated"
    )
    message, line = failed(job)

    assert "the metric val/ratio was inf at step 4 (the first value that was not finite came from divide(" in message
    assert line == "ratio = (1.0 / far).sum()"
    assert job.checkpoints == [0]


def test_a_paused_job_says_it_too(session: tg.Session) -> None:
    w = tg.Variable(np.float32(3.0), name="w")

    def step(x: tg.Tensor) -> tg.Tensor:
        w.assign(w - 1.0)
        return tg.log(w * x).mean()

    job = session.submit(step, data={"x": np.ones((4, 1), np.float32)}, steps=6, batch_size=4, on_nonfinite="pause")
    for event in job.events():
        if getattr(event, "kind", "") == "Paused":
            break

    assert "log(float32[4,1]) at" in job.reason and "test_diagnosis.py" in job.reason
    job.cancel()


def test_a_replica_that_began_it_is_looked_into(session: tg.Session) -> None:
    w = tg.Variable(np.float32(3.0), name="w")

    @tg.function(replicas=2)
    def step(x: tg.Tensor) -> tg.Tensor:
        w.assign(w - 1.0)
        inner = tg.log(w * x)
        return inner.mean()

    x = np.array([[1.0], [1.0], [1.0], [1.0], [-1.0]], np.float32)
    message, line = failed(session.submit(step, data={"x": x}, steps=6, batch_size=5, shuffle=False))

    assert "loss was nan at step 1 (the first value that was not finite came from log(float32[2,1]) at " in message
    assert line == "inner = tg.log(w * x)"


def test_a_gradient_in_a_replica_leads_to_the_step_and_its_line(session: tg.Session) -> None:
    w = tg.Parameter(np.zeros(2, np.float32))
    optimizer = optim.SGD([w], lr=1.0)

    @tg.function(replicas=2)
    def step(x: tg.Tensor) -> tg.Tensor:
        root = tg.sqrt(tg.abs(w * x))
        loss = root.mean()
        optimizer.minimize(loss)
        return loss

    data = {"x": np.ones((4, 2), np.float32)}
    message, line = failed(session.submit(step, data=data, steps=6, batch_size=4, checkpoint_seconds=1e6))

    assert "the gradient of an op" in message and "in step 1" in message
    assert line == "root = tg.sqrt(tg.abs(w * x))"


def test_the_body_of_a_scan_is_looked_into(session: tg.Session) -> None:
    w = tg.Variable(np.float32(6.0), name="w")

    def step(x: tg.Tensor) -> tg.Tensor:
        w.assign(w - 1.0)

        def body(left: tg.Tensor, row: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
            left = left - 1.0
            found = tg.log(left * row)
            return left, found

        _, found = tg.scan(body, w + 0.0, x)
        return found.sum()

    job = session.submit(step, data={"x": np.ones((3, 1), np.float32)}, steps=6, batch_size=3)
    message, line = failed(job)

    assert "loss was -inf at step 3 (the first value that was not finite came from log(float32[1]) at " in message
    assert line == "found = tg.log(left * row)"


def test_the_gradient_in_the_body_of_a_loop_within_a_loop_is_looked_into(session: tg.Session) -> None:
    w = tg.Parameter(np.float32(0.0))
    optimizer = optim.SGD([w], lr=1.0)

    def step(x: tg.Tensor) -> tg.Tensor:
        def body(sum: tg.Tensor, row: tg.Tensor) -> tuple[tg.Tensor, None]:
            inner, _ = tg.scan(lambda c, one: (c + tg.sqrt(tg.abs(w * one)), None), sum, row)
            return inner, None

        total, _ = tg.scan(body, tg.asarray(np.float32(0.0)), x)
        optimizer.minimize(total)
        return total + 0.0 * w

    data = {"x": np.ones((2, 3), np.float32)}
    message, line = failed(session.submit(step, data=data, steps=6, batch_size=2, checkpoint_seconds=1e6))

    assert "the gradient of an op" in message and "in step 1" in message
    assert "tg.sqrt(tg.abs(w * one))" in line


def test_a_loop_of_too_many_trips_is_named_itself(session: tg.Session) -> None:
    w = tg.Variable(np.float32(3.0), name="w")

    def step(x: tg.Tensor) -> tg.Tensor:
        w.assign(w - 1.0)
        return tg.fori_loop(0, 15_000, lambda i, c: c + tg.log(w), x.sum())

    message, line = failed(session.submit(step, data={"x": np.ones((3, 1), np.float32)}, steps=6, batch_size=3))

    assert "came from scan(" in message and "at step 3" in message
    assert "tg.fori_loop(" in line
