"""Datasets over gRPC: on a channel of their own, so that bulk never delays a session, and without a session's ticket.

Every call may be sent again, since it names contents and not steps; so each is, while the server cannot be reached.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from telegrad.errors import NotFound
from telegrad.ir.types import Type
from telegrad.transport.channel import error_of
from telegrad.transport.patience import Patience, as_unavailable
from telegrad.wire import stream
from telegrad.wire.arrays import array_from
from telegrad.wire.dataset_messages import column_to_proto, description_from_proto
from telegrad.wire.datasets import Column, Description, Missing
from telegrad.wire.stream import type_to_proto
from telegrad.wire.v1 import datasets_pb2 as pb
from telegrad.wire.v1 import datasets_pb2_grpc as services

READ_BYTES = 16 << 20
"""So much is read by one call; the server gives up to 64 MiB."""

_SERVICE = "/telegrad.wire.v1.Datasets/"


class RemoteDatasets:
    """The datasets of a token's tenant. ``patience_seconds``: for so long a server that is not there is waited for."""

    def __init__(
        self,
        channel: grpc.Channel,
        metadata: Sequence[tuple[str, str | bytes]],
        *,
        timeout_seconds: float,
        patience_seconds: float,
    ) -> None:
        self._channel = channel
        self._metadata = list(metadata)
        self._timeout = timeout_seconds
        self._patience = patience_seconds
        self._closing = threading.Event()
        self._stub: Any = services.DatasetsStub(channel)

    def offer(self, name: str, columns: Sequence[Column]) -> Description | tuple[Missing, ...]:
        request = pb.PutDatasetRequest(name=name, columns=map(column_to_proto, columns))
        answer = self._call(self._stub.PutDataset, request)
        if answer.HasField("dataset"):
            return description_from_proto(answer.dataset)
        return tuple(Missing(m.digest, m.received_bytes) for m in answer.missing)

    def upload(self, column: Column, data: memoryview, offset: int) -> None:
        call: Any = self._channel.stream_unary(
            f"{_SERVICE}UploadColumn",
            request_serializer=_serialized,
            response_deserializer=pb.UploadColumnResponse.FromString,
        )
        header = pb.ColumnHeader(type=type_to_proto(column.type), digest=column.digest, offset_bytes=offset)

        def parts() -> Iterator[Any]:
            yield pb.UploadColumnRequest(header=header)
            for chunk in stream.chunks(data[offset:]):
                yield stream.encode_upload_chunk(chunk)

        future = call.future(parts(), metadata=self._metadata)
        try:
            future.result()
        except grpc.RpcError as error:
            raise as_unavailable(error_of(error)) from None
        finally:
            future.cancel()  # for Ctrl-C

    def list(self) -> list[Description]:
        answer = self._call(self._stub.ListDatasets, pb.ListDatasetsRequest())
        return [description_from_proto(found) for found in answer.datasets]

    def describe(self, name: str) -> Description:
        return description_from_proto(
            self._call(self._stub.DescribeDataset, pb.DescribeDatasetRequest(name=name)).dataset
        )

    def read(self, dataset: Description, rows: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        row_bytes = sum(column.row.nbytes for column in dataset.columns)
        step = max(1, READ_BYTES // max(1, row_bytes))
        found = [self._read(dataset, rows[at : at + step]) for at in range(0, max(1, len(rows)), step)]
        return {column.name: np.concatenate([part[column.name] for part in found]) for column in dataset.columns}

    def _read(self, dataset: Description, rows: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        request = pb.ReadDatasetRequest(name=dataset.name, digest=dataset.digest, rows=rows.tolist())
        call: Any = self._channel.unary_stream(
            f"{_SERVICE}ReadDataset",
            request_serializer=pb.ReadDatasetRequest.SerializeToString,
            response_deserializer=lambda data: stream.decode_chunk(data, tag=1),
        )

        def chunks(*, timeout: float, metadata: Any) -> bytearray:
            whole = bytearray()
            for chunk in call(request, metadata=metadata):
                whole += chunk
            return whole

        data = self._retried(chunks)
        arrays: dict[str, npt.NDArray[Any]] = {}
        for column in dataset.columns:
            type = Type((len(rows), *column.row.shape), column.row.dtype)
            arrays[column.name] = array_from(type, data[: type.nbytes])
            del data[: type.nbytes]
        return arrays

    def verify(self, name: str) -> None:
        self._retried(
            lambda timeout, metadata: self._stub.VerifyDataset(
                pb.VerifyDatasetRequest(name=name), metadata=metadata  # takes as long as reading all of it
            )
        )  # fmt: skip

    def delete(self, name: str) -> None:
        tries: list[None] = []

        def call(*, timeout: float, metadata: Any) -> None:
            tries.append(None)
            self._stub.DeleteDataset(pb.DeleteDatasetRequest(name=name), timeout=timeout, metadata=metadata)

        try:
            self._retried(call)
        except NotFound:
            if len(tries) == 1:
                raise  # else an earlier try has deleted it, and its answer was lost

    def close(self) -> None:
        """Let go of the server."""
        self._closing.set()
        self._channel.close()

    def _call(self, method: Any, request: Any) -> Any:
        return self._retried(lambda timeout, metadata: method(request, timeout=timeout, metadata=metadata))

    def _retried(self, call: Callable[..., Any]) -> Any:
        """What the call returns, tried again while the server cannot be reached."""
        patience = Patience(self._patience, self._closing)
        while True:
            try:
                return call(timeout=self._timeout, metadata=self._metadata)
            except grpc.RpcError as error:
                failure = as_unavailable(error_of(error))
            patience.wait(failure)


def _serialized(part: Any) -> bytes:
    """A part of an upload: a chunk that is serialised already, or the header."""
    return part if isinstance(part, bytes) else part.SerializeToString()
