"""A trainer's job has the bits of the loop that one would write by hand, and its callbacks do as PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import telegrad as tg
import torch
from telegrad import nn, optim, training
from telegrad.errors import GraphError
from telegrad.training import EMA, SWA, EarlyStopping, KeepBest, ReduceOnPlateau, metrics
from telegrad.wire.codec import decode_function
from telegrad_server.compiler.pipeline import compile_function

from tests.loops.training import BATCH, PER_EPOCH, assert_equal_state, by_hand, points

SEED = 5
cross_entropy = nn.functional.cross_entropy


def network(dropout: float = 0.2) -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3))


def trainer(model: nn.Module, **options: Any) -> tg.Trainer:
    return tg.Trainer(model, cross_entropy, optim.AdamW(model.parameters(), lr=1e-2), **options)


def test_it_trains_as_the_same_loop_by_hand(session: tg.Session) -> None:
    session.seed = SEED
    data, model = points(), network()
    one = trainer(model, metrics=["accuracy"], clip_norm=0.5, scheduler=optim.schedules.CosineAnnealingLR(1e-2, 40))
    twin = network()
    twin.load_state_dict(model.state_dict())
    schedule = optim.schedules.CosineAnnealingLR(1e-2, T_max=40)
    optimizer = optim.AdamW(twin.parameters(), lr=schedule)

    @tg.function
    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        loss = cross_entropy(twin(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    job = one.fit(data, epochs=3, batch_size=BATCH)
    losses = by_hand(step, data, steps=3 * PER_EPOCH, seed=SEED)
    job.wait(timeout_seconds=60)

    assert_equal_state(twin, job.state_dict())
    assert job.history["loss"]["value"].tolist() == losses
    assert one.load(job) == 3 * PER_EPOCH
    assert all(np.array_equal(twin.state_dict()[name], array) for name, array in model.state_dict().items())


def test_a_step_in_parts_is_that_of_the_whole_batch(session: tg.Session) -> None:
    data, whole = points(rows=30), network(dropout=0.0)
    parts = network(dropout=0.0)
    parts.load_state_dict(whole.state_dict())
    makes = [optim.SGD(model.parameters(), lr=0.1) for model in (whole, parts)]
    measures = {"accuracy": metrics.accuracy, "masked": metrics.masked_accuracy(0)}
    one = tg.Trainer(whole, cross_entropy, makes[0], metrics=measures)
    other = tg.Trainer(parts, cross_entropy, makes[1], metrics=measures, accumulate=4)

    job = one.fit(data, steps=5, batch_size=30, shuffle=False).wait(timeout_seconds=60)
    same = other.fit(data, steps=5, batch_size=30, shuffle=False).wait(timeout_seconds=60)

    for name, array in job.state_dict().items():
        assert np.allclose(array, same.state_dict()[name], rtol=1e-5, atol=1e-6)
    for name in ("loss", "accuracy", "masked", "masked.count"):
        assert np.allclose(job.history[name]["value"], same.history[name]["value"], rtol=1e-5)


def test_a_step_in_parts_is_the_one_that_adds_gradients_up_by_hand(session: tg.Session) -> None:
    session.seed = SEED
    data, model = points(), network()
    one = trainer(model, accumulate=2)
    twin = network()
    twin.load_state_dict(model.state_dict())
    optimizer = optim.AdamW(twin.parameters(), lr=1e-2)

    @tg.function
    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        half = x.shape[0] // 2
        first = cross_entropy(twin(x[:half]), y[:half]) * 0.5
        first.backward()
        second = cross_entropy(twin(x[half:]), y[half:]) * 0.5
        second.backward()
        optimizer.step()
        optimizer.zero_grad()
        return first + second

    job = one.fit(data, epochs=2, batch_size=BATCH)
    losses = by_hand(step, data, steps=2 * PER_EPOCH, seed=SEED)
    job.wait(timeout_seconds=60)

    assert_equal_state(twin, job.state_dict())
    assert job.history["loss"]["value"].tolist() == losses


def test_a_scaled_loss_changes_no_bit_where_nothing_overflows(session: tg.Session) -> None:
    data, model = points(rows=64), network(dropout=0.0)
    twin = network(dropout=0.0)
    twin.load_state_dict(model.state_dict())
    one, other = (
        tg.Trainer(m, cross_entropy, optim.SGD(m.parameters(), lr=0.1), clip_norm=9.0, scaler=scaler)
        for m, scaler in ((model, None), (twin, optim.GradScaler(1024.0, growth_interval=2)))
    )

    job, same = (t.fit(data, steps=6, batch_size=32, seed=SEED).wait(timeout_seconds=60) for t in (one, other))

    assert job.history["loss"]["value"].tolist() == same.history["loss"]["value"].tolist()
    assert same.state_dict()["scaler.scale"] == 1024 * 2**3


def test_parts_take_a_part_of_the_memory(session: tg.Session) -> None:
    examples = {"x": np.zeros((4096, 8), np.float32), "y": np.zeros(4096, np.int64)}

    def peak(accumulate: int) -> int:
        model = nn.Sequential(*[layer for _ in range(6) for layer in (nn.Linear(8, 8), nn.Tanh())])
        step: Any = trainer(model, accumulate=accumulate).step
        return compile_function(decode_function(step.compiled(session, examples).prepared.data)).peak_bytes

    assert peak(4) < 0.35 * peak(1)


def test_a_metric_counts_what_it_says_over_an_epoch(session: tg.Session) -> None:
    """Batches of 4, 4 and 2 rows in which 3, 0 and 2 count: their mean is over five."""
    x = np.eye(3, dtype=np.float32)[np.array([0, 1, 2, 0, 1, 1, 1, 1, 2, 0])]
    y = np.array([0, 1, 0, -100, -100, -100, -100, -100, 2, 1])
    model = nn.Linear(3, 3)
    model.load_state_dict({"weight": np.eye(3, dtype=np.float32), "bias": np.zeros(3, np.float32)})
    one = tg.Trainer(
        model, lambda output, _: (output * 0.0).sum(), optim.SGD(model.parameters(), lr=0.0),
        metrics=[metrics.masked_accuracy(-100)],
    )  # fmt: skip

    job = one.fit({"x": x, "y": y}, epochs=1, batch_size=4, shuffle=False, validation_data={"x": x, "y": y}).wait()

    history = job.history
    assert history["accuracy"]["step"].tolist() == [1, 3]
    assert history["accuracy"]["value"].tolist() == [2 / 3, 1 / 2]
    assert history["epoch/accuracy"]["value"].tolist() == history["val/accuracy"]["value"].tolist() == [3 / 5]
    assert history["epoch/accuracy.count"]["value"].tolist() == [5]
    assert one.evaluate({"x": x, "y": y}, batch_size=4)["accuracy"] == 3 / 5


def test_what_cannot_be_evaluated_or_trained_is_a_sentence_before_anything_runs(session: tg.Session) -> None:
    x, y = np.zeros((3, 8), np.float32), np.zeros(3, np.int64)
    one, none = trainer(network()), session.datasets.put("none", x=x[:0], y=y[:0])
    given: list[tuple[Any, str]] = [
        (none, "has no rows"),
        ({"x": x[:0], "y": y[:0]}, "has no rows"),
        ({"x": x}, "wants the column 'y', and the data has x"),
        ({}, "wants the column 'x', and the data has none"),
        ({"x": x, "y": y[:2]}, "different numbers of rows"),
        ({"x": x, "y": 1}, "column 'y' is a scalar"),
        (x, "not ndarray"),
    ]
    for data, says in given:
        with pytest.raises(GraphError, match=says):
            one.evaluate(data)
    with pytest.raises(GraphError, match="batch_size"):
        one.evaluate({"x": x, "y": y}, batch_size=0)
    with pytest.raises(GraphError, match="ReLU has no parameters"):
        tg.Trainer(nn.ReLU(), cross_entropy, one.optimizer).fit({"x": x, "y": y}, epochs=1, batch_size=2)
    nothing: Any = None
    with pytest.raises(GraphError, match="not NoneType"):
        one.fit(nothing, epochs=1, batch_size=2)
    stop: Any = "stop early"
    with pytest.raises(GraphError, match="a callback is data"):
        trainer(network(), callbacks=[stop])
    assert one.evaluate({"x": x.tolist(), "y": y.tolist()})["loss"] > 0


@pytest.mark.slow
def test_the_average_of_weights_is_pytorchs(session: tg.Session) -> None:
    data, model = points(), network()
    job = trainer(model, callbacks=[EMA(0.9), SWA(1, every_epochs=2)]).fit(
        data, epochs=5, batch_size=BATCH, checkpoint_every=1, keep_checkpoints=100
    )
    job.wait(timeout_seconds=60)
    states = [job.state_dict(step) for step in job.checkpoints]
    theirs = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(16, 3))
    ema = torch.optim.swa_utils.AveragedModel(theirs, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    swa = torch.optim.swa_utils.AveragedModel(theirs)

    for step, state in enumerate(states):
        theirs.load_state_dict({name: torch.from_numpy(state[f"model.{name}"]) for name in theirs.state_dict()})
        if step:
            ema.update_parameters(theirs)
        if step in (2 * PER_EPOCH, 4 * PER_EPOCH):  # the ends of epochs 1 and 3, counted from 0
            swa.update_parameters(theirs)

    assert states[-1]["ema.n_averaged"] == 5 * PER_EPOCH and states[-1]["swa.n_averaged"] == 2
    for root, average in (("ema", ema), ("swa", swa)):
        for name, tensor in average.module.state_dict().items():
            assert np.allclose(states[-1][f"{root}.module.{name}"], tensor.numpy(), rtol=1e-5, atol=1e-6)


def test_averages_load_into_their_models(session: tg.Session) -> None:
    model = network()
    one = trainer(model, callbacks=[EMA(0.9), SWA(0)])
    job = one.fit(points(), epochs=2, batch_size=BATCH).wait(timeout_seconds=60)

    one.load(job)
    plain = network()
    job.load_state(plain, root="ema.module")

    assert one.ema is not None and one.swa is not None
    assert_equal_state(one.ema, job.state_dict(), "ema")
    assert_equal_state(one.swa, job.state_dict(), "swa")
    assert_equal_state(plain, job.state_dict(), "ema.module")


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["loss", "val/loss"])
def test_a_plateau_lowers_the_rate_as_pytorchs_does(session: tg.Session, metric: str) -> None:
    plateau = ReduceOnPlateau(metric, factor=0.5, patience=0, threshold=0.05, cooldown=1)
    job = trainer(network(), callbacks=[plateau]).fit(
        points(), epochs=12, batch_size=BATCH, validation_data=points(1, rows=40)
    )
    job.wait(timeout_seconds=60)
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1e-2)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, factor=0.5, patience=0, threshold=0.05, cooldown=1)
    history = job.history

    rates: list[float] = []
    for value in history[metric if metric == "val/loss" else "epoch/loss"]["value"]:
        schedule.step(value)
        rates.append(theirs.param_groups[0]["lr"])

    assert history["lr"]["value"].tolist() == rates
    assert len(set(rates)) > 1


def test_validation_comes_every_so_many_epochs_and_after_the_last(session: tg.Session) -> None:
    job = trainer(network(), callbacks=[KeepBest("val/accuracy", "max")], metrics=["accuracy"]).fit(
        points(), epochs=5, batch_size=BATCH, validation_data=points(1, rows=40), validate_every_epochs=2
    )
    job.wait(timeout_seconds=60)

    assert (job.history["val/accuracy"]["step"] / PER_EPOCH).tolist() == [2, 4, 5]


def test_evaluating_here_gives_what_the_job_recorded(session: tg.Session) -> None:
    model, held_out = network(), points(1, rows=40)
    one = trainer(model, metrics=["accuracy", "top_2"], callbacks=[EarlyStopping("val/loss", "min", patience=50)])
    job = one.fit(points(), epochs=2, batch_size=BATCH, validation_data=held_out).wait(timeout_seconds=60)
    one.load(job)

    found = one.evaluate(held_out, batch_size=BATCH)
    again = one.evaluate(session.datasets.put("held-out", held_out), batch_size=BATCH)

    assert found == again == {name: job.history[f"val/{name}"]["value"][-1] for name in ("loss", "accuracy", "top_2")}
    assert model.training and found["top_2"] >= found["accuracy"]


def test_a_step_by_hand_is_the_jobs_step(session: tg.Session) -> None:
    session.seed = SEED
    data, model = points(), network()
    one = trainer(model, callbacks=[EMA(0.9)])

    job = one.fit(data, epochs=1, batch_size=BATCH)
    losses = by_hand(one.step, data, steps=PER_EPOCH, seed=SEED, read=lambda results: results["loss"])
    job.wait(timeout_seconds=60)

    assert job.history["loss"]["value"].tolist() == losses
    assert one.ema is not None
    assert_equal_state(one.ema, job.state_dict(), "ema")


def test_replicas_train_with_parts_and_counts(session: tg.Session) -> None:
    data, model = points(), nn.Linear(8, 3)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    one = tg.Trainer(
        model, cross_entropy, optimizer, accumulate=2, replicas=2, metrics=[metrics.masked_accuracy(0)],
        callbacks=[EMA(0.5), SWA(0)],
    )  # fmt: skip

    job = one.fit(data, epochs=2, batch_size=BATCH, seed=SEED)
    by_hand(one.step, data, steps=2 * PER_EPOCH, seed=SEED, read=lambda results: results["loss"])
    job.wait(timeout_seconds=60)

    assert_equal_state(model, job.state_dict())
    assert job.history["epoch/accuracy.count"]["value"].tolist() == [np.count_nonzero(data["y"])] * 2


def test_arrays_leave_no_dataset_behind(session: tg.Session) -> None:
    job = trainer(network()).fit(points(), epochs=2, batch_size=BATCH, validation_data=points(1, rows=40))
    with pytest.raises(GraphError):
        trainer(network(), callbacks=[KeepBest("val/loss", "min")]).fit(points(2), epochs=1, batch_size=BATCH)

    assert list(session.datasets) == []
    assert job.wait(timeout_seconds=60).state == "SUCCEEDED"


def test_what_does_not_fit_is_said_in_one_sentence(session: tg.Session) -> None:
    model = network()
    scheduled = optim.SGD(model.parameters(), lr=optim.schedules.ExponentialLR(0.1, 0.9))

    with pytest.raises(GraphError, match="no metric 'acuracy'; there are accuracy"):
        trainer(model, metrics=["acuracy"])
    with pytest.raises(GraphError, match="one number as lr, and no scheduler"):
        tg.Trainer(model, cross_entropy, scheduled, callbacks=[ReduceOnPlateau("loss")])
    with pytest.raises(GraphError, match="takes one EMA, not 2"):
        trainer(model, callbacks=[EMA(), EMA(0.5)])
    with pytest.raises(GraphError, match="nothing records the metric 'val/loss'"):
        trainer(model, callbacks=[EarlyStopping("val/loss", "min", 3)]).fit(points(), epochs=1, batch_size=BATCH)
    with pytest.raises(GraphError, match="a step takes a batch of each of x, y"):
        trainer(model).step(points()["x"])
    assert training.metrics.top_k(3).__name__ == "top_3"
