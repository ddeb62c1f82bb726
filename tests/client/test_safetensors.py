"""Files of tensors: what they hold, that others read them and we theirs, and that no file is taken on trust."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import telegrad as tg
from hypothesis import given, settings
from hypothesis import strategies as st
from telegrad import nn, safetensors
from telegrad.errors import DataCorrupt, DTypeError, GraphError

RNG = np.random.default_rng(0)
ARRAYS: dict[str, Any] = {
    "weight": RNG.normal(size=(3, 4)).astype(np.float32),
    "double": RNG.normal(size=5),
    "brain": RNG.normal(size=(2, 3)).astype(ml_dtypes.bfloat16),
    "half": RNG.normal(size=3).astype(np.float16),
    "eight": RNG.normal(size=3).astype(ml_dtypes.float8_e4m3fn),
    "scalar": np.array(7, np.int64),
    "mask": np.array([True, False, True]),
    "empty": np.zeros((0, 4), np.float32),
    "größe": np.arange(5, dtype=np.uint8),
    **{f"int {d}": np.arange(3).astype(d) for d in ("int8", "int16", "uint16", "int32", "uint32", "uint64")},
}


@pytest.fixture
def session() -> Any:
    with tg.connect(backend="numpy", new=True) as session:
        yield session


def _equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert sorted(found) == sorted(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def _file(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    safetensors.save_file(ARRAYS, tmp_path / "a.safetensors", {"format": "np"})

    _equal(safetensors.load_file(tmp_path / "a.safetensors"), ARRAYS)
    with safetensors.safe_open(tmp_path / "a.safetensors") as file:
        assert file.keys() == sorted(ARRAYS)
        assert file.metadata() == {"format": "np"}
        np.testing.assert_array_equal(file.get_tensor("double"), ARRAYS["double"])
    _equal(safetensors.load(safetensors.save(ARRAYS)), ARRAYS)


def test_tensors_are_saved_as_their_arrays(session: tg.Session, tmp_path: Path) -> None:
    tensors = {"a": tg.asarray([1.0, 2.0]) * 2, "b": tg.ones((2,), dtype=tg.bfloat16)}

    safetensors.save_file(tensors, tmp_path / "a.safetensors")

    _equal(safetensors.load_file(tmp_path / "a.safetensors"), {name: x.numpy() for name, x in tensors.items()})


def test_any_layout_and_byte_order_is_saved_in_the_formats() -> None:
    x = np.arange(6.0).reshape(2, 3)

    found = safetensors.load(safetensors.save({"t": x.T, "big": x.astype(">f8"), "steps": x[:, ::2], "list": [1, 2]}))

    _equal(found, {"t": x.T, "big": x, "steps": x[:, ::2], "list": np.array([1, 2])})


def test_a_file_is_mapped_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.safetensors"
    size = 1 << 36  # bytes that the disk need not have
    header = _file({"a": _entry("U8", [size], [0, size])})
    path.write_bytes(header)
    os.truncate(path, len(header) + size)

    found = safetensors.load_file(path)["a"]

    assert found.shape == (size,)
    assert found[size - 1] == 0
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_arrays_live_on_after_the_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.save_file({"a": np.full(10_000, 1.0)}, path)
    before = safetensors.load_file(path)["a"]

    safetensors.save_file({"a": np.full(10_000, 2.0)}, path)

    assert before.sum() == 10_000
    assert safetensors.load_file(path)["a"].sum() == 20_000


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_file_that_was_there(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.save_file({"a": np.ones(3)}, path)

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        safetensors.save_file({"a": np.zeros(3)}, path)

    _equal(safetensors.load_file(path), {"a": np.ones(3)})
    assert os.listdir(tmp_path) == ["a.safetensors"]


CORRUPT: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "has 0 bytes"),
    "seven bytes": (b"\0" * 7, "has 7 bytes"),
    "a header beyond the file": ((100).to_bytes(8, "little") + b"{}", "was cut off"),
    "a header over the limit": ((100_000_001).to_bytes(8, "little") + b"{}", "over 100000000"),
    "a length of 2**64 - 1": (b"\xff" * 8 + b"{}", "over 100000000"),
    "a list": (_file([]), "does not begin with {"),
    "a space in front": (_file(b" {}"), "does not begin with {"),
    "no JSON": (_file(b"{a}"), "no JSON"),
    "no UTF-8": (_file(b'{"\xff": 1}'), "no JSON"),
    "deep nesting": (_file(b'{"a":' + b"[" * 100_000), "no JSON"),
    "a NaN": (_file(b'{"a": NaN}'), "no JSON"),
    "a number of many digits": (_file(b'{"a": ' + b"9" * 10_000 + b"}"), "no JSON"),
    "a name twice": (_file(b'{"a": {}, "a": {}}'), "'a' stands there twice"),
    "a field twice": (_file(b'{"a": {"dtype": "F32", "dtype": "F64"}}'), "'dtype' stands there twice"),
    "metadata of numbers": (_file({"__metadata__": {"a": 1}}), "strings to strings"),
    "a list of metadata": (_file({"__metadata__": []}), "strings to strings"),
    "no description": (_file({"a": None}), "not described"),
    "a field too many": (_file({"a": _entry() | {"more": 1}}, b"\0" * 8), "not described"),
    "a field too few": (_file({"a": {"dtype": "F32", "shape": [2]}}, b"\0" * 8), "not described"),
    "an unknown dtype": (_file({"a": _entry("F31")}, b"\0" * 8), "unknown dtype 'F31'"),
    "a dtype that is no word": (_file({"a": _entry(["F32"])}, b"\0" * 8), "unknown dtype"),
    "a shape of floats": (_file({"a": _entry(shape=[2.0])}, b"\0" * 8), "natural numbers"),
    "a shape of booleans": (_file({"a": _entry("U8", [True], [0, 1])}, b"\0"), "natural numbers"),
    "a negative size": (_file({"a": _entry(shape=[-1, -2])}, b"\0" * 8), "natural numbers"),
    "three offsets": (_file({"a": _entry(offsets=[0, 4, 8])}, b"\0" * 8), "natural numbers"),
    "a shape beyond all memory": (_file({"a": _entry(shape=[2**62, 2**62], offsets=[0, 8])}, b"\0" * 8), "no array"),
    "the same, but empty": (_file({"a": _entry(shape=[0, 2**62, 2**62], offsets=[0, 0])}), "no array"),
    "more axes than arrays have": (_file({"a": _entry(shape=[1] * 65, offsets=[0, 4])}, b"\0" * 4), "natural numbers"),
    "a size that is not the shape's": (_file({"a": _entry(offsets=[0, 7])}, b"\0" * 7), "has 7 bytes"),
    "an end before the beginning": (_file({"a": _entry(offsets=[8, 0])}, b"\0" * 8), "has -8 bytes"),
    "data that are cut off": (_file({"a": _entry()}, b"\0" * 7), "take 8 bytes, and 7 are there"),
    "data left over": (_file({"a": _entry()}, b"\0" * 9), "take 8 bytes, and 9 are there"),
    "a hole in front": (_file({"a": _entry(offsets=[4, 12])}, b"\0" * 12), "leaves a hole"),
    "a hole between": (_file({"a": _entry(), "b": _entry(offsets=[9, 17])}, b"\0" * 17), "leaves a hole"),
    "bytes that two share": (_file({"a": _entry(), "b": _entry(offsets=[4, 12])}, b"\0" * 12), "shares bytes"),
    "two in one place": (_file({"a": _entry(), "b": _entry()}, b"\0" * 8), "shares bytes"),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_a_corrupt_file_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    data, words = CORRUPT[name]
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)

    with pytest.raises(DataCorrupt, match=words) as error:
        safetensors.load_file(path)
    assert str(path) in str(error.value)
    with pytest.raises(DataCorrupt, match=words):
        safetensors.load(data)


SMALL = safetensors.save({"a": np.arange(3, dtype=np.float32), "b": np.arange(2, dtype=np.uint8)}, {"k": "v"})


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), max_size=4), st.integers(0, len(SMALL)))
def test_a_damaged_file_is_loaded_or_refused_and_nothing_else(changes: list[tuple[int, int]], length: int) -> None:
    data = bytearray(SMALL)
    for place, value in changes:
        data[place] = value
    try:
        found = safetensors.load(bytes(data[: length or None]))
    except DataCorrupt:
        return
    assert sum(x.nbytes for x in found.values()) <= len(SMALL)


def test_unaligned_data_are_copied_into_place() -> None:
    header = {"a": _entry("U8", [1], [0, 1]), "b": _entry("F32", [2], [1, 9])}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    found = safetensors.load(_file(text, b"\7" + np.array([1.5, 2.5], np.float32).tobytes()))

    _equal(found, {"a": np.array([7], np.uint8), "b": np.array([1.5, 2.5], np.float32)})
    assert found["b"].flags.aligned


def test_what_cannot_be_saved_is_refused_before_a_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for tensors, metadata, words in (
        ({"__metadata__": np.ones(3)}, None, "rename it"),
        ({"a": np.ones(3, complex)}, None, "elements of complex128"),
        ({"a": np.array(["x"])}, None, "the format knows"),
        ({"a": np.ones(3)}, {"step": 3}, "strings to strings"),
    ):
        with pytest.raises((GraphError, DTypeError), match=words):
            safetensors.save_file(tensors, path, metadata)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []
    with pytest.raises(GraphError, match="NumPy's"):
        safetensors.safe_open(path, "pt")


class Tied(nn.Module):
    """A table that is also the weight of the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.table.weight
        self.again = self.table


def test_a_tied_weight_is_saved_once_and_loaded_by_either_name(session: tg.Session, tmp_path: Path) -> None:
    path, model, other = tmp_path / "a.safetensors", Tied(), Tied()
    safetensors.save_model(model, path, {"step": "3"})

    assert "head.weight" not in safetensors.load_file(path)
    notes = safetensors.safe_open(path).metadata()
    assert notes["step"] == "3"
    assert notes["head.weight"] == "table.weight"
    assert notes["again.weight"] == "table.weight"
    assert safetensors.load_model(other, path) == ([], [])
    _equal(other.state_dict(), model.state_dict())

    renamed = dict(safetensors.load_file(path)) | {"head.weight": np.zeros((5, 3), np.float32)}
    del renamed["table.weight"]  # the other name alone
    safetensors.save_file(renamed, path)
    safetensors.load_model(other, path)
    assert other.table.weight.numpy().sum() == 0


def test_a_file_that_does_not_fit_the_model_says_how(session: tg.Session, tmp_path: Path) -> None:
    path, model = tmp_path / "a.safetensors", nn.Linear(3, 4)
    safetensors.save_file({"weight": np.ones((4, 3), np.float32), "scale": np.ones(3)}, path)

    with pytest.raises(GraphError, match=r"lacks \['bias'\], and the model has no \['scale'\]"):
        safetensors.load_model(model, path)
    assert safetensors.load_model(model, path, strict=False) == (["bias"], ["scale"])
    assert model.weight.numpy().sum() == 12


# ---- the package safetensors, and PyTorch


def test_the_package_writes_the_same_bytes_and_reads_ours(tmp_path: Path) -> None:
    theirs = pytest.importorskip("safetensors.numpy")

    for metadata in (None, {"a": "b"}):
        assert safetensors.save(ARRAYS, metadata) == theirs.save(ARRAYS, metadata)
    known = {name: x for name, x in ARRAYS.items() if name != "eight"}  # whose NumPy reader knows no eight-bit floats
    safetensors.save_file(known, tmp_path / "ours.safetensors")
    _equal(theirs.load_file(tmp_path / "ours.safetensors"), known)
    theirs.save_file(ARRAYS, tmp_path / "theirs.safetensors")
    _equal(safetensors.load_file(tmp_path / "theirs.safetensors"), ARRAYS)


@pytest.mark.parametrize("name", CORRUPT)
def test_what_we_refuse_the_package_refuses_too(name: str) -> None:
    theirs = pytest.importorskip("safetensors")
    if name in ("a space in front", "a field too many", "more axes than arrays have", "the same, but empty"):
        pytest.skip("the package does not look")

    with pytest.raises(theirs.SafetensorError):
        theirs.deserialize(CORRUPT[name][0])


@pytest.mark.torch
def test_pytorch_and_telegrad_load_each_others_models(session: tg.Session, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    theirs_file = pytest.importorskip("safetensors.torch")
    parts = OrderedDict(conv=("Conv2d", (3, 4, 3)), norm=("BatchNorm2d", (4,)), act=("ReLU", ()))
    theirs = torch.nn.Sequential(OrderedDict((k, getattr(torch.nn, n)(*a)) for k, (n, a) in parts.items()))
    ours = nn.Sequential(OrderedDict((k, getattr(nn, n)(*a)) for k, (n, a) in parts.items()))
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 6)).astype(np.float32)
    theirs(torch.tensor(x))  # moves the running statistics

    theirs_file.save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    ours.load_state_dict(safetensors.load_file(tmp_path / "theirs.safetensors"))
    _equal(dict(ours.state_dict()), {k: v.numpy() for k, v in theirs.state_dict().items()})

    ours(tg.asarray(x))
    safetensors.save_file(ours.state_dict(), tmp_path / "ours.safetensors")
    theirs.load_state_dict(theirs_file.load_file(tmp_path / "ours.safetensors"))
    ours.eval()
    theirs.eval()
    found, wanted = ours(tg.asarray(x)).numpy(), theirs(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.torch
def test_pytorch_and_telegrad_tie_weights_alike(session: tg.Session, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    theirs_file = pytest.importorskip("safetensors.torch")
    theirs, ours = torch.nn.Module(), Tied()
    theirs.table, theirs.norm = torch.nn.Embedding(5, 3), torch.nn.BatchNorm1d(3)
    theirs.head = torch.nn.Linear(3, 5, bias=False)
    theirs.head.weight = theirs.table.weight
    theirs.again = theirs.table
    assert list(ours.state_dict()) == list(theirs.state_dict())

    theirs_file.save_model(theirs, tmp_path / "theirs.safetensors")
    assert safetensors.load_model(ours, tmp_path / "theirs.safetensors") == ([], [])
    _equal(dict(ours.state_dict()), {k: v.numpy() for k, v in theirs.state_dict().items()})
    safetensors.save_model(ours, tmp_path / "ours.safetensors")
    theirs_file.load_model(theirs, tmp_path / "ours.safetensors")
