"""Where new tensors go: the current session, the trace under way, and whether gradients are wanted.

The session is per process with a stack per ``with`` block, so that a notebook's threads find it; trace and
gradient mode are per thread of execution.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from telegrad.function import Trace
    from telegrad.ir.value import Node, Value
    from telegrad.parts import On
    from telegrad.session import Session
    from telegrad.tensor import Tensor
    from telegrad.variable import Variable

TRACE: ContextVar[Trace | None] = ContextVar("telegrad_trace", default=None)
GRADIENTS: ContextVar[bool] = ContextVar("telegrad_gradients", default=True)
REGION: ContextVar[list[Node] | None] = ContextVar("telegrad_region", default=None)
"""The nodes made so far for the region (body of `checkpoint`, `custom_vjp`) that is being written, if one is."""
TRIPS: ContextVar[tuple[Tensor, ...]] = ContextVar("telegrad_trips", default=())
"""The numbers of the trips of the loops whose bodies are being written, the outermost first."""
ASSIGNED: ContextVar[tuple[dict[Variable, Value] | None, ...]] = ContextVar("telegrad_assigned", default=())
"""The variables assigned so far in each of the regions that are being written, the innermost last; None for one that
cannot hand them out."""
DEFINITIONS: ContextVar[bool] = ContextVar("telegrad_definitions", default=False)
"""Whether every tensor keeps its definition when it is sent, because a transform will differentiate through it."""
ON: ContextVar[On | None] = ContextVar("telegrad_on", default=None)
"""The worker on which ops are to run, where one has been chosen."""

_SESSIONS: list[Session] = []


def assigned_value(variable: Variable) -> Value | None:
    """What the variable was assigned in the regions that are being written, if it was."""
    for assigned in reversed(ASSIGNED.get()):
        if assigned is not None and variable in assigned:
            return assigned[variable]
    return None


def push_session(session: Session) -> None:
    """Make ``session`` the current one."""
    _SESSIONS.append(session)


def pop_session() -> None:
    """Undo the last `push_session`."""
    if _SESSIONS:
        _SESSIONS.pop()


def drop_session(session: Session) -> None:
    """Forget ``session``; the one before it becomes current."""
    _SESSIONS[:] = [s for s in _SESSIONS if s is not session]


def current_session() -> Session:
    """The session that was connected last and is open; an embedded one is opened if there is none."""
    while _SESSIONS and _SESSIONS[-1].is_closed:
        _SESSIONS.pop()
    if not _SESSIONS:
        from telegrad.opening import connect

        connect()
    return _SESSIONS[-1]


@contextmanager
def no_grad() -> Generator[None, None, None]:
    """Results made inside are constants: no gradient flows through them."""
    token = GRADIENTS.set(False)
    try:
        yield
    finally:
        GRADIENTS.reset(token)


@contextmanager
def enable_grad() -> Generator[None, None, None]:
    """Gradients are wanted inside, also within `no_grad`."""
    token = GRADIENTS.set(True)
    try:
        yield
    finally:
        GRADIENTS.reset(token)


def is_grad_enabled() -> bool:
    """Whether results made now let gradients through."""
    return GRADIENTS.get()
