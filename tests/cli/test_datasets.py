"""``telegrad datasets`` against a real server: what files become, and what is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import telegrad as tg
from telegrad import safetensors

from tests.cli.conftest import Telegrad, completed, shape
from tests.server.test_service import start, stop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # a server in a process of its own
X, Y = np.arange(24, dtype=np.float32).reshape(6, 4), np.arange(6)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server whose operator has registered "book"."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "book.txt").write_text("what an operator keeps " * 100)
    running, address = start("--data-dir", str(folder), "--dataset-roots", f"book={folder / 'book.txt'}?window=16")
    yield f"grpc://{address}"
    stop(running)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "labels.npy", Y)
    safetensors.save_file({"x": X, "y": Y}, tmp_path / "t.safetensors")
    np.savez_compressed(tmp_path / "both.npz", x=X, y=Y)
    return tmp_path


def rows(address: str, name: str) -> dict[str, list[object]]:
    with tg.connect(address, new=True) as session:
        return {column: array.tolist() for column, array in session.datasets[name][:].items()}


def test_files_become_columns(telegrad: Telegrad, store: str, files: Path) -> None:
    one = shape(telegrad("datasets", "put", "one", str(files / "both.npz"), "--server", store, "--json"))
    three = shape(telegrad("datasets", "put", "three", str(files / "t.safetensors"), "--server", store, "--json"))
    two = telegrad(
        "datasets", "put", "two", str(files / "x.npy"), f"y={files / 'labels.npy'}", "--server", store, "--json"
    )

    assert rows(store, "one") == rows(store, "two") == {"x": X.tolist(), "y": Y.tolist()}
    assert one["digest"] == shape(two)["digest"]
    assert {name: column["shape"] for name, column in three["columns"].items()} == {"x": [4], "y": []}
    assert one["columns"] == {"x": {"dtype": "float32", "shape": [4]}, "y": {"dtype": "int64", "shape": []}}
    assert (one["rows"], one["bytes"], one["source"]) == (6, X.nbytes + Y.nbytes, None)


def test_what_is_put_and_what_is_registered_is_listed(telegrad: Telegrad, store: str, files: Path) -> None:
    telegrad("datasets", "put", "listed", str(files / "x.npy"), "--server", store)

    found = {d["name"]: d for d in shape(telegrad("datasets", "list", "--server", store, "--json"))["datasets"]}
    said = telegrad("datasets", "list", "--server", store).stdout

    assert found["book"]["source"] == "book.txt"
    assert found["listed"]["rows"] == 6
    assert "x float32[4]" in said
    assert "listed: 6 rows" in telegrad("datasets", "show", "listed", "--server", store).stdout
    assert completed(f"datasets show --server {store}", "li") == ["listed"]


def test_a_dataset_is_verified_and_deleted(telegrad: Telegrad, store: str, files: Path) -> None:
    telegrad("datasets", "put", "gone", str(files / "x.npy"), "--server", store)

    verified = telegrad("datasets", "verify", "gone", "--server", store)
    deleted = telegrad("datasets", "delete", "gone", "--server", store)
    again = telegrad("datasets", "delete", "gone", "--server", store)
    registered = telegrad("datasets", "delete", "book", "--server", store)

    assert (verified.exit_code, deleted.exit_code, again.exit_code, registered.exit_code) == (0, 0, 6, 4)


def test_files_that_are_no_columns_are_a_sentence(telegrad: Telegrad, store: str, files: Path) -> None:
    np.save(files / "objects.npy", np.array([{}]), allow_pickle=True)
    (files / "wrong.npz").write_bytes(b"no archive")
    np.save(files / "short.npy", Y[:3])
    given = {
        "x.csv": 2, "nothing.npy": 2, "objects.npy": 1, "wrong.npz": 1,
    }  # fmt: skip

    found = {name: telegrad("datasets", "put", "bad", str(files / name), "--server", store) for name in given}
    twice = telegrad("datasets", "put", "bad", str(files / "both.npz"), str(files / "x.npy"), "--server", store)
    unequal = telegrad("datasets", "put", "bad", str(files / "x.npy"), str(files / "short.npy"), "--server", store)

    assert {name: said.exit_code for name, said in found.items()} == given
    assert twice.exit_code == 2 and "twice" in twice.stderr
    assert unequal.exit_code == 1 and "different numbers of rows" in unequal.stderr
    assert telegrad("datasets", "show", "bad", "--server", store).exit_code == 6
