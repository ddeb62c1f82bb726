"""Commands: what a session tells its server, each once and in order, and what comes back.

The other half of `session.py`, which knows tensors; this one knows names, functions by id and numbered commands. What
nobody waits for any more is dismissed, what nobody holds any more is released.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from telegrad.critical import Critical
from telegrad.errors import SessionError, TelegradError, TimedOut, UnknownOp, VersionMismatch
from telegrad.ir.types import Type
from telegrad.later import Reply
from telegrad.lazy import Handle, Line, Watch, caller, show
from telegrad.prepared import Prepared
from telegrad.transport import Connection
from telegrad.transport.shared_memory import SharedMemory
from telegrad.wire import messages as m
from telegrad.wire.arrays import array_bytes, array_from, type_of
from telegrad.wire.status import to_exception

if TYPE_CHECKING:
    from telegrad.timeline import Recorder
    from telegrad.variable import Variable

EAGER_SUPPLY_BYTES = 64 * 1024  # functions up to this size are sent before anybody asks
RELEASE_BATCH = 256
RELEASE_BYTES = 1 << 20
"""After so many uploaded bytes the server hears what nobody holds any more, however few names they are."""
REMEMBERED_RUNS = 4096
REMEMBERED_BYTES = 64 << 20

REMEMBERED_WAITS = 1024

Answers = SimpleQueue["m.Answer | m.Failed | None"]
"""Where the answer to a command arrives; None if the session is lost before."""


class Commands:
    """The commands of one session over a connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.critical = Critical(connection.wait_for_room)  # commands are numbered and sent in here
        self.sequence = 0
        self.lost: TelegradError | None = None
        self.is_closed = False
        self.last_name = 0
        self._watches: dict[int, Watch] = {}  # by name, of handles that somebody holds
        self._forgotten: deque[Watch] = deque()
        self._uploaded_bytes = 0  # since names were last released
        self._functions: OrderedDict[bytes, bytes] = OrderedDict()
        self._function_bytes = 0
        self._run_lines: OrderedDict[int, tuple[Line | None, ...]] = OrderedDict()
        self._answers: dict[int, Answers | Reply] = {}  # by command, while somebody waits
        self._failures: dict[int, m.ErrorRecord] = {}
        self.recorder: Recorder | None = None
        """What notes when things happen, while a profile is taken."""
        self.waits: Counter[Line | None] = Counter()
        """How often each line of the program has waited for the server."""
        self.variables: WeakValueDictionary[int, Variable] = WeakValueDictionary()
        """The session's variables by their names on the server: users know what is lost by what they call it."""

    def open(self) -> None:
        """Open the session on the server."""
        self.connection.open(self._hear, self._lose, self._upload_failed)

    def close(self) -> None:
        """Free everything on the server; nothing can be sent any more."""
        self.is_closed = True
        self.connection.close()
        self._end_answers()

    @property
    def is_live(self) -> bool:
        """Whether commands can still be sent."""
        return not self.is_closed and self.lost is None and self.connection.is_open

    @property
    def unanswered(self) -> int:
        """How many answers are on their way."""
        return len(self._answers)

    # ---- what is sent

    def new_handle(self) -> Handle:
        """A handle on a new name, for a command that will make it."""
        self.last_name += 1
        handle = Handle(self.last_name)
        self._watches[handle.name] = Watch(handle, self._forgotten.append)
        return handle

    def send(self, command: m.Command, answers: Answers | Reply | None = None) -> int:
        """Send a command; returns its number. To be called within ``critical``."""
        if self.lost is not None:
            raise self.lost
        if self.is_closed:
            raise _closed()
        if len(self._forgotten) >= RELEASE_BATCH or self._uploaded_bytes >= RELEASE_BYTES:
            self._release()
        return self._send_next(command, answers)

    def _send_next(self, command: m.Command, answers: Answers | Reply | None = None) -> int:
        self.sequence += 1
        if answers is not None:
            self._answers[self.sequence] = answers  # first: in process the answer comes before `send` returns
        if self.recorder is not None:
            self.recorder.send(self.sequence, command)
        self.connection.send(self.sequence, command)
        return self.sequence

    def _release(self) -> None:
        names: list[int] = []
        self._uploaded_bytes = 0
        while self._forgotten:
            names.append(self._forgotten.popleft().name)
            del self._watches[names[-1]]
        if names and self.lost is None and not self.is_closed:
            self._send_next(m.Release(tuple(names)))

    def release(self) -> None:
        """Tell the server now which names are no longer wanted, without waiting for a batch to fill."""
        with self.critical:
            self._release()

    def run(
        self,
        function: Prepared,
        operands: Sequence[int | bytes],
        names: Sequence[int],
        scopes: Sequence[int],
        *,
        is_recorded: bool = False,
    ) -> int:
        """Send one Run; returns its sequence number. ``is_recorded``: of a graph that was recorded, not declared."""
        immediates = [x for x in operands if isinstance(x, bytes)]
        inputs = tuple([0 if isinstance(x, bytes) else x for x in operands])
        scope = scopes[0] if scopes else 0
        mixed = tuple(scopes) if any(s != scope for s in scopes) else ()
        with self.critical:
            if function.id not in self._functions:
                self._introduce(function)
            command = m.Run(
                function.id, inputs, tuple(names), b"".join(immediates), scope, mixed, is_recorded=is_recorded
            )
            sequence = self.send(command)
            self._remember_lines(sequence, function)
        return sequence

    def _remember_lines(self, sequence: int, function: Prepared) -> None:
        self._run_lines[sequence] = function.lines
        if len(self._run_lines) > REMEMBERED_RUNS:
            self._run_lines.popitem(last=False)

    def _introduce(self, function: Prepared) -> None:
        unknown = function.ops - self.connection.greeting.ops
        if unknown:
            version = self.connection.greeting.server_version
            raise UnknownOp(
                f"the server (telegrad {version}) does not know the op {min(unknown)!r}; upgrade the server"
            )
        self._functions[function.id] = function.data
        self._function_bytes += len(function.data)
        while self._function_bytes > REMEMBERED_BYTES and len(self._functions) > 1:
            _, data = self._functions.popitem(last=False)
            self._function_bytes -= len(data)
        if len(function.data) <= EAGER_SUPPLY_BYTES:
            self.connection.supply(function.id, function.data)

    def put(self, type: Type, data: bytes, scope: int) -> Handle:
        """Send a few bytes; the handle of the tensor they are."""
        with self.critical:
            handle = self.new_handle()
            self.send(m.Put(handle.name, type, data, scope))
            return handle

    def upload(self, array: npt.NDArray[Any], scope: int) -> Handle:
        """Send an array; the handle of the tensor it becomes. The array may be changed afterwards."""
        type = type_of(array)
        if type.nbytes <= m.INLINE_BYTES:
            return self.put(type, bytes(array_bytes(array)), scope)
        if self.recorder is None:
            return self._upload(type, array, scope)
        recorder, began = self.recorder, time.perf_counter_ns()
        handle = self._upload(type, array, scope)
        recorder.add("upload", str(type), began, nbytes=type.nbytes)
        return handle

    def _upload(self, type: Type, array: npt.NDArray[Any], scope: int) -> Handle:
        self._uploaded_bytes += type.nbytes
        memory = self.connection.memory
        if memory is not None and memory.takes(type.nbytes):
            return self._place(memory, type, array_bytes(array), scope)
        with self.critical:
            handle = self.new_handle()
            self.send(m.Expect(handle.name, type, scope))
        self.connection.upload(handle.name, type, array)
        return handle

    def _place(self, memory: SharedMemory, type: Type, data: memoryview, scope: int) -> Handle:
        """Put bytes where the server reads them, once there is room."""
        while True:
            with self.critical:
                place = memory.place(data)
                if place or not self.is_live:  # where nobody reads any more, `send` says why
                    handle = self.new_handle()
                    memory.sent(self.send(m.Put(handle.name, type, b"", scope, place)))
                    return handle
            memory.wait()

    # ---- what comes back

    def read(self, send: Callable[[], Handle], *, timeout_seconds: float | None) -> npt.NDArray[Any]:
        """The elements of a tensor as an array of the caller's own; see `ask`."""
        answer = self.ask(send, timeout_seconds=timeout_seconds)
        if answer.data is not None:
            return np.array(array_from(answer.type, answer.data))
        try:
            return self.connection.download(answer.type, answer.ticket)
        except KeyboardInterrupt:
            self.connection.dismiss(answer.type, answer.ticket)
            raise

    def ask(self, send: Callable[[], Handle], *, timeout_seconds: float | None = None) -> m.Fetched:
        """Send a Fetch and wait for its answer; ``send`` first sends what the tensor needs, and gives its handle."""
        self._note_wait(caller())
        recorder, began = self.recorder, time.perf_counter_ns()
        answer = self._exchange(lambda answers: self.send(m.Fetch(send().name), answers), timeout_seconds)
        if recorder is not None:
            recorder.add("wait", "", began)
        assert isinstance(answer, m.Fetched)
        unread = min(tuple(self._failures), default=None)
        if unread is not None:
            raise self._raised(self._failures[unread])
        return answer

    def ask_later(self, send: Callable[[], Handle]) -> Reply:
        """Send a Fetch and wait for nothing; see `ask` and `answer_of`."""
        reply = Reply()
        with self.critical:
            reply.sequence = self.send(m.Fetch(send().name), reply)
        return reply

    def answer_of(self, reply: Reply, *, timeout_seconds: float | None) -> m.Fetched:
        """The answer that was asked for, once it is there. Raises as `ask` does; errors of later commands can wait."""
        if not reply.has_arrived():
            self._note_wait(caller())
            recorder, began = self.recorder, time.perf_counter_ns()
            if not reply.wait(timeout_seconds):
                raise TimedOut(f"no answer within {timeout_seconds} s; the session goes on")
            if recorder is not None:
                recorder.add("wait", "", began)
        answer = reply.answer
        if answer is None:
            raise self.lost or _closed()
        if isinstance(answer, m.Failed):
            raise self._raised(answer.error)
        unread = min([n for n in tuple(self._failures) if n < reply.sequence], default=None)
        if unread is not None:
            raise self._raised(self._failures[unread])
        assert isinstance(answer, m.Fetched)
        return answer

    def explain(self, function: Prepared, *, is_recorded: bool) -> m.Explained:
        """What running the function would take. VersionMismatch if the server is too old to say."""

        def send(answers: Answers) -> int:
            if function.id not in self._functions:
                self._introduce(function)
            sequence = self.send(m.Explain(function.id, is_recorded), answers)
            self._remember_lines(sequence, function)
            return sequence

        self._check_feature("explain")
        answer = self._exchange(send, None)
        assert isinstance(answer, m.Explained)
        return answer

    def profile(self, spans: int) -> m.Profiled:
        """Let the server record up to so many spans, or with 0 end that; tells its time. VersionMismatch."""
        self._check_feature("profile")
        answer = self._exchange(lambda answers: self.send(m.Profile(spans), answers), None)
        assert isinstance(answer, m.Profiled)
        return answer

    def line_of(self, sequence: int, node: int) -> str:
        """The line of the program that built a node of the function that a command ran, for people."""
        lines = self._run_lines.get(sequence, ())
        return show(lines[node] if 0 <= node < len(lines) else None)

    def _check_feature(self, feature: str) -> None:
        greeting = self.connection.greeting
        if feature not in greeting.features:
            raise VersionMismatch(f"the server (telegrad {greeting.server_version}) cannot {feature}; upgrade it")

    def _note_wait(self, line: Line | None) -> None:
        """Count a round trip that a line of the program waits for."""
        if line in self.waits or len(self.waits) < REMEMBERED_WAITS:
            self.waits[line] += 1

    def _exchange(self, send: Callable[[Answers], int], timeout_seconds: float | None) -> m.Answer:
        """Send a command that is answered, and wait for that. ``send`` gives the command's number."""
        answers: Answers = SimpleQueue()
        sequence = 0
        try:
            with self.critical:
                sequence = send(answers)
            answer = answers.get(timeout=timeout_seconds)
        except Empty:
            raise TimedOut(f"no answer within {timeout_seconds} s; the session goes on") from None
        finally:
            self._answers.pop(sequence, None)
            self._dismiss(answers)  # when the wait was given up at this very moment
        if answer is None:
            raise self.lost or _closed()
        if isinstance(answer, m.Failed):
            raise self._raised(answer.error)
        return answer

    def ask_all(self, send: Callable[[], Sequence[Handle]]) -> list[m.Fetched]:
        """What several tensors are at one point of the program; ``send`` first sends what they need.

        Whoever asked dismisses the tickets among the answers.
        """
        waiting: list[tuple[int, Answers]] = []
        found: list[m.Fetched] = []
        try:
            with self.critical:
                for handle in send():
                    answers: Answers = SimpleQueue()
                    waiting.append((self.send(m.Fetch(handle.name), answers), answers))
            for _, answers in waiting:
                answer = answers.get()
                if answer is None:
                    raise self.lost or _closed()
                if isinstance(answer, m.Failed):
                    raise self._raised(answer.error)
                assert isinstance(answer, m.Fetched)
                found.append(answer)
        except BaseException:
            self.dismiss(found)
            raise
        finally:
            for sequence, answers in waiting:
                self._answers.pop(sequence, None)
                self._dismiss(answers)
        return found

    def dismiss(self, answers: Sequence[m.Fetched]) -> None:
        """Let the server free what was brought."""
        for answer in answers:
            if answer.ticket:
                self.connection.dismiss(answer.type, answer.ticket)

    def _dismiss(self, answers: Answers) -> None:
        """Let the server free what was brought for somebody who no longer waits."""
        while True:
            try:
                answer = answers.get_nowait()
            except Empty:
                return
            if isinstance(answer, m.Fetched) and answer.ticket:
                self.connection.dismiss(answer.type, answer.ticket)

    def _raised(self, record: m.ErrorRecord) -> TelegradError:
        """The exception for a record, with the user's line; tells the server that the user knows."""
        self._failures.pop(record.sequence, None)
        if record.sequence and self.lost is None:
            with self.critical:
                self._send_next(m.Resume(record.sequence))
        error = to_exception(record)
        tensors = str(error.details.get("tensors", "")).split(",")
        lost = [v for name in tensors if name.isdigit() and (v := self.variables.get(int(name))) is not None]
        if lost:
            names = [v.name or str(v.type) for v in lost]
            error.details["variables"] = ", ".join(names)
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            error.message = f"{error.message} (lost: {', '.join(names[:4])}{more})"
            error.args = (error.message,)
        lines = self._run_lines.get(record.sequence, ())
        if 0 <= record.node < len(lines) and lines[record.node] is not None:
            where = show(lines[record.node])
            error.location = f"{where} (in the gradient of the op built there)" if record.is_backward else where
        return error

    def _hear(self, event: m.Event) -> None:
        """An event from the server, on the connection's thread."""
        if isinstance(event, m.FunctionNeeded):
            data = self._functions.get(event.function)
            if data is not None:
                self.connection.supply(event.function, data)
            return
        if isinstance(event, m.Ended):
            self._lose(to_exception(event.error))
            return
        if isinstance(event, m.Acknowledged):
            return
        if self.recorder is not None:
            self.recorder.hear(event.sequence)
        answers = self._answers.get(event.sequence, None)
        if isinstance(answers, Reply):
            self._answers.pop(event.sequence, None)
            answers.put(event)
        elif answers is not None:
            answers.put(event)
            if event.sequence not in self._answers:
                self._dismiss(answers)
        elif isinstance(event, m.Fetched):
            if event.ticket:
                self.connection.dismiss(event.type, event.ticket)
        elif isinstance(event, m.Failed) and event.error.sequence == event.sequence:
            self._failures[event.sequence] = event.error

    def _upload_failed(self, name: int, record: m.ErrorRecord) -> None:
        """The bytes of a tensor never got there, on a thread that uploads: no Run may wait for it."""
        with self.critical:
            if self.lost is None and not self.is_closed:
                self._send_next(m.Release((name,)))
        self._failures[0] = record

    def _lose(self, error: TelegradError) -> None:
        """Nothing more will come."""
        self.lost = error
        self._end_answers()

    def _end_answers(self) -> None:
        """Wake everybody who waits."""
        for answers in list(self._answers.values()):
            answers.put(None)


def _closed() -> SessionError:
    return SessionError("the session is closed; connect again", reason="SESSION_CLOSED")
