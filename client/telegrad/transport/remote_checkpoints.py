"""A checkpoint over gRPC, tensor by tensor: what was cut off is taken up again at the byte where it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import grpc
import numpy.typing as npt

from telegrad.errors import DataCorrupt, NotFound, ServerUnavailable, TelegradError
from telegrad.transport.channel import error_of
from telegrad.transport.patience import Patience, as_unavailable
from telegrad.wire.arrays import array_from
from telegrad.wire.job_messages import header_from_proto
from telegrad.wire.jobs import CheckpointHeader
from telegrad.wire.v1 import jobs_pb2 as pb


def read_checkpoint(
    method: Any,
    request: pb.ReadCheckpointRequest,
    *,
    metadata: Sequence[tuple[str, str | bytes]],
    patience: Patience,
) -> tuple[CheckpointHeader, Iterator[npt.NDArray[Any]]]:
    """What is in a checkpoint, and its tensors in that order, of which one is in memory at a time."""
    parts = _parts(method, request, metadata, patience)
    header = next(parts)
    assert isinstance(header, CheckpointHeader)
    return header, _tensors(header, parts)


def _tensors(header: CheckpointHeader, parts: Iterator[CheckpointHeader | bytes]) -> Iterator[npt.NDArray[Any]]:
    rest = memoryview(b"")
    for name, type in header.tensors:
        data, filled = bytearray(type.nbytes), 0
        while filled < len(data):
            if not rest:
                part = next(parts, None)
                if not isinstance(part, bytes):
                    raise DataCorrupt(f"the checkpoint of step {header.step} came without all of {name}; ask again")
                rest = memoryview(part)
            taken = min(len(rest), len(data) - filled)
            data[filled : filled + taken] = rest[:taken]
            filled, rest = filled + taken, rest[taken:]
        yield array_from(type, data)


def _parts(
    method: Any, request: pb.ReadCheckpointRequest, metadata: Sequence[tuple[str, str | bytes]], patience: Patience
) -> Iterator[CheckpointHeader | bytes]:
    """The header, and then the bytes as they come, through as many calls as it takes."""
    known: CheckpointHeader | None = None
    while True:
        call: Any = patience.begin(partial(method, request, metadata=metadata))
        try:
            for part in call:
                patience.heard()
                if part.HasField("chunk"):
                    request.offset_bytes += len(part.chunk)
                    yield part.chunk
                    continue
                header = header_from_proto(part.header)
                if known is None:
                    known, request.step = header, header.step
                    yield header
                elif header != known:
                    raise NotFound(
                        f"the checkpoint of step {known.step} is another one now, since the job went back; ask again"
                    )
            if known is not None:
                return
            failure: TelegradError = ServerUnavailable("the server has ended the stream")
        except grpc.RpcError as error:
            failure = as_unavailable(error_of(error))
        finally:
            call.cancel()
        patience.wait(failure)
