"""The Datasets service over a catalog: decode, ask beside the event loop, encode."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
from telegrad.errors import DataCorrupt, GraphError, IndexRange, NotFound, ResourceError, ServerUnavailable
from telegrad.wire import stream
from telegrad.wire.arrays import array_bytes
from telegrad.wire.dataset_messages import columns_from_proto, description_to_proto
from telegrad.wire.datasets import Description
from telegrad.wire.v1 import datasets_pb2 as pb

from telegrad_server.datasets import Catalog
from telegrad_server.datasets.part import Part
from telegrad_server.service.edge import TENANT, guarded, guarded_stream, next_of, reader

IDLE_SECONDS = 60.0
"""An upload on which nothing comes for so long is given up; what has come stays."""

BREAK_SECONDS = 0.5
READ_BYTES = 64 << 20
"""The most that one ReadDataset gives."""


class Datasets:
    """The handlers of the Datasets service; without a catalog all of them say that nothing is kept here."""

    def __init__(self, catalog: Catalog | None) -> None:
        self._found = catalog

    def handlers(self) -> grpc.GenericRpcHandler:
        """The handlers under their names."""

        def unary(method: Any, request: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(guarded(method), reader(request), _serialized)

        return grpc.method_handlers_generic_handler(
            "telegrad.wire.v1.Datasets",
            {
                "PutDataset": unary(self.put_dataset, pb.PutDatasetRequest),
                "ListDatasets": unary(self.list_datasets, pb.ListDatasetsRequest),
                "DescribeDataset": unary(self.describe_dataset, pb.DescribeDatasetRequest),
                "VerifyDataset": unary(self.verify_dataset, pb.VerifyDatasetRequest),
                "DeleteDataset": unary(self.delete_dataset, pb.DeleteDatasetRequest),
                "UploadColumn": grpc.stream_unary_rpc_method_handler(
                    guarded(self.upload_column), _read_upload, _serialized
                ),
                "ReadDataset": grpc.unary_stream_rpc_method_handler(
                    guarded_stream(self.read_dataset), reader(pb.ReadDatasetRequest), _as_it_is
                ),
            },
        )

    @property
    def _catalog(self) -> Catalog:
        if self._found is None:
            raise ResourceError(
                "this server keeps no datasets and no jobs: it was started without --data-dir, which its operator can"
                " give",
                reason="STORAGE_MISSING",
            )
        return self._found

    async def put_dataset(self, request: pb.PutDatasetRequest, context: Any) -> pb.PutDatasetResponse:
        """Lets a name stand for a dataset, or tells what is missing."""
        columns = columns_from_proto(request.columns)
        answer = await asyncio.to_thread(self._catalog.offer, TENANT.get(), request.name, columns)
        if isinstance(answer, Description):
            return pb.PutDatasetResponse(dataset=description_to_proto(answer))
        missing = [pb.MissingColumn(digest=m.digest, received_bytes=m.received_bytes) for m in answer]
        return pb.PutDatasetResponse(missing=missing)

    async def upload_column(self, requests: Any, context: Any) -> pb.UploadColumnResponse:
        """Takes one column, or the rest of it, in chunks."""
        catalog = self._catalog
        first = await next_of(context, seconds=IDLE_SECONDS)
        if first is None or isinstance(first, memoryview) or first.WhichOneof("part") != "header":
            raise GraphError("the first message of an upload must be its header", reason="MALFORMED_MESSAGE")
        header = first.header
        type = stream.type_from_proto(header.type)
        part = await asyncio.to_thread(catalog.receive, TENANT.get(), type, header.digest)
        try:
            if header.offset_bytes != part.received_bytes:
                message = f"{part.received_bytes} bytes are here, not {header.offset_bytes}; ask how many, and go on"
                raise ServerUnavailable(message)
            return await _receive(part, context)
        finally:
            part.close()

    async def list_datasets(self, request: pb.ListDatasetsRequest, context: Any) -> pb.ListDatasetsResponse:
        """All that the tenant can read."""
        found = await asyncio.to_thread(self._catalog.list, TENANT.get())
        return pb.ListDatasetsResponse(datasets=map(description_to_proto, found))

    async def describe_dataset(self, request: pb.DescribeDatasetRequest, context: Any) -> pb.DescribeDatasetResponse:
        """One of them."""
        found = await asyncio.to_thread(self._catalog.describe, TENANT.get(), request.name)
        return pb.DescribeDatasetResponse(dataset=description_to_proto(found))

    async def verify_dataset(self, request: pb.VerifyDatasetRequest, context: Any) -> pb.VerifyDatasetResponse:
        """Whether it is what it was."""
        await asyncio.to_thread(self._catalog.verify, TENANT.get(), request.name)
        return pb.VerifyDatasetResponse()

    async def delete_dataset(self, request: pb.DeleteDatasetRequest, context: Any) -> pb.DeleteDatasetResponse:
        """Forgets one."""
        await asyncio.to_thread(self._catalog.delete, TENANT.get(), request.name)
        return pb.DeleteDatasetResponse()

    async def read_dataset(self, request: pb.ReadDatasetRequest, context: Any) -> AsyncIterator[bytes]:
        """Gives rows in chunks."""
        columns = await asyncio.to_thread(self._rows, TENANT.get(), request)
        for data in columns:
            for chunk in stream.chunks(data):
                yield stream.encode_download_chunk(chunk)

    def _rows(self, tenant: str, request: pb.ReadDatasetRequest) -> list[memoryview]:
        dataset = self._catalog.open(tenant, request.name)
        if dataset.digest != request.digest:
            raise NotFound(f"dataset {request.name!r} is another one now: somebody has put it anew", name=request.name)
        if any(row >= dataset.rows for row in request.rows):
            raise IndexRange(f"row {max(request.rows)} was asked of a dataset that has {dataset.rows}")
        wanted = len(request.rows) * sum(type.nbytes for type in dataset.columns.values())
        if wanted > READ_BYTES:
            raise ResourceError(
                f"{len(request.rows)} rows take {wanted} bytes; at most {READ_BYTES} are given at once: ask for fewer",
                reason="MESSAGE_TOO_LARGE",
            )
        batch = dataset.batch(np.array(request.rows, np.int64))
        return [array_bytes(array) for array in batch.values()]


async def _receive(part: Part, context: Any) -> pb.UploadColumnResponse:
    while (chunk := await next_of(context, seconds=IDLE_SECONDS)) is not None:
        if not isinstance(chunk, memoryview):
            raise DataCorrupt("an upload holds something that is no chunk", reason="DATA_LENGTH")
        await asyncio.to_thread(part.write, chunk)
    if not part.is_whole:
        await asyncio.sleep(BREAK_SECONDS)  # a broken connection also looks like the end, and cancels this call
    await asyncio.to_thread(part.finish)
    return pb.UploadColumnResponse(received_bytes=part.received_bytes)


def _read_upload(data: bytes) -> Any:
    chunk = stream.decode_chunk(data, tag=2)
    return chunk if chunk is not None else reader(pb.UploadColumnRequest)(data)


def _serialized(message: Any) -> bytes:
    return message.SerializeToString()


def _as_it_is(data: bytes) -> bytes:
    return data
