"""``telegrad checkpoints`` against a real server: lists, files that others load, and a disk that has changed a byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import telegrad as tg
from telegrad import safetensors
from telegrad.jobs import KeepBest

from tests.cli.conftest import Telegrad, shape, submitted
from tests.loops.training import BATCH, PER_EPOCH, made, points
from tests.server.test_service import start, stop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # a server in a process of its own


@pytest.fixture(scope="module")
def digits(jobs_server: str) -> str:
    """A server with the job "digits", which has trained a model and kept the best checkpoint."""
    with tg.connect(jobs_server, new=True) as session:
        session.submit(
            made().step, data=points(), epochs=3, batch_size=BATCH, keep_best=KeepBest("loss", "max"),
            keep_checkpoints=1, name="digits",
        ).wait(timeout_seconds=120)  # fmt: skip
    return jobs_server


def test_checkpoints_are_listed_with_the_best_one(telegrad: Telegrad, digits: str) -> None:
    found = shape(telegrad("checkpoints", "list", "digits", "--server", digits, "--json"))["checkpoints"]
    said = telegrad("checkpoints", "list", "digits", "--server", digits).stdout.splitlines()

    assert found == [
        {"step": 0, "epoch": 0.0, "is_best": False},
        {"step": PER_EPOCH, "epoch": 1.0, "is_best": True},
        {"step": 3 * PER_EPOCH, "epoch": 3.0, "is_best": False},
    ]
    assert said[1].split() == ["4", "after", "1", "epochs", "the", "best", "loss"]


def test_a_module_of_a_checkpoint_is_a_file_that_pytorch_loads(telegrad: Telegrad, digits: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    file = tmp_path / "weights.safetensors"
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(16, 3))

    said = shape(telegrad("checkpoints", "get", "digits", str(file), "--module", "model", "--server", digits, "--json"))
    model.load_state_dict(load_file(file))

    assert (said["step"], said["path"], said["bytes"]) == (3 * PER_EPOCH, str(file), file.stat().st_size)
    with tg.connect(digits, new=True) as session:
        state = session.jobs["digits"].state_dict()
    for name, tensor in model.state_dict().items():
        assert np.array_equal(tensor.numpy(), state[f"model.{name}"])


def test_the_best_one_and_one_by_its_step_are_the_same(telegrad: Telegrad, digits: str, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("best.safetensors", "step.safetensors")]

    best = telegrad("checkpoints", "get", "digits", str(files[0]), "--best", "--server", digits)
    step = telegrad("checkpoints", "get", "digits", str(files[1]), "--step", "4", "--server", digits)

    assert best.exit_code == step.exit_code == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    assert "optimizer.0.exp_avg" in safetensors.load_file(files[0])


def test_what_cannot_be_got_is_a_sentence_and_no_file(telegrad: Telegrad, digits: str, tmp_path: Path) -> None:
    file = str(tmp_path / "x.safetensors")

    module = telegrad("checkpoints", "get", "digits", file, "--module", "net", "--server", digits)
    step = telegrad("checkpoints", "get", "digits", file, "--step", "3", "--server", digits)
    both = telegrad("checkpoints", "get", "digits", file, "--step", "3", "--best", "--server", digits)
    nowhere = telegrad("checkpoints", "get", "digits", str(tmp_path / "no" / "x"), "--server", digits)

    assert (module.exit_code, step.exit_code, both.exit_code, nowhere.exit_code) == (6, 6, 2, 1)
    assert "it has model, optimizer" in module.stderr
    assert "cannot be written" in nowhere.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def hurt(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server with the job "done", and its folder."""
    running, address = start("--data-dir", str(tmp_path / "kept"))
    submitted(f"grpc://{address}", "done", steps=6, checkpoint_every=2)
    with tg.connect(f"grpc://{address}", new=True) as session:
        session.jobs["done"].wait(timeout_seconds=120)
    yield f"grpc://{address}", tmp_path / "kept"
    stop(running)


def test_a_damaged_checkpoint_is_found_by_the_server(telegrad: Telegrad, hurt: tuple[str, Path]) -> None:
    address, folder = hurt
    before = telegrad("checkpoints", "verify", "done", "--server", address)
    (shard,) = folder.glob("checkpoints/*/000000000006.*/shard-*")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)

    after = telegrad("checkpoints", "verify", "done", "--server", address, "--json")
    got = telegrad("checkpoints", "get", "done", str(folder / "x"), "--step", "6", "--server", address)

    assert before.exit_code == 0
    assert before.stdout.split() == ["0", "whole", "4", "whole", "6", "whole"]
    assert after.exit_code == got.exit_code == 9
    found = shape(after)
    assert (found["whole"], found["damaged"][0]["step"], found["damaged"][0]["file"]) == ([0, 4], 6, shard.name)
    assert not (folder / "x").exists()
