"""The tree of a session's scopes: which names live in which, and what closing one frees. Pure."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Iterable, Iterator

from telegrad.errors import SessionError
from telegrad.wire.messages import ROOT_SCOPE

REMEMBERED_NAMES = 65_536
"""So many names of closed scopes are remembered, the latest, so that using one says what became of it."""


class ScopeTree:
    """Scopes by number; each knows its parent, its children and the names that live in it."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {ROOT_SCOPE: ROOT_SCOPE}
        self._children: dict[int, set[int]] = {ROOT_SCOPE: set()}
        self._names: dict[int, set[int]] = {ROOT_SCOPE: set()}
        self._scope_of: dict[int, int] = {}
        self._closed: deque[tuple[int, array[int]]] = deque()  # scope, the names it freed in ascending order
        self._closed_names = 0

    def __len__(self) -> int:
        return len(self._parent)

    def __contains__(self, scope: int) -> bool:
        return scope in self._parent

    def all(self) -> Iterable[int]:
        """Every scope, in the order they were opened."""
        return self._parent

    def parent(self, scope: int) -> int:
        """The scope around one; that of the session's own scope is itself."""
        return self._parent[scope]

    def names_in(self, scope: int) -> Collection[int]:
        """The names that live in a scope itself."""
        return self._names[scope]

    def open(self, scope: int, parent: int) -> None:
        """A new scope; SessionError if the number is taken or the parent is not open."""
        if scope in self._parent:
            raise SessionError(f"scope {scope} is open already", reason="SCOPE_UNKNOWN")
        self.check(parent)
        self._parent[scope] = parent
        self._children[scope] = set()
        self._names[scope] = set()
        self._children[parent].add(scope)

    def check(self, scope: int) -> None:
        """Raise SessionError unless the scope is open."""
        if scope not in self._parent:
            raise SessionError(f"scope {scope} is not open", reason="SCOPE_UNKNOWN")

    def add(self, name: int, scope: int) -> None:
        """Let a name live in a scope."""
        self._names[scope].add(name)
        self._scope_of[name] = scope

    def drop(self, name: int) -> None:
        """A name is gone."""
        scope = self._scope_of.pop(name, None)
        if scope is not None:
            self._names[scope].discard(name)

    def close(self, scope: int, keep: Iterable[int]) -> list[int]:
        """Close a scope and those inside; the names that are freed. Kept names move to the parent."""
        if scope == ROOT_SCOPE:
            raise SessionError("the session's own scope closes with the session", reason="SCOPE_UNKNOWN")
        self.check(scope)
        parent = self._parent[scope]
        inside = list(self._within(scope))
        names = {name for s in inside for name in self._names[s]}
        kept = [name for name in keep if name in names]
        for name in names:
            self.drop(name)
        for name in kept:
            self.add(name, parent)
        for s in inside:
            del self._parent[s], self._children[s], self._names[s]
        self._children[parent].discard(scope)
        freed = sorted(names - set(kept))
        self._remember(scope, freed)
        return freed

    def closed_with(self, name: int) -> int | None:
        """The scope whose end freed the name, if that was not too long ago."""
        for scope, names in self._closed:
            i = bisect_left(names, name)
            if i < len(names) and names[i] == name:
                return scope
        return None

    def _remember(self, scope: int, freed: list[int]) -> None:
        if not freed or len(freed) > REMEMBERED_NAMES:
            return
        self._closed.append((scope, array("Q", freed)))
        self._closed_names += len(freed)
        while self._closed_names > REMEMBERED_NAMES:
            self._closed_names -= len(self._closed.popleft()[1])

    def _within(self, scope: int) -> Iterator[int]:
        pending = [scope]
        while pending:
            current = pending.pop()
            yield current
            pending.extend(self._children[current])

    def validate(self, names: Iterable[int]) -> None:
        """Assert that tree and names agree."""
        assert set(names) == set(self._scope_of), "a name lives in no scope, or a scope holds a name that is gone"
        for name, scope in self._scope_of.items():
            assert name in self._names[scope]
        for scope, parent in self._parent.items():
            assert scope == ROOT_SCOPE or scope in self._children[parent]
