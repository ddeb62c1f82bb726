"""The Loops service of a gateway: workers run its jobs' loops, and read and write what it keeps for them."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import fields
from typing import Any

import grpc
import numpy as np
from telegrad.errors import AccessError, DataCorrupt, GraphError, JobError, ServerUnavailable
from telegrad.ir.types import Type
from telegrad.wire import stream
from telegrad.wire.arrays import array_bytes
from telegrad.wire.datasets import column_hash
from telegrad.wire.v1 import loops_pb2 as pb

from telegrad_server.checkpoints import Draft, write_order
from telegrad_server.checkpoints import manifest as manifests
from telegrad_server.cluster.members import Members
from telegrad_server.cluster.tickets import Key
from telegrad_server.datasets import Dataset
from telegrad_server.datasets.blocks import Blocks
from telegrad_server.foreman import Foreman
from telegrad_server.jobs.job import Job
from telegrad_server.service.away import Away
from telegrad_server.service.edge import guarded, guarded_stream, next_of, reader
from telegrad_server.service.loop_messages import damage_to_proto, event_from_proto

IDLE_SECONDS = 60.0
"""A stream on which nothing comes for so long is given up."""

BLOCK_BYTES = 8 << 20
"""So many bytes of rows are read of a dataset at a time."""


class Loops:
    """The handlers of the Loops service."""

    def __init__(self, foreman: Foreman, away: Away, members: Members, key: Key) -> None:
        self._foreman, self._away, self._members = foreman, away, members
        self._password = f"Bearer {key.password}"

    def handlers(self) -> grpc.GenericRpcHandler:
        """The handlers under their names."""

        def unary(method: Any, request: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(guarded(self._inside(method)), reader(request), _serialized)

        def streaming(method: Any, request: Any) -> Any:
            async def admitted(message: Any, context: Any) -> AsyncIterator[Any]:
                self._admit(context)
                async for part in method(message):
                    yield part

            return grpc.unary_stream_rpc_method_handler(guarded_stream(admitted), reader(request), _serialized)

        return grpc.method_handlers_generic_handler(
            "telegrad.wire.v1.Loops",
            {
                "WorkShift": grpc.stream_stream_rpc_method_handler(
                    guarded(self.work_shift), reader(pb.WorkShiftRequest), _serialized
                ),
                "TellLoopEvent": grpc.stream_unary_rpc_method_handler(
                    guarded(self.tell), reader(pb.TellLoopEventRequest), _serialized
                ),
                "RestoreCheckpoint": streaming(self.restore, pb.RestoreCheckpointRequest),
                "StoreCheckpoint": grpc.stream_unary_rpc_method_handler(guarded(self.store), _read_store, _serialized),
                "KeepCheckpoints": unary(self.keep, pb.KeepCheckpointsRequest),
                "FetchDataset": streaming(self.fetch, pb.FetchDatasetRequest),
            },
        )

    def _inside(self, method: Any) -> Any:
        async def admitted(message: Any, context: Any) -> Any:
            self._admit(context)
            return await method(message)

        return admitted

    def _admit(self, context: Any) -> None:
        for name, value in context.invocation_metadata() or ():
            if name == "authorization" and hmac.compare_digest(value, self._password):
                return
        raise AccessError("only members of the cluster may call this", reason="ACCESS_DENIED")

    def _check_member(self, worker: str, incarnation: str) -> None:
        """JobError (JOB_FENCED) for a process that was given up; ServerUnavailable for one that may yet join."""
        if self._members.find(worker, incarnation) is not None:
            return
        if (why := self._members.why_gone(incarnation)) is not None:
            raise JobError(f"worker {worker} was given up: {why}", reason="JOB_FENCED")
        raise ServerUnavailable(f"worker {worker} has not joined this gateway yet")

    async def _job(self, who: pb.LoopAssignment) -> Job:
        return await asyncio.to_thread(self._holding, who)

    def _holding(self, who: pb.LoopAssignment) -> Job:
        """The job of an assignment. JobError (JOB_FENCED) if that is over."""
        self._check_member(who.worker, who.incarnation)
        for job in self._foreman.placed():
            if (job.id, job.assignment, job.worker) == (who.job, who.number, who.worker):
                return job
        raise JobError(f"assignment {who.number} of the job {who.job[:64]} is over", reason="JOB_FENCED")

    # ---- shifts

    async def work_shift(self, requests: Any, context: Any) -> None:
        """A worker works: it is told what to do, and says how far it is."""
        self._admit(context)
        first = await next_of(context, seconds=IDLE_SECONDS)
        if first is None or not first.worker:
            raise GraphError("a shift begins with the worker's name", reason="MALFORMED_MESSAGE")
        self._check_member(first.worker, first.incarnation)
        loop = asyncio.get_running_loop()
        outbox: asyncio.Queue[pb.WorkShiftResponse] = asyncio.Queue()

        def send(message: pb.WorkShiftResponse) -> None:
            with suppress(RuntimeError):  # the loop is closed, and with it the shift
                loop.call_soon_threadsafe(outbox.put_nowait, message)

        async def write() -> None:
            while True:
                await context.write(await outbox.get())

        shift = await asyncio.to_thread(self._away.came, first.worker, first.incarnation, first.loops, send)
        writing = asyncio.create_task(write())
        try:
            while (said := await next_of(context, seconds=self._members.lease_seconds)) is not None:
                self._away.hear(shift, said.loops)
        finally:
            writing.cancel()
            self._away.left(first.worker, shift)

    # ---- what loops say

    async def tell(self, requests: Any, context: Any) -> pb.TellLoopEventResponse:
        """Makes it a fact."""
        self._admit(context)
        said = await next_of(context, seconds=IDLE_SECONDS)
        if said is None:
            raise GraphError("nothing was said", reason="MALFORMED_MESSAGE")
        await self._job(said.assignment)
        while (more := await next_of(context, seconds=IDLE_SECONDS)) is not None:
            said.rows.extend(more.rows)
        if len(said.rows) != said.row_count:
            raise ServerUnavailable("what a loop said broke off; say it again")
        await asyncio.to_thread(self._foreman.tell, event_from_proto(said))
        return pb.TellLoopEventResponse()

    # ---- checkpoints

    async def restore(self, request: pb.RestoreCheckpointRequest) -> AsyncIterator[pb.RestoreCheckpointResponse]:
        """Gives the checkpoint from which the loop goes on."""
        job = await self._job(request.assignment)
        if request.is_near:
            manifest = await asyncio.to_thread(self._foreman.store.named, job.id, job.step)
            yield pb.RestoreCheckpointResponse(header=pb.CheckpointManifest(manifest=manifests.encode(manifest)))
            return
        found = await asyncio.to_thread(self._foreman.store.restore, job.id, job.step)
        header = pb.CheckpointManifest(
            manifest=manifests.encode(found.manifest), skipped=map(damage_to_proto, found.skipped)
        )
        yield pb.RestoreCheckpointResponse(header=header)
        number = 0
        while (tensor := await asyncio.to_thread(next, found.tensors, None)) is not None:
            number += 1
            if number <= request.tensors:
                continue
            for chunk in stream.chunks(tensor[2]):
                yield pb.RestoreCheckpointResponse(chunk=bytes(chunk))
            digest = await asyncio.to_thread(_digest, tensor[2])
            yield pb.RestoreCheckpointResponse(digest=digest)

    async def store(self, requests: Any, context: Any) -> pb.StoreCheckpointResponse:
        """Takes a checkpoint. Its answer says that it lasts."""
        self._admit(context)
        first = await next_of(context, seconds=IDLE_SECONDS)
        if first is None or isinstance(first, memoryview) or first.WhichOneof("part") != "header":
            raise GraphError("the first message of a checkpoint must be its draft", reason="MALFORMED_MESSAGE")
        job = await self._job(first.header.assignment)
        said = manifests.decode(first.header.manifest, "the draft")
        draft = Draft(**{f.name: getattr(said, f.name) for f in fields(Draft)})
        if draft.job != job.id:
            raise GraphError("the draft is of another job", reason="MALFORMED_MESSAGE")
        if first.header.entry:
            await asyncio.to_thread(
                self._foreman.store.adopt,
                said,
                first.header.entry,
                still=lambda: self._holding(first.header.assignment),
            )
            return pb.StoreCheckpointResponse()
        loop = asyncio.get_running_loop()

        def coming() -> Iterator[tuple[str, Type, memoryview]]:
            for name in write_order(draft.tensors):
                type = draft.tensors[name]
                work = _receive(context, name, type.nbytes)
                yield name, type, memoryview(asyncio.run_coroutine_threadsafe(work, loop).result())
            self._holding(first.header.assignment)  # it may have ended while the bytes came

        await asyncio.to_thread(self._foreman.store.write, draft, coming())
        return pb.StoreCheckpointResponse()

    async def keep(self, request: pb.KeepCheckpointsRequest) -> pb.KeepCheckpointsResponse:
        """Removes the others."""
        job = await self._job(request.assignment)
        await asyncio.to_thread(self._foreman.store.keep, job.id, last=request.last, best=[*request.best])
        return pb.KeepCheckpointsResponse()

    # ---- datasets

    async def fetch(self, request: pb.FetchDatasetRequest) -> AsyncIterator[pb.FetchDatasetResponse]:
        """Gives a dataset, or one block of it."""
        job = await self._job(request.assignment)
        dataset = await asyncio.to_thread(self._foreman.data, job.tenant, request.digest)
        columns = [pb.LoopColumn(name=name, row=stream.type_to_proto(type)) for name, type in dataset.columns.items()]
        header = pb.LoopDataset(rows=dataset.rows, columns=columns)
        if isinstance(dataset, Blocks):
            if not request.HasField("block"):
                header.block_rows.extend(dataset.layout.block_rows.tolist())
                header.window_rows = dataset.layout.window_rows
                yield pb.FetchDatasetResponse(header=header)
                return
            dataset = await asyncio.to_thread(dataset.block, request.block)
            header.rows = dataset.rows
        yield pb.FetchDatasetResponse(header=header)
        hashes = [column_hash(Type((dataset.rows, *t.shape), t.dtype)) for t in dataset.columns.values()]
        row_bytes = sum(type.nbytes for type in dataset.columns.values())
        count = max(1, BLOCK_BYTES // max(1, row_bytes))
        for first in range(0, dataset.rows, count):
            block = await asyncio.to_thread(_rows, dataset, first, count)
            for number, data in enumerate(block):
                hashes[number].update(data)
                for chunk in stream.chunks(data):
                    yield pb.FetchDatasetResponse(chunk=pb.ColumnChunk(column=number, data=bytes(chunk)))
        yield pb.FetchDatasetResponse(digests=pb.DatasetDigests(columns=[hash.hexdigest() for hash in hashes]))


def _rows(dataset: Dataset, first: int, count: int) -> list[memoryview]:
    rows = np.arange(first, min(first + count, dataset.rows), dtype=np.int64)
    return [array_bytes(array) for array in dataset.batch(rows).values()]


def _digest(data: memoryview) -> bytes:
    return hashlib.sha256(data).digest()


async def _receive(context: Any, name: str, nbytes: int) -> bytearray:
    """The bytes of one tensor. DataCorrupt if they are not those that were sent."""
    data = bytearray()
    while (part := await next_of(context, seconds=IDLE_SECONDS)) is not None:
        if isinstance(part, memoryview):
            data += part
            if len(data) > nbytes:
                break
            continue
        if len(data) == nbytes and part.digest == await asyncio.to_thread(_digest, memoryview(data)):
            return data
        break
    else:
        raise ServerUnavailable(f"the checkpoint broke off within {name}; send it again")
    raise DataCorrupt(f"tensor {name} of a checkpoint came otherwise than it was sent", reason="DATA_LENGTH")


def _read_store(data: bytes) -> Any:
    chunk = stream.decode_chunk(data, tag=1)
    return chunk if chunk is not None else reader(pb.StoreCheckpointRequest)(data)


def _serialized(message: Any) -> bytes:
    return message.SerializeToString()
