"""A worker's line to the gateway that keeps its jobs: events, checkpoints and data. Called by the threads of loops.

A gateway that is not there is waited for: it may be started anew, and the loop goes on then. What ends the waiting is
the gateway's word that the assignment is over, or the end of the worker.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from itertools import chain
from typing import Any, TypeVar, cast

import grpc
import numpy as np
from telegrad.errors import DataCorrupt, JobError, NotFound, ResourceError, ServerUnavailable, TelegradError
from telegrad.ir.types import Type
from telegrad.wire import stream
from telegrad.wire.v1 import loops_pb2 as pb
from telegrad.wire.v1 import loops_pb2_grpc as services

from telegrad_server.checkpoints import Draft, contents, write_order
from telegrad_server.checkpoints import manifest as manifests
from telegrad_server.checkpoints.contents import Latest
from telegrad_server.checkpoints.depot import Depot
from telegrad_server.checkpoints.files import storing
from telegrad_server.checkpoints.shards import SHARD_BYTES, write_shards
from telegrad_server.checkpoints.store import home_of
from telegrad_server.cluster.lease import Lease
from telegrad_server.cluster.tickets import Key
from telegrad_server.datasets import Dataset
from telegrad_server.datasets.blocks import Blocks, block_digest
from telegrad_server.datasets.cache import Cache
from telegrad_server.datasets.fetched import Chunk, Contents, Digests, Part
from telegrad_server.datasets.layout import Layout
from telegrad_server.datasets.registered import Registered
from telegrad_server.failpoints import Reached, nothing
from telegrad_server.jobs import events as e
from telegrad_server.loops import Assignment, Checkpoints
from telegrad_server.service.loop_messages import damage_from_proto, event_to_proto
from telegrad_server.service.member import GATEWAY_NAME
from telegrad_server.service.relay import OPTIONS, error_of

CALL_SECONDS = 30.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 2.0
_BROKEN = ("CANCELLED", "DEADLINE_EXCEEDED", "CONNECTION_FAILED")

_Answer = TypeVar("_Answer")
Named = tuple[str, Type, memoryview]


class Vault:
    """The gateway, seen from the loops of a worker. ``worker`` is its name and its process.

    What is in ``near`` and in blocks is read from its files, not asked of the gateway.
    """

    def __init__(
        self,
        gateway: str,
        key: Key,
        roots: bytes | None,
        *,
        worker: tuple[str, str],
        lease: Lease,
        cache: Cache,
        near: Sequence[Registered] = (),
        depot: Depot | None = None,
        reached: Reached = nothing,
    ) -> None:
        options = list(OPTIONS)
        if roots is None:
            self._channel = grpc.insecure_channel(gateway, options=options)
        else:
            named: list[tuple[str, Any]] = [*options, ("grpc.ssl_target_name_override", GATEWAY_NAME)]
            self._channel = grpc.secure_channel(gateway, grpc.ssl_channel_credentials(roots), options=named)
        self.stub: Any = services.LoopsStub(self._channel)
        self._store: Any = self._channel.stream_unary(
            "/telegrad.wire.v1.Loops/StoreCheckpoint", response_deserializer=pb.StoreCheckpointResponse.FromString
        )
        self.metadata = (("authorization", f"Bearer {key.password}"),)
        self.worker = worker
        self._lease = lease
        self._cache, self._near = cache, near
        self.depot = depot
        """Where the gateway keeps checkpoints, if it can be reached from here."""
        self.reached = reached
        self._closing = threading.Event()

    def close(self) -> None:
        """End every call; loops hear that their assignment is over."""
        self._closing.set()
        self._channel.close()

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, or the worker was given up."""
        return self._closing.is_set() or self._lease.is_over

    def wait(self, seconds: float) -> None:
        """Wait so long, or until it is closed."""
        self._closing.wait(seconds)

    # ---- what loops want

    def tell(self, event: e.Event) -> object:
        """Make what a loop says a fact."""
        number = getattr(event, "assignment", 0)
        messages = event_to_proto(event, self._who(event.job, number))
        tell = self.stub.TellLoopEvent
        self.reached("away.tell")
        return self.ask(lambda: tell(iter(messages), timeout=CALL_SECONDS, metadata=self.metadata))

    def checkpoints_of(self, assignment: Assignment) -> Checkpoints:
        """The checkpoints of a job, at the gateway."""
        return _Checkpoints(self, self._who(assignment.job, assignment.number))

    def dataset(self, assignment: Assignment, digest: str) -> Dataset:
        """The data of a job, from the cache, where it is put if need be: at once, or block by block as it is read."""
        for registered in self._near:
            if (found := registered.find_blocks(digest)) is not None:
                return found
        who = self._who(assignment.job, assignment.number)
        return self._cache.find(digest) or self.ask(lambda: self._opened(who, digest))

    def _opened(self, who: pb.LoopAssignment, digest: str) -> Dataset:
        with closing(self._fetch(who, digest)) as parts:
            first = next(parts)
            if not isinstance(first, Layout):
                return self._cache.open(digest, lambda: chain((first,), cast("Iterator[Part]", parts)))

        def block(number: int) -> Dataset:
            def fetch() -> Iterator[Part]:
                return cast("Iterator[Part]", self._fetch(who, digest, number))

            return self.ask(lambda: self._cache.open(block_digest(digest, number), fetch))

        return Blocks(first, block, room_bytes=self._cache.most_bytes)

    def _who(self, job: str, number: int) -> pb.LoopAssignment:
        worker, incarnation = self.worker
        return pb.LoopAssignment(worker=worker, incarnation=incarnation, job=job, number=number)

    def _fetch(
        self, who: pb.LoopAssignment, digest: str, block: int | None = None
    ) -> Generator[Part | Layout, None, None]:
        """A dataset's parts, or those of a block; of a dataset in blocks without one only its layout."""
        call: Any = self.stub.FetchDataset(
            pb.FetchDatasetRequest(assignment=who, digest=digest, block=block), metadata=self.metadata
        )
        try:
            for message in call:
                match message.WhichOneof("part"):
                    case "header":
                        header = message.header
                        columns = tuple([(c.name, stream.type_from_proto(c.row)) for c in header.columns])
                        if header.block_rows:
                            yield Layout(digest, columns, np.array(header.block_rows, np.int64), header.window_rows)
                        else:
                            yield Contents(header.rows, columns)
                    case "chunk":
                        yield Chunk(message.chunk.column, message.chunk.data)
                    case _:
                        yield Digests(tuple(message.digests.columns))
        finally:
            call.cancel()

    # ---- calls

    def store(self, parts: Iterator[bytes]) -> object:
        """Send a checkpoint, as messages that are bytes already."""
        return self._store(parts, metadata=self.metadata)

    def ask(self, call: Callable[[], _Answer]) -> _Answer:
        """What the call returns, made again while the gateway is not there. JobError (JOB_FENCED) when it is over."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            if self.is_closed:
                raise JobError("the worker has ended", reason="JOB_FENCED")
            try:
                return call()
            except grpc.RpcError as error:
                found: Any = error
                failure = error_of(found)
            except ValueError:  # of grpc, for a channel that was closed meanwhile
                if not self.is_closed:
                    raise
                continue
            if not _is_passing(failure):
                raise failure
            self.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _is_passing(failure: TelegradError) -> bool:
    return isinstance(failure, ServerUnavailable) or failure.reason in _BROKEN


class _Checkpoints:
    """The checkpoints of one assignment's job."""

    def __init__(self, vault: Vault, who: pb.LoopAssignment) -> None:
        self._vault, self._who = vault, who

    def restore(self, job: str, step: int) -> Latest:
        """The one to go on from, which the gateway knows: from where it is kept, or else from the gateway."""
        depot = self._vault.depot
        if depot is not None:
            try:
                return self._read(depot, job)
            except (DataCorrupt, NotFound, ResourceError) as error:
                logging.warning("a checkpoint comes through the gateway: %s", error.message)
        return self._streamed()

    def _read(self, depot: Depot, job: str) -> Latest:
        """The newest one, every byte checked. DataCorrupt, NotFound, ResourceError: the gateway may have another."""
        vault, home = self._vault, home_of(job)
        request = pb.RestoreCheckpointRequest(assignment=self._who, is_near=True)
        (part,) = vault.ask(lambda: list(vault.stub.RestoreCheckpoint(request, metadata=vault.metadata)))
        manifest = manifests.decode(part.header.manifest, "the gateway's checkpoint")
        with storing("checkpoints"):
            places = [place for place in depot.places(home) if place.step == manifest.step]
        for place in sorted(places, reverse=True):
            read = partial(depot.read, home, place)
            if manifests.encode(contents.check(read, place, job=job)) == part.header.manifest:  # NaN is not NaN
                return Latest(manifest, self._reaching(contents.tensors(read, place, manifest)), ())
        raise NotFound(f"the checkpoint of step {manifest.step} cannot be seen from here")

    def _reaching(self, tensors: Iterator[Named]) -> Iterator[Named]:
        for named in tensors:
            self._vault.reached("away.restore")
            yield named

    def _streamed(self) -> Latest:
        vault = self._vault

        def begin(tensors: int) -> tuple[Any, pb.CheckpointManifest]:
            request = pb.RestoreCheckpointRequest(assignment=self._who, tensors=tensors)
            parts = vault.stub.RestoreCheckpoint(request, metadata=vault.metadata)
            return parts, next(parts).header

        parts, header = vault.ask(lambda: begin(0))
        manifest = manifests.decode(header.manifest, "the gateway's checkpoint")
        types = [(name, manifest.tensors[name]) for name in write_order(manifest.tensors)]

        def tensors() -> Iterator[Named]:
            coming = parts
            for number, (name, type) in enumerate(types):

                def read(number: int = number, name: str = name, type: Type = type) -> memoryview:
                    nonlocal coming
                    if coming is None:
                        coming, again = begin(number)
                        if again.manifest != header.manifest:
                            raise DataCorrupt("the checkpoint has changed while it was read; the job begins again")
                    try:
                        return _tensor(coming, name, type.nbytes)
                    except grpc.RpcError:
                        coming = None
                        raise

                data = vault.ask(read)
                vault.reached("away.restore")
                yield name, type, data

        return Latest(manifest, tensors(), tuple(map(damage_from_proto, header.skipped)))

    def write(self, draft: Draft, tensors: Iterable[Named]) -> object:
        """Put a checkpoint where it lasts, or send it there."""
        named = list(tensors)
        vault = self._vault
        if vault.depot is not None and self._put(vault.depot, draft, named):
            return None

        def parts() -> Iterator[bytes]:
            manifest = manifests.encode(manifests.with_shards(draft, ()))
            header = pb.CheckpointDraft(assignment=self._who, manifest=manifest)
            yield pb.StoreCheckpointRequest(header=header).SerializeToString()
            for _, _, data in named:
                vault.reached("away.store")
                hash = hashlib.sha256()
                for chunk in stream.chunks(data.cast("B")):
                    hash.update(chunk)
                    yield stream.encode_download_chunk(chunk)
                yield pb.StoreCheckpointRequest(digest=hash.digest()).SerializeToString()

        return vault.ask(lambda: vault.store(parts()))

    def _put(self, depot: Depot, draft: Draft, named: list[Named]) -> bool:
        """Put its files where the gateway finds them, which makes them a checkpoint. Whether it did."""
        vault = self._vault
        try:
            with storing(f"checkpoint of step {draft.step}"):
                entry = depot.begin(home_of(draft.job), draft.step)
        except ResourceError as error:
            logging.warning("a checkpoint goes through the gateway: %s", error.message)
            return False
        try:
            with storing(f"checkpoint of step {draft.step}"):
                shards = write_shards(entry.create, draft.tensors, named, shard_bytes=SHARD_BYTES)
            manifest = manifests.encode(manifests.with_shards(draft, shards))
            header = pb.CheckpointDraft(assignment=self._who, manifest=manifest, entry=entry.name)
            message = pb.StoreCheckpointRequest(header=header).SerializeToString()
            vault.ask(lambda: vault.store(iter([message])))
        except (ResourceError, NotFound) as error:
            logging.warning("a checkpoint goes through the gateway: %s", error.message)
            with suppress(OSError):
                entry.discard()
            return False
        except BaseException:
            with suppress(OSError):
                entry.discard()
            raise
        return True

    def keep(self, job: str, *, last: int, best: Collection[int] = ()) -> object:
        """Remove the others."""
        vault = self._vault
        request = pb.KeepCheckpointsRequest(assignment=self._who, last=last, best=best)
        return vault.ask(lambda: vault.stub.KeepCheckpoints(request, timeout=CALL_SECONDS, metadata=vault.metadata))


def _tensor(parts: Iterable[pb.RestoreCheckpointResponse], name: str, nbytes: int) -> memoryview:
    """The bytes of the tensor that comes next. DataCorrupt if they are not those that were sent."""
    data = bytearray()
    for part in parts:
        if part.WhichOneof("part") == "chunk":
            data += part.chunk
        elif len(data) == nbytes and part.digest == hashlib.sha256(data).digest():
            return memoryview(data)
        else:
            break
    raise DataCorrupt(f"tensor {name} of a checkpoint came otherwise than it was sent", reason="DATA_LENGTH")
