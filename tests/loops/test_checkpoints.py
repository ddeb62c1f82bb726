"""What a job has made: checkpoints read tensor by tensor, into models and files, the best one, and their damage."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn, optim, safetensors
from telegrad.errors import NotFound
from telegrad.jobs import Job, KeepBest

from tests.faults.conftest import Server
from tests.faults.proxy import Proxy
from tests.loops.training import BATCH, PER_EPOCH, assert_equal_state, made, points


def trained(session: tg.Session, **options: Any) -> Job:
    return session.submit(made().step, data=points(), batch_size=BATCH, **options).wait(timeout_seconds=120)


def test_a_checkpoint_is_a_file_that_a_model_loads(session: tg.Session, tmp_path: Path) -> None:
    job = trained(session, epochs=2, keep_checkpoints=3)
    file, other = tmp_path / "weights.safetensors", made().model

    job.checkpoint(PER_EPOCH).save(file, "model")
    safetensors.load_model(other, file)

    assert_equal_state(other, job.state_dict(PER_EPOCH))
    with safetensors.safe_open(file) as opened:
        assert opened.metadata() == {"format": "pt", "job": job.id, "step": str(PER_EPOCH)}
        assert opened.keys() == sorted(other.state_dict())
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_torch_loads_the_file(session: tg.Session, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    job = trained(session, epochs=1)
    file = tmp_path / "weights.safetensors"
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(16, 3)
    )  # fmt: skip

    job.checkpoint().save(file, "model")
    model.load_state_dict(load_file(file))

    x = points()["x"]
    own = made().model
    job.load_state(own)
    own.eval()
    expected = own(tg.asarray(x)).numpy()
    assert np.allclose(model.eval()(torch.from_numpy(x)).detach().numpy(), expected, atol=1e-6)


def test_a_whole_checkpoint_keeps_its_names(session: tg.Session, tmp_path: Path) -> None:
    job = trained(session, epochs=1)

    job.checkpoint().save(tmp_path / "all.safetensors")

    found, state = safetensors.load_file(tmp_path / "all.safetensors"), job.state_dict()
    assert found.keys() == state.keys() == job.checkpoint().tensors.keys()
    assert all(np.array_equal(found[name], state[name]) for name in state)
    assert {"model.0.weight", "optimizer.0.exp_avg", "optimizer.steps"} <= state.keys()


def test_what_a_checkpoint_does_not_hold_is_said_and_nothing_is_written(session: tg.Session, tmp_path: Path) -> None:
    job = trained(session, epochs=1)

    with pytest.raises(NotFound, match=r"begins with 'net\.'; it has model, optimizer"):
        job.checkpoint().save(tmp_path / "weights.safetensors", "net")
    with pytest.raises(NotFound, match="holds no state of a model"):
        job.load_state(nn.Linear(3, 5))
    with pytest.raises(NotFound, match="no checkpoint of step 3"):
        job.checkpoint(3)
    assert list(tmp_path.glob("*.safetensors*")) == []


def test_the_best_checkpoint_is_found_with_its_value(session: tg.Session) -> None:
    model, _, step, evaluate = made()
    job = session.submit(
        step, data=points(), epochs=4, batch_size=BATCH, validate=evaluate, validation_data=points(1, rows=40),
        keep_best=KeepBest("val/loss", "max"), keep_checkpoints=1,
    ).wait(timeout_seconds=120)  # fmt: skip

    best = job.best

    losses = job.history["val/loss"]
    assert best.value == losses["value"].max()
    assert best.step == losses["step"][losses["value"].argmax()] == 4  # it learns, so the first is the largest
    assert best.load_state(model) == best.step
    assert_equal_state(model, job.state_dict(best.step))


def test_a_metric_of_the_step_is_best_over_an_epoch(session: tg.Session) -> None:
    job = trained(session, epochs=3, keep_best=KeepBest("loss", "min"), keep_checkpoints=1)

    epochs = job.history["epoch/loss"]

    assert job.best.value == epochs["value"].min()
    assert job.best.step == epochs["step"][epochs["value"].argmin()]


def test_a_job_that_keeps_no_best_one_says_so(session: tg.Session) -> None:
    with pytest.raises(NotFound, match="keep_best="):
        _ = trained(session, steps=1).best


def test_one_of_two_models_is_loaded_by_its_root(session: tg.Session) -> None:
    one, two = nn.Linear(8, 3), nn.Linear(8, 3)
    optimizer = optim.SGD([*one.parameters(), *two.parameters()], lr=0.1)

    @tg.function
    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        loss = nn.functional.cross_entropy(one(x), y) + nn.functional.cross_entropy(two(-x), y)
        optimizer.minimize(loss)
        return loss

    job = session.submit(step, data=points(), steps=2, batch_size=BATCH).wait(timeout_seconds=120)
    other = nn.Linear(8, 3)

    job.load_state(other, root="two")

    assert_equal_state(other, job.state_dict(), "two")
    assert not np.array_equal(job.state_dict()["one.weight"], job.state_dict()["two.weight"])


def large(session: tg.Session, *, tensors: int) -> Job:
    """A job with a checkpoint of so many MB, in tensors of 1 MB."""
    held = [tg.Variable(np.full((512, 512), i, np.float32), name=f"w{i:02d}") for i in range(tensors)]

    def step(x: tg.Tensor) -> tg.Tensor:
        for w in held:
            w.assign(w + 1.0)
        return x.mean()

    data = {"x": np.ones((4, 1), np.float32)}
    return session.submit(step, data=data, steps=1, batch_size=4, name="large").wait(timeout_seconds=120)


@pytest.mark.slow
def test_a_checkpoint_passes_without_being_in_memory(server: Server, tmp_path: Path) -> None:
    with tg.connect(server.address, new=True) as session:
        job = large(session, tensors=40)

        tracemalloc.start()
        job.checkpoint().save(tmp_path / "large.safetensors")
        saved = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        seen = [array[0, 0] for _, array in job.checkpoint().read()]
        read = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert seen == [i + 1.0 for i in range(40)]
    assert max(saved, read) < 10e6, (saved, read)  # of 42 MB
    assert (tmp_path / "large.safetensors").stat().st_size > 40 << 20


@pytest.mark.slow
def test_a_download_that_is_cut_goes_on_where_it_was(server: Server) -> None:
    proxy = Proxy(server.port)
    with tg.connect(server.address, new=True) as session:
        large(session, tensors=40)
    with tg.connect(f"grpc://127.0.0.1:{proxy.port}", new=True) as session:
        job = session.jobs["large"]
        seen: list[float] = []
        job.refresh()
        begun = proxy.connections
        for number, (_, array) in enumerate(job.checkpoint().read()):
            seen.append(float(array[-1, -1]))
            if number == 3:
                proxy.cut()
    proxy.close()

    assert proxy.connections > begun
    assert seen == [i + 1.0 for i in range(40)]
