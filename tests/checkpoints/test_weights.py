"""A checkpoint's weights as one file that others load, and their files as weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import telegrad as tg
from telegrad import nn
from telegrad.errors import DataCorrupt, NotFound
from telegrad.wire.arrays import array_from
from telegrad_server.checkpoints import MODEL, CheckpointStore, Folders, weights_file, weights_from

from tests.checkpoints.drafts import draft, named, tensors


def test_a_models_weights_are_a_file_that_others_and_the_model_load(tmp_path: Path) -> None:
    with tg.connect():
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        state = {name: np.array(array) for name, array in model.state_dict().items()}
        held = {MODEL + name: array for name, array in state.items()} | {"optimizer.0.weight": np.zeros((4, 3))}
        store = CheckpointStore(Folders(tmp_path), shard_bytes=40)
        store.write(draft(held), named(held))

        file = tmp_path / "weights.safetensors"
        file.write_bytes(b"".join(weights_file(*store.read("job-1", 1))))

        theirs = safetensors.numpy.load_file(file)
        assert theirs.keys() == state.keys()
        assert all(np.array_equal(theirs[name], state[name]) for name in state)
        assert file.read_bytes() == tg.safetensors.save(state, {"format": "pt", "step": "1"})
        assert tg.safetensors.load_model(model, file) == ([], [])


def test_a_file_of_others_is_weights_again() -> None:
    theirs = {"0.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3, np.int64)}

    found = weights_from(memoryview(safetensors.numpy.save(theirs)))

    back = {name: array_from(type, data) for name, type, data in found}
    assert {n: a.tolist() for n, a in back.items()} == {MODEL + n: a.tolist() for n, a in theirs.items()}


def test_what_is_no_file_or_has_no_weights_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore(Folders(tmp_path))
    store.write(draft(tensors(1)), named(tensors(1)))

    with pytest.raises(NotFound):
        list(weights_file(*store.read("job-1", 1), prefix="average."))
    with pytest.raises(DataCorrupt):
        weights_from(memoryview(b"no such file"))
