"""The session stream's messages as protobuf and back, and tensor chunks without a copy.

One row for each command and event; `messages.py` says what they mean.
"""

from __future__ import annotations

from collections.abc import Iterator

from telegrad.errors import DTypeError, GraphError
from telegrad.ir.types import BY_CODE, Type, check_shape
from telegrad.wire import messages as m
from telegrad.wire.reports import explained_from_proto, explained_to_proto, profiled_from_proto, profiled_to_proto
from telegrad.wire.v1 import sessions_pb2 as pb
from telegrad.wire.v1 import tensors_pb2 as tensors

CHUNK_BYTES = 1 << 20


def type_to_proto(type: Type) -> tensors.TensorType:
    """A type as a message."""
    return tensors.TensorType(element_type=type.dtype.code, shape=type.shape)  # type: ignore[arg-type]


def type_from_proto(message: tensors.TensorType) -> Type:
    """The type in a message; DTypeError or ShapeError if it is not one."""
    dtype = BY_CODE.get(message.element_type)
    if dtype is None:
        raise DTypeError(f"element type {message.element_type} is not known here")
    return Type(check_shape(tuple(message.shape), op="tensor"), dtype)


def command_to_proto(sequence: int, command: m.Command, *, heard_event: int = 0) -> pb.AttachSessionRequest:
    """A command as a message of the stream."""
    request = pb.AttachSessionRequest(heard_event=heard_event, sequence=sequence)
    match command:
        case m.Run():
            request.run.function = command.function
            request.run.inputs.extend(command.inputs)
            request.run.outputs.extend(command.outputs)
            request.run.immediates = command.immediates
            request.run.scope = command.scope
            request.run.scopes.extend(command.scopes)
            if command.group:
                request.run.group, request.run.step = command.group, command.step
            request.run.is_recorded = command.is_recorded
        case m.Put():
            request.put.CopyFrom(
                pb.Put(
                    name=command.name,
                    type=type_to_proto(command.type),
                    data=bytes(command.data),
                    scope=command.scope,
                    place=command.place,
                )
            )
        case m.Expect():
            request.expect.CopyFrom(pb.Expect(name=command.name, type=type_to_proto(command.type), scope=command.scope))
        case m.Alias():
            request.alias.CopyFrom(pb.Alias(name=command.name, source=command.source, scope=command.scope))
        case m.Release():
            request.release.names.extend(command.names)
        case m.Fetch():
            request.fetch.name = command.name
        case m.OpenScope():
            request.open_scope.CopyFrom(pb.OpenScope(scope=command.scope, parent=command.parent))
        case m.CloseScope():
            request.close_scope.CopyFrom(pb.CloseScope(scope=command.scope, keep=command.keep))
        case m.Resume():
            request.resume.sequence = command.sequence
        case m.JoinGroup():
            members = [
                pb.GroupMember(worker=g.worker, address=g.address, machine=g.machine, device=g.device)
                for g in command.members
            ]
            join = pb.JoinGroup(
                group=command.group,
                generation=command.generation,
                key=command.key,
                rank=command.rank,
                members=members,
            )
            join.timeout.FromNanoseconds(int(command.timeout_seconds * 1e9))
            request.join_group.CopyFrom(join)
        case m.Offer():
            request.offer.name, request.offer.key = command.name, command.key
        case m.Pull():
            pull = pb.Pull(name=command.name, type=type_to_proto(command.type), scope=command.scope)
            pull.worker, pull.address, pull.ticket = command.worker, command.address, command.ticket
            request.pull.CopyFrom(pull)
        case m.Explain():
            request.explain.function, request.explain.is_recorded = command.function, command.is_recorded
        case m.Profile():
            request.profile.CopyFrom(pb.Profile(spans=command.spans))
    return request


def command_from_proto(request: pb.AttachSessionRequest) -> m.Command:
    """The command in a message; GraphError if it holds none, or values that cannot be."""
    kind = request.WhichOneof("message")
    match kind:
        case "run":
            r = request.run
            return m.Run(
                r.function,
                tuple(r.inputs),
                tuple(r.outputs),
                r.immediates,
                r.scope,
                tuple(r.scopes),
                r.group,
                r.step,
                r.is_recorded,
            )
        case "put":
            put = request.put
            data = b"" if put.place else put.data
            return m.Put(put.name, type_from_proto(put.type), data, put.scope, put.place)
        case "expect":
            return m.Expect(request.expect.name, type_from_proto(request.expect.type), request.expect.scope)
        case "alias":
            return m.Alias(request.alias.name, request.alias.source, request.alias.scope)
        case "release":
            return m.Release(tuple(request.release.names))
        case "fetch":
            return m.Fetch(request.fetch.name)
        case "open_scope":
            return m.OpenScope(request.open_scope.scope, request.open_scope.parent)
        case "close_scope":
            return m.CloseScope(request.close_scope.scope, tuple(request.close_scope.keep))
        case "resume":
            return m.Resume(request.resume.sequence)
        case "join_group":
            j = request.join_group
            members = tuple(m.GroupMember(g.worker, g.address, g.machine, g.device) for g in j.members)
            return m.JoinGroup(j.group, j.generation, j.key, j.rank, members, j.timeout.ToNanoseconds() / 1e9)
        case "offer":
            return m.Offer(request.offer.name, request.offer.key)
        case "pull":
            p = request.pull
            return m.Pull(p.name, type_from_proto(p.type), p.worker, p.address, p.ticket, p.scope)
        case "explain":
            return m.Explain(request.explain.function, request.explain.is_recorded)
        case "profile":
            return m.Profile(request.profile.spans)
        case _:
            raise GraphError(f"a stream message holds {kind or 'nothing'}", reason="MALFORMED_MESSAGE")


def record_to_proto(record: m.ErrorRecord) -> pb.ErrorRecord:
    """An error as a message."""
    return pb.ErrorRecord(
        reason=record.reason,
        message=record.message,
        sequence=record.sequence,
        function=record.function,
        node=record.node + 1,
        is_backward=record.is_backward,
        details=record.details,
    )


def record_from_proto(message: pb.ErrorRecord) -> m.ErrorRecord:
    """The error in a message."""
    return m.ErrorRecord(
        message.reason,
        message.message,
        message.sequence,
        message.function,
        message.node - 1,
        message.is_backward,
        dict(message.details),
    )


def event_to_proto(number: int, event: m.Event) -> pb.AttachSessionResponse:
    """An event as a message of the stream."""
    response = pb.AttachSessionResponse(event=number)
    match event:
        case m.Acknowledged():
            response.acknowledged.sequence = event.sequence
        case m.Fetched():
            response.fetched.sequence = event.sequence
            response.fetched.type.CopyFrom(type_to_proto(event.type))
            if event.data is not None:
                response.fetched.data = event.data
            response.fetched.ticket = event.ticket
        case m.Failed():
            response.failed.sequence = event.sequence
            response.failed.error.CopyFrom(record_to_proto(event.error))
        case m.FunctionNeeded():
            response.function_needed.function = event.function
        case m.Ended():
            response.ended.error.CopyFrom(record_to_proto(event.error))
        case m.Explained():
            response.explained.CopyFrom(explained_to_proto(event))
        case m.Profiled():
            response.profiled.CopyFrom(profiled_to_proto(event))
    return response


def event_from_proto(response: pb.AttachSessionResponse) -> m.Event | None:
    """The event in a message, or None for one that this side does not know."""
    match response.WhichOneof("message"):
        case "acknowledged":
            return m.Acknowledged(response.acknowledged.sequence)
        case "fetched":
            f = response.fetched
            return m.Fetched(f.sequence, type_from_proto(f.type), f.data if f.HasField("data") else None, f.ticket)
        case "failed":
            return m.Failed(response.failed.sequence, record_from_proto(response.failed.error))
        case "function_needed":
            return m.FunctionNeeded(response.function_needed.function)
        case "ended":
            return m.Ended(record_from_proto(response.ended.error))
        case "explained":
            return explained_from_proto(response.explained)
        case "profiled":
            return profiled_from_proto(response.profiled)
        case _:
            return None


# ---- chunks: the same bytes as UploadTensorRequest(chunk=…) and DownloadTensorResponse(chunk=…), built by one copy


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode_upload_chunk(chunk: memoryview) -> bytes:
    """UploadTensorRequest(chunk=chunk), serialised."""
    return b"".join((b"\x12", _varint(len(chunk)), chunk))


def encode_download_chunk(chunk: memoryview) -> bytes:
    """DownloadTensorResponse(chunk=chunk), serialised."""
    return b"".join((b"\x0a", _varint(len(chunk)), chunk))


def decode_chunk(data: bytes, *, tag: int) -> memoryview | None:
    """The chunk in a serialised message that holds only field ``tag``, as a view; None if it is another message."""
    if not data or data[0] != (tag << 3 | 2):
        return None
    length, shift, position = 0, 0, 1
    while True:
        if position >= len(data) or shift > 35:
            return None
        byte = data[position]
        position += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return memoryview(data)[position:] if position + length == len(data) else None


def chunks(data: memoryview, *, size: int = CHUNK_BYTES) -> Iterator[memoryview]:
    """The bytes in slices of at most ``size``; no copy."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
