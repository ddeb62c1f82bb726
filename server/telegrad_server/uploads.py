"""A tensor on its way to the server: its bytes are written where they will stay, and its room is paid for at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from telegrad.errors import DataCorrupt, NotFound, TelegradError
from telegrad.ir.types import Type
from telegrad.wire import messages as m
from telegrad.wire.status import to_record


class Target(Protocol):
    """Whom an upload tells how it ended. Exactly one of these is called, once."""

    def uploaded(self, upload: Upload, buffer: Any) -> None:
        """All bytes are there."""
        ...

    def upload_failed(self, upload: Upload, record: m.ErrorRecord) -> None:
        """The bytes were wrong; nobody need wait for them."""
        ...

    def upload_abandoned(self, upload: Upload) -> None:
        """The connection broke; the client may try again."""
        ...


class Upload:
    """An upload under way: write its bytes in order, then finish, abort or abandon it."""

    def __init__(self, target: Target, session_id: str, name: int, type: Type) -> None:
        self.session_id = session_id
        self.name = name
        self.type = type
        self._target = target
        self._buffer: Any = None
        self._view: memoryview | None = None
        self._filled = 0
        self._is_over = False

    def begin(self, receive: Callable[[Type], tuple[Any, memoryview]]) -> None:
        """Get the memory that the bytes are written to."""
        try:
            self._buffer, self._view = receive(self.type)
        except TelegradError as error:
            raise self.abort(error) from None
        except BaseException:
            self.abandon()
            raise

    @property
    def view(self) -> memoryview:
        """The tensor's bytes, to be written. NotFound if the session has ended meanwhile."""
        view = self._view
        if view is None:
            raise NotFound("there is no such session", reason="SESSION_UNKNOWN")
        return view

    @property
    def received_bytes(self) -> int:
        """How many bytes have come."""
        return self._filled

    @property
    def is_whole(self) -> bool:
        """Whether all bytes have come."""
        return self._filled == len(self.view)

    def write(self, chunk: bytes | memoryview) -> None:
        """The next bytes; DataCorrupt (DATA_LENGTH) at the first one too many."""
        view = self.view
        end = self._filled + len(chunk)
        if end > len(view):
            message = f"{self.type} takes {len(view)} bytes; the upload brought more"
            raise self.abort(DataCorrupt(message, reason="DATA_LENGTH", expected=len(view)))
        view[self._filled : end] = chunk
        self._filled = end

    def finish(self) -> int:
        """All bytes have come; DataCorrupt (DATA_TRUNCATED) if some are missing. Returns their number."""
        view = self.view
        if self._filled != len(view):
            message = f"{self.type} takes {len(view)} bytes; the upload ended after {self._filled}"
            raise self.abort(DataCorrupt(message, reason="DATA_TRUNCATED", expected=len(view), found=self._filled))
        buffer = self._end()
        if buffer is not None:
            self._target.uploaded(self, buffer)
        return self._filled

    def abort(self, error: TelegradError) -> TelegradError:
        """Give up: the name carries the error. Returns the error."""
        if not self._is_over:
            self._end()
            self._target.upload_failed(self, to_record(error))
        return error

    def abandon(self) -> None:
        """Stop without a verdict, as when the connection breaks: the name goes on waiting for its bytes."""
        if not self._is_over:
            self._end()
            self._target.upload_abandoned(self)

    def cancel(self) -> None:
        """The session is over: let go of the memory, and tell nobody."""
        self._end()

    def _end(self) -> Any:
        """The buffer, the first time."""
        buffer, self._buffer, self._view, self._is_over = self._buffer, None, None, True
        return buffer
