"""A job does what the same loop in the session would have done, and can be followed."""

from __future__ import annotations

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn, optim
from telegrad.errors import GraphError, JobFailed, NotFound
from telegrad.jobs import EarlyStopping, KeepBest

from tests.loops.training import BATCH, PER_EPOCH, assert_equal_state, by_hand, made, points

SEED = 7


def test_a_job_has_the_bits_of_the_same_loop_in_the_session(session: tg.Session) -> None:
    session.seed = SEED
    data, (model, optimizer, step, _) = points(), made()

    job = session.submit(step, data=data, epochs=3, batch_size=BATCH, checkpoint_every=5)
    losses = by_hand(step, data, steps=3 * PER_EPOCH, seed=SEED)
    job.wait(timeout_seconds=60)

    state = job.state_dict()
    assert_equal_state(model, state)
    assert job.history["loss"]["value"].tolist() == losses
    assert job.history["loss"]["step"].tolist() == list(range(1, 13))
    for number, moments in optimizer.state_dict()["state"].items():
        for name, array in moments.items():
            assert np.array_equal(array, state[f"optimizer.{number}.{name}"])


def test_submitting_is_a_snapshot(session: tg.Session) -> None:
    data, (model, _, step, _) = points(), made()
    by_hand(step, data, steps=2, seed=0)
    before = model.state_dict()

    job = session.submit(step, data=data, steps=1, batch_size=BATCH, shuffle=False)
    by_hand(step, data, steps=3, seed=0)
    job.wait(timeout_seconds=60)

    first = job.state_dict(0)
    assert all(np.array_equal(before[name], first[f"model.{name}"]) for name in before)


def test_a_job_is_found_by_name_and_loads_into_another_model(session: tg.Session) -> None:
    data, (_, _, step, _) = points(), made()
    session.submit(step, data=data, epochs=1, batch_size=BATCH, name="points").wait(timeout_seconds=60)
    other = made()

    found = session.jobs["points"]
    step_number = found.load_state(other.model, other.optimizer)

    assert step_number == PER_EPOCH == found.checkpoints[-1]
    assert_equal_state(other.model, found.state_dict())
    assert float(other.optimizer.steps.item()) == PER_EPOCH
    assert "points" in session.jobs and "others" not in session.jobs
    with pytest.raises(NotFound, match="holds no state of a model"):
        found.load_state(nn.Linear(3, 5))


def test_validation_is_recorded_and_the_best_checkpoint_stays(session: tg.Session) -> None:
    data, (model, _, step, evaluate) = points(), made()

    job = session.submit(
        step, data=data, epochs=4, batch_size=BATCH, validate=evaluate, validation_data=points(1, rows=40),
        keep_best=KeepBest("val/loss", "min"), keep_checkpoints=1,
    ).wait(timeout_seconds=60)  # fmt: skip

    history = job.history
    assert history["val/loss"]["step"].tolist() == [4, 8, 12, 16]
    assert history["epoch/loss"]["epoch"].tolist() == [0, 1, 2, 3]
    best = int(history["val/loss"]["step"][history["val/loss"]["value"].argmin()])
    assert set(job.checkpoints) == {0, best, 16}
    assert model(tg.asarray(data["x"])).shape == (100, 3)


def test_a_loop_that_gets_no_better_stops_early(session: tg.Session) -> None:
    w = tg.Variable(np.zeros((), np.float32), name="w")

    def step(x: tg.Tensor) -> tg.Tensor:
        w.assign(w + 1.0)
        return (x * 0.0).mean() + 1.0

    job = session.submit(
        step, data={"x": np.zeros((4, 1), np.float32)}, epochs=50, batch_size=2,
        early_stopping=EarlyStopping("loss", "min", patience=2),
    ).wait(timeout_seconds=60)  # fmt: skip

    assert job.reason == "EARLY_STOPPED"
    assert job.state_dict()["w"] == 8.0  # the first epoch is the best, two may be worse, the next one is too many


@pytest.mark.parametrize(("on_nonfinite", "state"), [("fail", "FAILED"), ("pause", "PAUSED"), ("keep", "SUCCEEDED")])
def test_a_metric_that_is_no_number_ends_a_job_as_it_was_told(
    session: tg.Session, on_nonfinite: str, state: str
) -> None:
    w = tg.Variable(np.float32(3.0), name="w")

    def step(x: tg.Tensor) -> tg.Tensor:
        w.assign(w - 1.0)
        return tg.log(w * x).mean()

    job = session.submit(
        step, data={"x": np.ones((4, 1), np.float32)}, steps=6, batch_size=4, checkpoint_every=1,
        on_nonfinite=on_nonfinite,  # type: ignore[arg-type]
    )  # fmt: skip
    for event in job.events():
        if getattr(event, "kind", "") in ("Failed", "Paused", "Succeeded"):
            break

    assert job.state == state
    if state != "SUCCEEDED":
        assert job.checkpoints[-1] == 2
        assert "loss was -inf at step 3" in job.reason
    if state == "FAILED":
        with pytest.raises(JobFailed, match="NONFINITE"):
            job.wait()
    job.cancel() if state == "PAUSED" else None


def test_an_op_that_fails_names_the_users_line(session: tg.Session) -> None:
    table = tg.Variable(np.zeros((3, 2), np.float32), name="table")

    def step(i: tg.Tensor) -> tg.Tensor:
        return tg.take(table, i, axis=0).mean()

    job = session.submit(step, data={"i": np.array([0, 1, 9])}, epochs=1, batch_size=3)

    with pytest.raises(JobFailed) as caught:
        job.wait(timeout_seconds=60)
    assert "test_submit.py" in str(caught.value.location)


@pytest.mark.slow
def test_a_job_pauses_goes_on_and_is_extended_with_the_same_bits(session: tg.Session) -> None:
    session.seed = SEED
    data, (model, _, step, _) = points(), made()
    job = session.submit(step, data=data, epochs=200, batch_size=BATCH, checkpoint_every=1000, name="long")

    job.pause()
    for event in job.events():
        if getattr(event, "kind", "") == "Paused":
            break
    assert 0 <= job.refresh().step < 200 * PER_EPOCH
    job.resume().wait(timeout_seconds=60)
    job.extend(epochs=201).wait(timeout_seconds=60)
    losses = by_hand(step, data, steps=201 * PER_EPOCH, seed=SEED)

    assert_equal_state(model, job.state_dict())
    assert job.history["loss"]["value"].tolist() == losses


def test_a_cancelled_job_keeps_its_checkpoints(session: tg.Session) -> None:
    data, (_, _, step, _) = points(), made()
    job = session.submit(step, data=data, epochs=100_000, batch_size=BATCH, checkpoint_every=4)
    for row in job.events():
        if getattr(row, "name", ""):
            break

    job.cancel()

    with pytest.raises(JobFailed, match="CANCELLED"):
        job.wait(timeout_seconds=60)
    assert job.checkpoints


def test_replicas_train_in_a_job(session: tg.Session) -> None:
    data = points()
    model = nn.Linear(8, 3)
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @tg.function(replicas=2)
    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.minimize(loss)
        return loss

    job = session.submit(step, data=data, steps=6, batch_size=BATCH, seed=SEED)
    by_hand(step, data, steps=6, seed=SEED)
    job.wait(timeout_seconds=60)

    assert_equal_state(model, job.state_dict())


def test_what_does_not_fit_is_said_in_one_sentence(session: tg.Session) -> None:
    data, (model, _, step, _) = points(), made()

    with pytest.raises(GraphError, match="call its arguments as the columns are called"):
        session.submit(step, data={"images": data["x"]}, epochs=1, batch_size=BATCH)
    with pytest.raises(GraphError, match="either epochs or steps"):
        session.submit(step, data=data, batch_size=BATCH)
    with pytest.raises(GraphError, match="a metric is one number"):
        session.submit(lambda x: model(x), data=data, epochs=1, batch_size=BATCH)
