"""Numbers that are on their way: `Tensor.item_async` asks in the session's order, and the answer is read later.

A loop that prints each loss with ``item()`` stands still for a round trip in every step. With this it goes on, and
prints the loss of an earlier step when that has come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from telegrad.errors import ShapeError
from telegrad.wire.arrays import array_from
from telegrad.wire.messages import Answer, Failed, Fetched

if TYPE_CHECKING:
    from telegrad.session import Session
    from telegrad.tensor import Tensor


class Reply:
    """Where the answer to one command arrives, for whoever asks for it later. None if the session was lost before."""

    def __init__(self) -> None:
        self.sequence = 0
        self.answer: Answer | Failed | None = None
        self._arrived = threading.Event()
        self._then: Callable[[], None] | None = None

    def put(self, answer: Answer | Failed | None) -> None:
        """The answer is there; called by whoever hears it."""
        self.answer = answer
        self._arrived.set()
        if self._then is not None:
            self._then()

    def has_arrived(self) -> bool:
        """Whether it is there."""
        return self._arrived.is_set()

    def wait(self, timeout_seconds: float | None) -> bool:
        """Wait for it; returns whether it came in time."""
        return self._arrived.wait(timeout_seconds)

    def then(self, call: Callable[[], None]) -> None:
        """Let ``call`` be called when it is there, once or twice, on any thread."""
        self._then = call
        if self.has_arrived():
            call()


class LaterNumber:
    """A tensor's one element, as it was when it was asked for. Made by `Tensor.item_async`; may be awaited."""

    def __init__(self, session: Session, reply: Reply) -> None:
        self._session = session
        self._reply = reply

    def done(self) -> bool:
        """Whether `result` would not wait. Nothing is asked of the server."""
        return self._reply.has_arrived()

    def result(self, timeout: float | None = None) -> Any:
        """The Python number. Waits for it, at most ``timeout`` seconds.

        Raises the error of the op that failed, if one did, as `Tensor.item` does, and TimedOut.
        """
        answer = self._session.commands.answer_of(self._reply, timeout_seconds=timeout)
        assert answer.data is not None  # one element
        return array_from(answer.type, answer.data).reshape(()).item()

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio

        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        def arrived() -> None:
            with suppress(RuntimeError):  # the loop has ended: nobody waits
                loop.call_soon_threadsafe(wake)

        self._reply.then(arrived)
        yield from waiter
        return self.result()

    def __repr__(self) -> str:
        return f"<LaterNumber, {'here' if self.done() else 'on its way'}>"


def item_async(x: Tensor) -> LaterNumber:
    """The one element, on its way: ``result()`` gives it as a Python number, ``done()`` says whether it is here.

    What is pending is sent, and nothing is waited for. It is the value that the tensor has now, whatever becomes of a
    variable afterwards. An error comes out of ``result()``.

    ::

        losses.append(train_step(x, y).item_async())
        while losses and losses[0].done():
            print(losses.popleft().result())
    """
    if x.size != 1:
        raise ShapeError(f"item_async() takes a tensor of one element, not {x.type}; use numpy()")
    x._refuse_in_trace("read")  # pyright: ignore[reportPrivateUsage]
    return LaterNumber(x.session, x.session.fetch_later(x))


def known(answer: Fetched) -> Reply:
    """A reply that has arrived already."""
    reply = Reply()
    reply.put(answer)
    return reply
