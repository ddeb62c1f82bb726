"""A fork and a rewound job go on from a checkpoint with the bits that the loop has from there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn, optim
from telegrad.errors import GraphError, JobError, NotFound
from telegrad.jobs import EarlyStopping, Job, KeepBest
from telegrad.wire.jobs import Fork, MetricRow
from telegrad_server.checkpoints import CheckpointStore, Draft, Folders

from tests.loops.training import BATCH, PER_EPOCH, assert_equal_state, by_hand, made, points

SEED = 9


def plain(lr: float = 0.1) -> tuple[nn.Module, optim.SGD, Any]:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9)

    @tg.function
    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.minimize(loss)
        return loss

    return model, optimizer, step


def same_state(one: Job, other: Job) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def cancel(job: Job) -> None:
    job.cancel()
    for _ in job.events():
        pass


def test_a_fork_with_nothing_changed_has_the_bits_of_its_parent(session: tg.Session) -> None:
    session.seed = SEED
    job = session.submit(
        made().step, data=points(), epochs=4, batch_size=BATCH, checkpoint_every=3, keep_checkpoints=10, name="first"
    )
    job.wait(timeout_seconds=60)

    fork = job.fork(at_step=6, name="second").wait(timeout_seconds=60)

    assert same_state(fork, job)
    assert fork.checkpoints == [6, 9, 12, 15, 16]
    history, whole = fork.history, job.history
    assert history["loss"]["value"].tolist() == whole["loss"]["value"].tolist()[6:]
    assert history["epoch/loss"]["value"].tolist() == whole["epoch/loss"]["value"].tolist()[1:]
    assert session.jobs["second"].id == fork.id != job.id


def test_a_fork_goes_on_with_another_rate_and_end(session: tg.Session) -> None:
    session.seed = SEED
    data, (model, optimizer, step) = points(), plain()
    job = session.submit(step, data=data, epochs=2, batch_size=BATCH, name="first")
    losses = by_hand(step, data, steps=2 * PER_EPOCH, seed=SEED)
    job.wait(timeout_seconds=60)

    fork = job.fork(lr=0.01, epochs=3).wait(timeout_seconds=60)
    optimizer.param_groups[0]["lr"] = 0.01
    losses += by_hand(step, data, steps=3 * PER_EPOCH, seed=SEED, first=2 * PER_EPOCH)

    assert_equal_state(model, fork.state_dict())
    assert fork.history["loss"]["value"].tolist() == losses[2 * PER_EPOCH :]
    assert job.refresh().last_step == 2 * PER_EPOCH


def test_a_fork_gives_a_plateau_another_rate(session: tg.Session) -> None:
    model = nn.Linear(8, 3)
    plateau = tg.training.ReduceOnPlateau("loss", patience=100)
    trainer = tg.Trainer(model, nn.functional.cross_entropy, optim.SGD(model.parameters(), lr=0.1), callbacks=[plateau])
    job = trainer.fit(points(), epochs=1, batch_size=BATCH).wait(timeout_seconds=60)

    fork = job.fork(lr=0.025, epochs=2).wait(timeout_seconds=60)

    assert job.history["lr"]["value"].tolist() == [0.1]
    assert fork.history["lr"]["value"].tolist() == [0.025]


def test_the_same_request_makes_one_fork_and_rewinds_once(session: tg.Session) -> None:
    job = session.submit(made().step, data=points(), epochs=2, batch_size=BATCH, keep_checkpoints=9)
    job.wait(timeout_seconds=60)
    calls = session.commands.connection.jobs

    forks = [calls.fork(job.id, "once", Fork(name="second", step=4)) for _ in range(2)]
    for _ in range(2):
        calls.rewind(job.id, "again", 4)
        job.wait(timeout_seconds=60)
    with pytest.raises(GraphError, match="used for something else"):
        calls.fork(job.id, "once", Fork(name="third", step=4))

    assert forks[0].id == forks[1].id
    assert [getattr(event, "kind", "") for event in job.events()].count("Rewound") == 1
    session.jobs["second"].wait(timeout_seconds=60)


def test_what_a_fork_cannot_be_is_said_in_one_sentence(session: tg.Session) -> None:
    job = session.submit(made().step, data=points(), epochs=2, batch_size=BATCH, name="first").wait(timeout_seconds=60)

    with pytest.raises(GraphError, match=r"no number 'lr' that a fork could change; it has .*weight_decay"):
        job.fork(at_step=4, lr=0.1)
    with pytest.raises(GraphError, match="finite"):
        job.fork(at_step=4, weight_decay=float("nan"))
    with pytest.raises(NotFound, match="no checkpoint of step 5"):
        job.fork(at_step=5)
    with pytest.raises(GraphError, match="must have a step left to do"):
        job.fork()
    with pytest.raises(GraphError, match="not both"):
        job.fork(epochs=3, steps=9)
    running = session.submit(made().step, data=points(), epochs=100_000, batch_size=BATCH, name="taken")
    with pytest.raises(JobError, match="a job named taken"):
        job.fork(epochs=3, name="taken")
    cancel(running)
    assert len(session.jobs.list()) == 2


def test_a_rewound_job_ends_with_the_same_bits_again(session: tg.Session) -> None:
    session.seed = SEED
    job = session.submit(
        made().step, data=points(), epochs=4, batch_size=BATCH, checkpoint_every=3, keep_checkpoints=10
    )
    job.wait(timeout_seconds=60)
    state, losses = job.state_dict(), job.history["loss"]["value"].tolist()

    job.rewind(6)
    job.wait(timeout_seconds=60)

    again = job.state_dict()
    assert all(np.array_equal(state[name], again[name]) for name in state)
    assert job.history["loss"]["value"].tolist() == losses
    assert job.checkpoints == [0, 3, 6, 9, 12, 15, 16]
    items = list(job.events())
    back = [getattr(item, "kind", "") for item in items].index("Rewound")
    assert [x.step for x in items if isinstance(x, MetricRow) and x.name == "loss"] == list(range(1, 17))
    assert not [item for item in items[:back] if isinstance(item, MetricRow)], "told of steps that come after it"
    with pytest.raises(NotFound, match="no checkpoint of step 7"):
        job.rewind(7)


@pytest.mark.slow
def test_a_running_job_is_rewound_and_tells_its_steps_again(session: tg.Session) -> None:
    session.seed = SEED
    data, (model, _, step, _) = points(), made()
    job = session.submit(step, data=data, epochs=150, batch_size=BATCH, checkpoint_every=2, keep_checkpoints=1000)
    seen: list[tuple[int, str]] = []
    for item in job.events():
        if getattr(item, "name", "") == "loss":
            seen.append((item.step, "row"))  # type: ignore[union-attr]
            if seen.count((40, "row")) == 1 and seen[-1] == (40, "row"):
                job.rewind(20)
        elif getattr(item, "kind", "") == "Rewound":
            seen.append((0, "back"))

    job.wait(timeout_seconds=60)
    losses = by_hand(step, data, steps=150 * PER_EPOCH, seed=SEED)

    back = seen.index((0, "back"))
    assert [step for step, _ in seen[:back]][:40] == list(range(1, 41))
    assert [step for step, _ in seen[back + 1 :]] == list(range(21, 150 * PER_EPOCH + 1))
    assert_equal_state(model, job.state_dict())
    assert job.history["loss"]["value"].tolist() == losses


@pytest.mark.slow
def test_rewinding_again_and_again_while_old_checkpoints_go_loses_nothing(session: tg.Session) -> None:
    """Each time to the oldest checkpoint there is, which the running job is about to take away."""
    session.seed = SEED
    data, (model, _, step, _) = points(), made()
    job = session.submit(step, data=data, epochs=40, batch_size=BATCH, checkpoint_every=1, keep_checkpoints=2)
    rewound = 0
    while rewound < 12 and not job.refresh().has_ended:
        try:
            job.rewind(job.checkpoints[0])
            rewound += 1
        except (NotFound, JobError):
            pass  # it was faster, or is there already

    job.wait(timeout_seconds=90)
    losses = by_hand(step, data, steps=40 * PER_EPOCH, seed=SEED)

    assert rewound
    assert_equal_state(model, job.state_dict())
    assert job.history["loss"]["value"].tolist() == losses
    assert job.checkpoints[-1] == 40 * PER_EPOCH


def test_a_paused_job_that_is_rewound_stays_paused(session: tg.Session) -> None:
    job = session.submit(
        made().step, data=points(), epochs=100_000, batch_size=BATCH, checkpoint_every=2, keep_checkpoints=100_000
    )
    for row in job.events():
        if getattr(row, "step", 0) >= 8:
            break
    job.pause()
    for event in job.events():
        if getattr(event, "kind", "") == "Paused":
            break

    job.rewind(4)

    assert (job.state, job.refresh().step) == ("PAUSED", 4)
    cancel(job)


def test_an_early_stopped_job_goes_on_with_its_patience_anew(session: tg.Session) -> None:
    w = tg.Variable(np.zeros((), np.float32), name="w")

    def step(x: tg.Tensor) -> tg.Tensor:
        w.assign(w + 1.0)
        return (x * 0.0).mean() + 1.0

    job = session.submit(
        step, data={"x": np.zeros((4, 1), np.float32)}, epochs=50, batch_size=2, keep_best=KeepBest("loss", "min"),
        early_stopping=EarlyStopping("loss", "min", patience=2),
    ).wait(timeout_seconds=60)  # fmt: skip
    assert (job.reason, job.refresh().step) == ("EARLY_STOPPED", 8)

    with pytest.raises(JobError, match="ends after step 8 already"):
        job.extend(epochs=4)
    job.extend(epochs=6).wait(timeout_seconds=60)
    assert (job.reason, job.refresh().step) == ("DONE", 12)
    job.extend(epochs=50).wait(timeout_seconds=60)

    assert (job.reason, job.refresh().step) == ("EARLY_STOPPED", 14)  # epochs 5, 6 and 7 were no better
    fork = job.fork(epochs=50).wait(timeout_seconds=60)
    assert (fork.reason, fork.refresh().step) == ("EARLY_STOPPED", 20)


def test_a_pinned_checkpoint_stays_whatever_is_kept(tmp_path: Any) -> None:
    """As while somebody goes back to it, and the training that it is of goes on."""
    store = CheckpointStore(Folders(tmp_path))

    def write(step: int) -> None:
        draft = Draft(
            job="j", step=step, epoch=0, cursor=0, calls=0, seed=0, spec_digest="", fingerprint="", metrics={},
            tensors={},
        )  # fmt: skip
        store.write(draft, [])

    for step in range(4):
        write(step)
    with store.pinned("j", 1), store.pinned("j", 1):
        store.keep("j", last=1)
        assert store.steps("j") == [1, 3]
    write(4)
    store.keep("j", last=1)

    assert store.steps("j") == [4]
