"""The gRPC front in this process: what is read before what, what streams do, and what fits into metadata."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import grpc
import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import GraphError, TelegradError
from telegrad.ir import Type
from telegrad.ir import types as t
from telegrad.wire import messages as m
from telegrad.wire import stream
from telegrad.wire.v1 import sessions_pb2 as pb
from telegrad.wire.v1 import tensors_pb2 as tensors
from telegrad_server import service
from telegrad_server.access import Gate
from telegrad_server.config import Config
from telegrad_server.executors import pick_executor
from telegrad_server.service import edge
from telegrad_server.service import sessions as session_service
from telegrad_server.worker import Worker

TOKEN = "telegrad_token_of_alice"


class Front:
    """A server on a loop of its own thread."""

    def __init__(self, gate: Gate | None = None, **settings: Any) -> None:
        self.config = Config(port=0, backend="numpy", **settings)
        self.worker = Worker(self.config, pick_executor("numpy"))
        self._gate = gate or Gate()
        self._started, self._ending = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._started.wait(10)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.server = server = service.Server(self.worker, self.config, service.Access(self._gate))
        self.port = await server.start()
        self.worker.start()
        self._started.set()
        await self._ending.wait()
        await server.stop(1.0)

    def call(self, method: str, request: Any, *, token: str | None = None) -> Any:
        """A unary call with these bytes or this message; the answer's bytes."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        raw = self.channel.unary_unary(f"/telegrad.wire.v1.{method}", lambda b: b, lambda b: b)
        return raw(data, timeout=10, metadata=[("authorization", f"Bearer {token}")] if token else [])

    def open(self) -> pb.OpenSessionResponse:
        return pb.OpenSessionResponse.FromString(self.call("Sessions/OpenSession", b""))

    def close(self) -> None:
        self.worker.validate()
        self.channel.close()
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(20)
        assert not self._thread.is_alive()


class Stream:
    """A session's stream, message by message."""

    def __init__(self, front: Front, opened: pb.OpenSessionResponse, *, heard: int = 0) -> None:
        attach = front.channel.stream_stream(
            "/telegrad.wire.v1.Sessions/AttachSession",
            pb.AttachSessionRequest.SerializeToString,
            pb.AttachSessionResponse.FromString,
        )
        self._box: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers = attach(iter(self._box.get, None), timeout=30)
        self._box.put(
            pb.AttachSessionRequest(
                heard_event=heard,
                attach=pb.Attach(session_id=opened.session_id, session_secret=opened.session_secret),
            )
        )
        self.received = next(self._answers).attached.received_sequence

    def send(self, sequence: int, command: m.Command) -> None:
        self._box.put(stream.command_to_proto(sequence, command))

    def next(self) -> Any:
        """The next event that is no acknowledgement."""
        while True:
            event = stream.event_from_proto(next(self._answers))
            if not isinstance(event, m.Acknowledged):
                return event

    def end(self) -> None:
        self._box.put(None)


@pytest.fixture
def start() -> Iterator[Callable[..., Front]]:
    fronts: list[Front] = []

    def start(*args: Any, **settings: Any) -> Front:
        fronts.append(Front(*args, **settings))
        return fronts[-1]

    yield start
    for front in fronts:
        front.close()


@pytest.fixture
def front(start: Callable[..., Front]) -> Front:
    return start()


def record(error: Any) -> pb.ErrorRecord:
    return pb.ErrorRecord.FromString(dict(error.trailing_metadata())["telegrad-error-bin"])


SCALAR = Type((), t.float32)
ONE, TWO = np.float32(1).tobytes(), np.float32(2).tobytes()


def test_no_body_is_parsed_for_who_may_not_come_in(
    start: Callable[..., Front], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []

    def counting(cls: Any) -> Callable[[bytes], Any]:
        def read(data: bytes) -> Any:
            parsed.append(data)
            return cls.FromString(data)

        return read

    monkeypatch.setattr(session_service, "reader", counting)
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN} alice\n")
    file.chmod(0o600)
    front = start(Gate.from_file(str(file)))
    large = pb.OpenSessionRequest(request_id="x" * (3 << 20))

    for token in (None, "wrong" * 5):
        for method in ("OpenSession", "KeepAlive", "CloseSession", "AttachSession"):
            with pytest.raises(grpc.RpcError) as refused:
                front.call(f"Sessions/{method}", large, token=token)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert parsed == []

    front.call("Sessions/OpenSession", pb.OpenSessionRequest(), token=TOKEN)
    assert len(parsed) == 1


def test_hello_wants_no_token_but_takes_no_wrong_one(start: Callable[..., Front], tmp_path: Any) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN} alice\n")
    file.chmod(0o600)
    front = start(Gate.from_file(str(file)))

    assert pb.HelloResponse.FromString(front.call("Sessions/Hello", b"")).protocols == ["v1"]
    with pytest.raises(grpc.RpcError) as refused:
        front.call("Sessions/Hello", b"", token="wrong" * 5)
    assert record(refused.value).reason == "TOKEN_INVALID"


def test_a_new_stream_takes_the_session_over_and_the_old_one_ends(front: Front) -> None:
    opened = front.open()
    old = Stream(front, opened)
    old.send(1, m.Put(1, SCALAR, ONE))
    old.send(2, m.Fetch(1))
    assert old.next().data == ONE
    new = Stream(front, opened)
    assert new.received == 2
    assert new.next().data == ONE  # nobody said that it was heard

    with pytest.raises(grpc.RpcError) as taken:
        old.next()
    assert taken.value.code() is grpc.StatusCode.ABORTED
    assert record(taken.value).reason == "STREAM_TAKEN"
    new.send(3, m.Fetch(1))
    assert new.next().data == ONE
    new.end()


def test_what_was_sent_twice_takes_effect_once_and_what_is_missing_ends_the_stream(front: Front) -> None:
    opened = front.open()
    first = Stream(front, opened)
    for _ in range(3):
        first.send(1, m.Put(1, SCALAR, ONE))
    first.send(2, m.Fetch(1))
    assert first.next().data == ONE
    first.send(9, m.Fetch(1))
    with pytest.raises(grpc.RpcError) as gap:
        first.next()
    assert record(gap.value).reason == "SEQ_GAP"

    again = Stream(front, opened, heard=10)
    assert again.received == 2
    again.end()


def test_a_run_whose_function_is_missing_asks_for_it(front: Front) -> None:
    opened = front.open()
    line = Stream(front, opened)
    line.send(1, m.Run(b"f" * 32, (), (1,)))
    assert line.next() == m.FunctionNeeded(b"f" * 32)

    again = Stream(front, opened)
    assert again.next() == m.FunctionNeeded(b"f" * 32)
    again.end()


def test_a_stream_that_does_not_say_whose_it_is_is_closed(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_service, "ATTACH_SECONDS", 0.05)
    attach = front.channel.stream_stream("/telegrad.wire.v1.Sessions/AttachSession", lambda b: b, lambda b: b)
    box: queue.SimpleQueue[Any] = queue.SimpleQueue()

    with pytest.raises(grpc.RpcError) as closed:
        list(attach(iter(box.get, None), timeout=10))
    assert closed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert record(closed.value).reason == "DEADLINE_EXCEEDED"
    box.put(None)


def test_an_error_however_long_fits_into_metadata(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise GraphError("é" * 20_000, **{f"detail{i}": "x" * 5000 for i in range(100)})

    monkeypatch.setattr(front.worker, "keep_alive", fail)

    for _ in range(20):  # what is too large is refused at random
        with pytest.raises(grpc.RpcError) as failed:
            front.call("Sessions/KeepAlive", b"")
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert record(failed.value).reason == "GRAPH_INVALID"
        assert len(record(failed.value).details) == edge.DETAILS


def test_what_nobody_foresaw_tells_the_caller_only_a_number(
    front: Front, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("secret path /etc/token=abc")

    monkeypatch.setattr(front.worker, "keep_alive", fail)
    with pytest.raises(grpc.RpcError) as failed:
        front.call("Sessions/KeepAlive", b"")

    assert failed.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in failed.value.details() and "secret" not in str(record(failed.value))
    number = failed.value.details().split()[-1]
    assert number in caplog.text and "secret path" in caplog.text


def test_every_method_gives_a_stranger_the_same_answer(front: Front) -> None:
    opened = front.open()
    mine = {"session_id": opened.session_id, "session_secret": b"\0" * 32}
    nobodys = {"session_id": "0" * 32, "session_secret": opened.session_secret}

    def answer(method: str, request: Any) -> tuple[Any, ...]:
        try:
            serial: Any = [request.SerializeToString()]
            kind = front.channel.stream_stream if method.startswith(("Sessions/Att", "Tensors")) else None
            if kind is None:
                front.call(method, request)
            else:
                list(kind(f"/telegrad.wire.v1.{method}", lambda b: b, lambda b: b)(iter(serial), timeout=10))
        except grpc.RpcError as error:
            return error.code(), error.details(), record(error).SerializeToString()  # type: ignore[attr-defined]
        raise AssertionError(f"{method} let a stranger in")

    requests: dict[str, Callable[[dict[str, Any]], Any]] = {
        "Sessions/KeepAlive": lambda who: pb.KeepAliveRequest(**who),
        "Sessions/CloseSession": lambda who: pb.CloseSessionRequest(**who),
        "Sessions/AttachSession": lambda who: pb.AttachSessionRequest(attach=pb.Attach(**who)),
        "Tensors/UploadTensor": lambda who: tensors.UploadTensorRequest(
            header=tensors.UploadHeader(**who, name=1, type=stream.type_to_proto(SCALAR))
        ),
        "Tensors/DownloadTensor": lambda who: tensors.DownloadTensorRequest(**who, ticket="x"),
    }
    answers = {answer(method, make(who)) for method, make in requests.items() for who in (mine, nobodys)}

    assert len(answers) == 1
    assert next(iter(answers))[0] is grpc.StatusCode.NOT_FOUND


def upload(front: Front, opened: pb.OpenSessionResponse, type: Type, parts: list[bytes], *, name: int = 1) -> int:
    header = tensors.UploadHeader(
        session_id=opened.session_id,
        session_secret=opened.session_secret,
        name=name,
        type=stream.type_to_proto(type),
    )
    messages = [tensors.UploadTensorRequest(header=header).SerializeToString()]
    messages += [tensors.UploadTensorRequest(chunk=part).SerializeToString() for part in parts]
    call = front.channel.stream_unary("/telegrad.wire.v1.Tensors/UploadTensor", lambda b: b, lambda b: b)
    return tensors.UploadTensorResponse.FromString(call(iter(messages), timeout=10)).received_bytes


@pytest.mark.parametrize(
    ("parts", "reason"), [([ONE], "DATA_TRUNCATED"), ([ONE, ONE, b"x"], "DATA_LENGTH"), ([b"\0" * 100], "DATA_LENGTH")]
)
def test_an_upload_of_the_wrong_length_fails_and_so_does_its_name(
    front: Front, parts: list[bytes], reason: str
) -> None:
    opened = front.open()
    line = Stream(front, opened)
    line.send(1, m.Expect(1, Type((2,), t.float32)))
    line.send(2, m.Fetch(1))
    with pytest.raises(grpc.RpcError) as failed:
        upload(front, opened, Type((2,), t.float32), parts)
    assert record(failed.value).reason == reason

    events = [line.next(), line.next()]
    assert [(e.sequence, e.error.reason, e.error.sequence) for e in events] == [(1, reason, 1), (2, reason, 1)]
    line.end()


def test_an_upload_in_chunks_of_any_size_arrives(front: Front) -> None:
    opened = front.open()
    data = np.arange(100_000, dtype=np.float32).tobytes()
    line = Stream(front, opened)
    line.send(1, m.Expect(1, Type((100_000,), t.float32)))
    cuts = [0, 1, 1, 7, 70_000, 399_999, 400_000]
    parts = [data[a:b] for a, b in pairwise(cuts)]
    assert upload(front, opened, Type((100_000,), t.float32), parts) == 400_000
    line.send(2, m.Fetch(1))
    ticket = line.next().ticket
    download = front.channel.unary_stream(
        "/telegrad.wire.v1.Tensors/DownloadTensor",
        tensors.DownloadTensorRequest.SerializeToString,
        tensors.DownloadTensorResponse.FromString,
    )
    who = {"session_id": opened.session_id, "session_secret": opened.session_secret, "ticket": ticket}

    for offset in (0, 399_999, 400_000, 1000):  # a broken download goes on where it stopped
        got = b"".join(r.chunk for r in download(tensors.DownloadTensorRequest(**who, offset_bytes=offset), timeout=10))
        assert got == data[offset:]
    with pytest.raises(grpc.RpcError) as beyond:
        list(download(tensors.DownloadTensorRequest(**who, offset_bytes=400_001), timeout=10))
    assert record(beyond.value).reason == "DATA_LENGTH"
    line.end()


def test_a_planned_reconnect_is_seen_by_nobody(start: Callable[..., Front]) -> None:
    front = start(connection_age_seconds=0.3, connection_grace_seconds=0.1)
    opened_before = front.worker.statistics()["sessions"]
    attaches: list[int] = []
    attach = front.worker.attach

    def counted(*args: Any, **more: Any) -> int:
        attaches.append(attach(*args, **more))
        return attaches[-1]

    front.worker.attach = counted  # type: ignore[method-assign]
    with tg.connect(f"grpc://127.0.0.1:{front.port}", new=True):
        count = tg.Variable(0.0)

        @tg.function
        def step() -> tg.Tensor:
            count.assign(count + 1)
            return count * 1

        steps = 0
        while len(attaches) < 4:
            assert step().item() == (steps := steps + 1)
    assert front.worker.statistics()["sessions"] == opened_before


def test_a_bad_command_fails_and_the_stream_lives_on(front: Front) -> None:
    with tg.connect(f"grpc://127.0.0.1:{front.port}", new=True):
        x = tg.asarray(np.ones(3, np.float32))
        with pytest.raises(TelegradError):
            (x[tg.asarray([5])] + 1).numpy()
        assert (x + 1).numpy().tolist() == [2, 2, 2]
