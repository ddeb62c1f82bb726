"""Scope: a lifetime on the server as a ``with`` block on the client."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from weakref import ref

from telegrad import context
from telegrad.errors import ScopeClosed, SessionError, TelegradError
from telegrad.ir.types import Type
from telegrad.nest import flatten
from telegrad.tensor import Tensor

if TYPE_CHECKING:
    from telegrad.session import Session

P = ParamSpec("P")
R = TypeVar("R")


class Scope:
    """What is made inside the ``with`` block is freed when it is left, except what `keep` names.

    Leaving by an exception frees everything, kept or not. Made by ``session.scope()``.
    """

    def __init__(self, session: Session, number: int, parent: Scope | None) -> None:
        self.session = session
        self.number = number
        self.parent = parent
        self.is_closed = False
        self._kept: dict[int, ref[Tensor]] = {}

    def refusal(self, type: Type) -> TelegradError:
        """The error of someone who uses a tensor of this scope after it has closed."""
        if self.parent is None:
            return SessionError(f"this tensor ({type}) belongs to a session that is closed", reason="SESSION_CLOSED")
        return ScopeClosed(
            f"this tensor ({type}) was freed when its scope closed; keep it with scope.keep(x), or return it from a"
            " function marked @tg.scoped"
        )

    def keep(self, nest: R) -> R:
        """Let every tensor in the nest (lists, tuples, dicts, dataclasses) live on in the parent; returns the nest."""
        for leaf in flatten(nest)[0]:
            if isinstance(leaf, Tensor):
                leaf.value  # noqa: B018  # raises if it is gone already
                self._kept[id(leaf)] = ref(leaf)
        return nest

    def __enter__(self) -> Scope:
        if self.parent is None or self.is_closed:
            raise SessionError("a scope can be entered once")
        self.session.scopes.enter(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        kept = [tensor for tensor in (reference() for reference in self._kept.values()) if tensor is not None]
        self.session.scopes.leave(self, kept if kind is None else [])

    def contains(self, other: Scope) -> bool:
        """Whether ``other`` is this scope or stands inside it."""
        step: Scope | None = other
        while step is not None:
            if step is self:
                return True
            step = step.parent
        return False


class Scopes:
    """The scopes that are open in a session, innermost last."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.root = Scope(session, 0, None)
        self._stack = [self.root]
        self._last = 0

    @property
    def current(self) -> Scope:
        """The innermost open scope: where new tensors belong."""
        return self._stack[-1]

    def new(self) -> Scope:
        """A scope inside the current one, not yet entered."""
        self._last += 1
        return Scope(self._session, self._last, self.current)

    def enter(self, scope: Scope) -> None:
        """Open the scope here and on the server."""
        with self._session.commands.critical:
            scope.parent = self.current
            self._stack.append(scope)
            self._session.open_scope(scope)

    def leave(self, scope: Scope, kept: list[Tensor]) -> None:
        """Close the scope and those left open inside it; ``kept`` tensors move to its parent."""
        with self._session.commands.critical:
            if scope not in self._stack:
                return
            assert scope.parent is not None
            while self._stack[-1] is not scope:
                self._stack.pop().is_closed = True
            self._session.close_scope(scope, kept)
            self._stack.pop()


def scoped(function: Callable[P, R]) -> Callable[P, R]:
    """The function in a scope of its own: what it returns lives on in the caller's scope, the rest is freed.

    ::

        @tg.scoped
        def norm(x):
            y = x * x        # freed
            return y.sum()   # kept
    """

    @wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        if context.TRACE.get() is not None:
            return function(*args, **kwargs)
        with context.current_session().scope() as scope:
            return scope.keep(function(*args, **kwargs))

    return inside
