"""A session that this process itself commands: names, functions and answers, without bytes on a wire.

What a client does over a connection is done here by calls of the worker, so a job's steps queue, compute and fail as a
client's do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from telegrad.errors import ServerUnavailable, TelegradError
from telegrad.wire import messages as m
from telegrad.wire.arrays import array_bytes, array_from, type_of
from telegrad.wire.codec import function_id
from telegrad.wire.status import to_record

from telegrad_server.worker import Worker

AGAIN_SECONDS = 0.02
"""Until a call is made again that came just when the worker's lease ran out."""

_Answer = TypeVar("_Answer")
Operand = int | bytes
"""A name, or the bytes of a small tensor."""


class Ended(Exception):
    """The worker has ended the session."""

    def __init__(self, record: m.ErrorRecord) -> None:
        super().__init__(record.message)
        self.record = record


class Broken(Exception):
    """A command failed; the record says which function and node."""

    def __init__(self, record: m.ErrorRecord) -> None:
        super().__init__(record.message)
        self.record = record


class Answer:
    """What a Fetch will bring."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._events: SimpleQueue[m.Fetched | m.Failed | m.Ended] = SimpleQueue()
        self._event: m.Fetched | m.Failed | m.Ended | None = None

    def put(self, event: m.Fetched | m.Failed | m.Ended) -> None:
        """The answer is there."""
        self._events.put(event)

    def wait(self) -> m.Fetched:
        """The answer. Raises Broken if what was asked for failed, or Ended."""
        if self._event is None:
            self._event = self._events.get()
        match self._event:
            case m.Fetched():
                return self._event
            case m.Failed():
                raise Broken(self._event.error)
            case m.Ended():
                raise Ended(self._event.error)

    def array(self) -> npt.NDArray[Any]:
        """The elements, of a tensor that is small."""
        answer = self.wait()
        assert answer.data is not None
        return np.array(array_from(answer.type, answer.data))

    def view(self) -> memoryview:
        """The bytes, which stay valid until `done`."""
        answer = self.wait()
        if answer.data is not None:
            return memoryview(answer.data)
        return self._hands.download(answer.ticket)

    def done(self) -> None:
        """The bytes are wanted no longer."""
        if self._event is not None and isinstance(self._event, m.Fetched) and self._event.ticket:
            self._hands.downloaded(self._event.ticket)


class Hands:
    """The commands of one session on a worker. `open` begins it, `close` frees everything."""

    def __init__(self, worker: Worker, tenant: str, functions: Mapping[bytes, bytes]) -> None:
        self._worker = worker
        self._tenant = tenant
        self._functions = dict(functions)
        self._lock = threading.Lock()
        self._answers: dict[int, Answer] = {}
        self._sequence = 0
        self._last_name = 0
        self._heard = 0
        self._ended: m.ErrorRecord | None = None
        self.failure: m.ErrorRecord | None = None
        """The first error of a command that nobody asked an answer of."""

    def open(self) -> None:
        """Open the session. QuotaExceeded or ServerUnavailable if the worker takes no more."""
        grant = self._patiently(lambda: self._worker.open_session(self._tenant, "", None))
        self._id, self._secret = grant.session_id, grant.session_secret
        self._patiently(lambda: self._worker.attach(self._tenant, self._id, self._secret, 0, self._hear))
        self._worker.begin_delivery(self._id)
        for function, data in self._functions.items():
            self._worker.supply(self._id, function, data)

    def close(self) -> None:
        """Free everything."""
        if self._ended is None:
            self._worker.close_session(self._tenant, self._id, self._secret)

    # ---- commands

    def new_name(self) -> int:
        """A name that was never used."""
        self._last_name += 1
        return self._last_name

    def put(self, array: npt.NDArray[Any]) -> int:
        """A name for a copy of the array."""
        type, name = type_of(array), self.new_name()
        if type.nbytes <= m.INLINE_BYTES:
            self._send(m.Put(name, type, bytes(array_bytes(array))))
        else:
            self._send(m.Expect(name, type))
            upload = self._worker.begin_upload(self._tenant, self._id, self._secret, name, type)
            upload.write(array_bytes(array))
            upload.finish()
        return name

    def knows(self, data: bytes) -> bytes:
        """The id of a function with these bytes, which can be run from now on."""
        function = function_id(data)
        self._functions[function] = data
        return function

    def run(self, function: bytes, operands: Sequence[Operand], results: Sequence[int]) -> None:
        """Call a function: a name for each result, or 0 where it is not wanted."""
        inputs = tuple([0 if isinstance(x, bytes) else x for x in operands])
        immediates = b"".join([x for x in operands if isinstance(x, bytes)])
        self._send(m.Run(function, inputs, tuple(results), immediates))

    def fetch(self, name: int) -> Answer:
        """Ask for a value as it is at this point."""
        answer = Answer(self)
        self._send(m.Fetch(name), answer)
        return answer

    def release(self, names: Sequence[int]) -> None:
        """Forget names."""
        if names:
            self._send(m.Release(tuple(names)))

    def _send(self, command: m.Command, answer: Answer | None = None) -> None:
        if self._ended is not None:
            raise Ended(self._ended)
        with self._lock:
            self._sequence += 1
            if answer is not None:
                self._answers[self._sequence] = answer
        try:
            has_room = self._patiently(lambda: self._worker.receive(self._id, self._sequence, command, self._heard))
        except TelegradError as error:
            raise Ended(self._ended) if self._ended is not None else error  # noqa: B904
        if not has_room:
            self._worker.wait_for_room(self._id)

    def _patiently(self, call: Callable[[], _Answer]) -> _Answer:
        """What the call returns, as soon as the worker may accept it: one that cannot reach its gateway may not."""
        while True:
            if not self._worker.lease.wait():
                raise Ended(self._ended or to_record(ServerUnavailable("the gateway has given the worker up")))
            try:
                return call()
            except ServerUnavailable as error:
                if error.reason == "DRAINING" or self._ended is not None:
                    raise
                time.sleep(AGAIN_SECONDS)

    # ---- what comes back

    def download(self, ticket: str) -> memoryview:
        """The bytes behind a ticket."""
        return self._worker.download(self._tenant, self._id, self._secret, ticket)

    def downloaded(self, ticket: str) -> None:
        """A ticket is used up."""
        if self._ended is None:
            self._worker.download_done(self._tenant, self._id, self._secret, ticket)

    def _hear(self, number: int, event: m.Event) -> None:
        self._heard = number
        match event:
            case m.FunctionNeeded():
                self._worker.supply(self._id, event.function, self._functions[event.function])
            case m.Fetched():
                self._answers.pop(event.sequence).put(event)
            case m.Failed():
                answer = self._answers.pop(event.sequence, None)
                if answer is not None:
                    answer.put(event)
                elif self.failure is None:
                    self.failure = event.error
            case m.Ended():
                with self._lock:
                    self._ended = event.error
                    answers, self._answers = self._answers, {}
                for answer in answers.values():
                    answer.put(event)
            case m.Acknowledged() | m.Explained() | m.Profiled():
                pass
