"""Commands, events, errors and chunks to protobuf and back."""

from __future__ import annotations

import numpy as np
import pytest
from telegrad import errors
from telegrad.errors import DataCorrupt, DTypeError, GraphError, ServerBug, TelegradError
from telegrad.ir import Type
from telegrad.ir import types as t
from telegrad.wire import messages as m
from telegrad.wire import stream
from telegrad.wire.arrays import array_bytes, array_from, from_numpy_dtype, numpy_dtype, type_of
from telegrad.wire.status import REASONS, to_exception, to_record
from telegrad.wire.v1 import sessions_pb2 as pb
from telegrad.wire.v1 import tensors_pb2 as tensors

TYPE = Type((2, 0, 3), t.bfloat16)
RECORD = m.ErrorRecord("SHAPE_INVALID", "no", 3, b"f" * 32, 0, True, {"op": "add"})

COMMANDS: list[m.Command] = [
    m.Run(b"x" * 32, (0, 5, 0), (7, 0), b"abcd", 2, (2, 3)),
    m.Put(4, TYPE, b"", 1),
    m.Put(4, TYPE, b"", 1, 4096),
    m.Expect(2**40, TYPE, 9),
    m.Alias(3, 2, 1),
    m.Release((1, 2, 3)),
    m.Fetch(9),
    m.OpenScope(4, 1),
    m.CloseScope(4, (8, 9)),
    m.Resume(17),
    m.JoinGroup(
        "g", 3, b"k" * 32, 1, (m.GroupMember("w1", "h:1", "m"), m.GroupMember("w2", "h:2", "m", "22809 gpu-2")), 1.5
    ),
    m.Run(b"f" * 32, (1, 0), (2,), b"x", group="g", step=7),
    m.Offer(2**40, "3/1"),
    m.Pull(4, TYPE, "w1", "h:1", b"ticket", 2),
    m.Explain(b"f" * 32, is_recorded=True),
    m.Profile(1000),
]
EVENTS: list[m.Event] = [
    m.Acknowledged(5),
    m.Fetched(6, TYPE, b""),
    m.Fetched(6, TYPE, None, "ticket"),
    m.Failed(7, RECORD),
    m.FunctionNeeded(b"y" * 32),
    m.Ended(RECORD),
    m.Explained(3, 10, 20, 64, 128, 2, (m.ExplainedStep(("add", "exp"), (0, -1), True, "printed", 5, 6, 7, 1),), 0),
    m.Profiled(4, 10**18, 10**18 + 5, (m.ProfiledSpan("step", "add", 3, 10**18 + 1, 2, 0, True),), 9),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: type(c).__name__)
def test_commands_survive_the_wire(command: m.Command) -> None:
    request = stream.command_to_proto(12, command, heard_event=3)
    again = pb.AttachSessionRequest.FromString(request.SerializeToString())

    assert stream.command_from_proto(again) == command
    assert (again.sequence, again.heard_event) == (12, 3)


def test_every_command_has_a_row() -> None:
    assert {type(c) for c in COMMANDS} == set(m.Command.__args__)
    assert {type(e) for e in EVENTS} == set(m.Event.__args__)


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_events_survive_the_wire(event: m.Event) -> None:
    response = pb.AttachSessionResponse.FromString(stream.event_to_proto(9, event).SerializeToString())

    assert stream.event_from_proto(response) == event
    assert response.event == 9


def test_an_empty_stream_message_is_refused() -> None:
    with pytest.raises(GraphError) as caught:
        stream.command_from_proto(pb.AttachSessionRequest(sequence=1))

    assert caught.value.reason == "MALFORMED_MESSAGE"


def test_an_unknown_event_is_passed_over() -> None:
    assert stream.event_from_proto(pb.AttachSessionResponse()) is None


@pytest.mark.parametrize(
    "message",
    [
        tensors.TensorType(),
        tensors.TensorType(element_type=99),
        tensors.TensorType(element_type=12, shape=[-1]),
        tensors.TensorType(element_type=12, shape=[2**60 + 2, 2**4]),
        tensors.TensorType(element_type=12, shape=[4, 2**60 + 2]),
        tensors.TensorType(element_type=12, shape=[1] * 33),
    ],
)
def test_types_that_cannot_be_are_refused(message: tensors.TensorType) -> None:
    with pytest.raises(GraphError):
        stream.type_from_proto(message)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000])
def test_chunks_are_the_same_bytes_as_the_messages(size: int) -> None:
    chunk = memoryview(bytes(range(256)) * 100)[:size]

    up, down = stream.encode_upload_chunk(chunk), stream.encode_download_chunk(chunk)

    assert tensors.UploadTensorRequest.FromString(up).chunk == bytes(chunk)
    assert tensors.DownloadTensorResponse.FromString(down).chunk == bytes(chunk)
    assert stream.decode_chunk(up, tag=2) == chunk
    assert stream.decode_chunk(down, tag=1) == chunk
    assert stream.decode_chunk(up, tag=1) is None
    assert stream.decode_chunk(up + b"\0", tag=2) is None


def test_slices_of_an_array_are_no_copies() -> None:
    array = np.arange(1 << 20, dtype=np.float32)

    pieces = list(stream.chunks(array_bytes(array)))

    assert [len(p) for p in pieces] == [stream.CHUNK_BYTES] * 4
    assert np.shares_memory(np.frombuffer(pieces[1], np.uint8), array)


@pytest.mark.parametrize("dtype", t.DTYPES, ids=str)
def test_every_dtype_keeps_its_bits(dtype: t.DType) -> None:
    raw = np.random.default_rng(0).integers(0, 2, 24 * dtype.itemsize, dtype=np.uint8)
    array = raw.view(numpy_dtype(dtype)).reshape(2, 3, 4)[:, ::-1]

    again = array_from(type_of(array), bytes(array_bytes(array)))

    assert from_numpy_dtype(array.dtype) is dtype
    assert again.tobytes() == np.ascontiguousarray(array).tobytes()


def test_big_endian_arrays_arrive_in_our_order() -> None:
    array = np.arange(4, dtype=">f4")

    assert from_numpy_dtype(array.dtype) is t.float32


@pytest.mark.parametrize("dtype", ["complex64", "object", "U5", "M8[s]", "f4,i4"])
def test_other_numpy_dtypes_are_refused(dtype: str) -> None:
    with pytest.raises(DTypeError, match="not offered"):
        from_numpy_dtype(np.dtype(dtype))


@pytest.mark.parametrize("extra", [-1, 1, 8])
def test_a_wrong_number_of_bytes_is_refused(extra: int) -> None:
    with pytest.raises(DataCorrupt, match="takes 8 bytes") as caught:
        array_from(Type((2,), t.float32), bytes(8 + extra))

    assert caught.value.reason == "DATA_LENGTH"


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_every_reason_becomes_its_exception(reason: str) -> None:
    error = to_exception(m.ErrorRecord(reason, "what happened"))

    assert type(error) is REASONS[reason].cls
    assert error.reason == reason
    with pytest.raises(REASONS[reason].cls, match="what happened"):
        raise error


def test_only_an_unknown_reason_is_a_server_bug() -> None:
    assert type(to_exception(m.ErrorRecord("FLUX_CAPACITOR", "?"))) is ServerBug


def test_every_class_is_reached_by_a_reason() -> None:
    classes = {c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, TelegradError)}

    assert classes - {row.cls for row in REASONS.values()} == {TelegradError}
    assert all(c.default_reason in REASONS for c in classes)


def test_an_error_keeps_its_node_and_values() -> None:
    error = errors.ShapeError("no", node=4, is_backward=True, op="add")

    record = to_record(error, sequence=2, function=b"f")

    assert record == m.ErrorRecord("SHAPE_INVALID", "no", 2, b"f", 4, True, {"op": "add"})
    assert stream.record_from_proto(stream.record_to_proto(record)) == record
