"""What the names of a session mean: values, values on their way, and errors where there is no value. Pure.

States of a name: *arriving* (announced, its bytes on their way), *ready*, *failed* (its maker failed). A ready
name may also be *held back*: it is a variable that a failed Run would have updated, so nobody may use it until
the client has raised the error (Resume), else training would go on past a missing step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from telegrad.errors import DataCorrupt, GraphError, NotFound, QuotaExceeded, ScopeClosed, TelegradError
from telegrad.ir.types import Type
from telegrad.wire import messages as m
from telegrad.wire.status import to_record

from telegrad_server.scopes import ScopeTree
from telegrad_server.store import Account, Stored

UNWANTED_NAMES = 4096
"""So many names that were released before their upload came are remembered, to drop the bytes when they come."""

EARLY_UPLOADS = 4096
"""So many uploads may end before they are announced."""


class Blamed(TelegradError):
    """Carries the record of an earlier failure to the command that needs its result."""

    def __init__(self, record: m.ErrorRecord) -> None:
        super().__init__(record.message, reason=record.reason)
        self.record = record


@dataclass(frozen=True, slots=True)
class Announced:
    """An upload that a command has announced."""

    type: Type
    sequence: int


@dataclass(slots=True)
class Entry:
    """What a name means. Exactly one of ``stored``, ``arriving`` and ``error`` is there."""

    stored: Stored | None = None
    arriving: Announced | None = None
    error: m.ErrorRecord | None = None
    held_back: m.ErrorRecord | None = None


@dataclass(frozen=True, slots=True)
class Early:
    """An upload that ended before it was announced: its value, or what went wrong."""

    type: Type
    stored: Stored | None = None
    error: m.ErrorRecord | None = None


class Names:
    """The names of one session, the scopes they live in, and the account that pays for their values."""

    def __init__(self, account: Account, *, max_names: int) -> None:
        self.account = account
        self.scopes = ScopeTree()
        self.freed: list[Any] = []  # values that nobody holds; whoever drives the machine lets go of them
        self._max_names = max_names
        self._entries: dict[int, Entry] = {}
        self._arriving: set[int] = set()
        self._early: dict[int, Early] = {}
        self._unwanted: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: int) -> bool:
        return name in self._entries

    # ---- using names

    def usable(self, name: int) -> Stored:
        """The value of a name. Raises Blamed, ScopeClosed or NotFound (NAME_UNKNOWN) if there is none."""
        entry = self._entries.get(name)
        if entry is None:
            scope = self.scopes.closed_with(name)
            if scope is not None:
                raise ScopeClosed(f"tensor {name} was freed when its scope {scope} closed; keep() it to use it after")
            raise NotFound(f"there is no tensor of name {name} in this session", reason="NAME_UNKNOWN", name=name)
        blame = entry.error or entry.held_back
        if blame is not None:
            raise Blamed(blame)
        assert entry.stored is not None, "a command that uses an arriving name must wait"
        return entry.stored

    def any_arriving(self, names: Iterable[int]) -> bool:
        """Whether the bytes of one of these names are on their way."""
        return bool(self._arriving) and any(name in self._arriving for name in names)

    def check_new(self, names: Sequence[int], scopes: Iterable[int]) -> None:
        """Raise unless these names can be given in these scopes."""
        for scope in scopes:
            self.scopes.check(scope)
        for name in names:
            if name <= 0:
                raise GraphError(f"{name} is no name; names are positive", reason="NAME_INVALID")
            if name in self._entries:
                raise GraphError(f"the name {name} is in use already", reason="NAME_REUSED", name=name)
        if len(set(names)) != len(names):
            raise GraphError("a command gives the same name to two results", reason="NAME_REUSED")
        self.check_room(len(names))

    def check_room(self, count: int) -> None:
        """Raise QuotaExceeded if so many names or scopes more are too many."""
        if len(self._entries) + len(self.scopes) + count > self._max_names + 1:  # the root scope is free
            raise QuotaExceeded(
                f"a session may hold {self._max_names:,} tensors and scopes; release some", reason="QUOTA_TENSORS"
            )

    # ---- giving and taking names

    def add(self, name: int, scope: int, stored: Stored) -> None:
        """Give a value a name; it counts as one holder."""
        self._enter(name, scope, Entry(stored))

    def fail(self, name: int, scope: int, record: m.ErrorRecord) -> None:
        """A name whose maker failed, if it can be given: using it gives the error again."""
        if name > 0 and name not in self._entries:
            self._enter(name, scope if scope in self.scopes else m.ROOT_SCOPE, Entry(error=record))

    def update(self, name: int, stored: Stored) -> None:
        """Replace a variable's value."""
        entry = self._entries[name]
        if entry.stored is not None:
            self.let_go(entry.stored)
        entry.stored = stored

    def drop(self, name: int) -> None:
        """Forget a name; unknown ones are ignored."""
        self._drop_early(name)
        if name in self._entries:
            self.scopes.drop(name)
            self._forget(name)

    def close_scope(self, scope: int, keep: Iterable[int]) -> None:
        """Free what lives in a scope and inside it; kept names move to its parent."""
        for name in self.scopes.close(scope, keep):
            self._forget(name)

    def clear(self) -> int:
        """Free everything; returns how many names there were."""
        count = len(self._entries)
        for name in list(self._entries):
            self._forget(name)
        for name in list(self._early):
            self._drop_early(name)
        self.scopes = ScopeTree()
        self._unwanted.clear()
        return count

    def let_go(self, stored: Stored) -> None:
        """One holder less of a value."""
        if stored.drop():
            self.freed.append(stored.value)

    def _enter(self, name: int, scope: int, entry: Entry) -> None:
        if self._early:
            self._drop_early(name)
        if self._unwanted:
            self._unwanted.pop(name, None)
        if entry.arriving is not None:
            self._arriving.add(name)
        self._entries[name] = entry
        self.scopes.add(name, scope)

    def _forget(self, name: int) -> None:
        entry = self._entries.pop(name)
        if entry.stored is not None:
            self.let_go(entry.stored)
        if entry.arriving is not None:
            self._arriving.discard(name)
            self._unwanted[name] = None
            if len(self._unwanted) > UNWANTED_NAMES:
                del self._unwanted[next(iter(self._unwanted))]

    # ---- variables after an error

    def hold_back(self, names: Iterable[int], record: m.ErrorRecord) -> None:
        """Refuse variables that a failed Run would have updated, until `resume`."""
        for name in names:
            entry = self._entries.get(name)
            if entry is not None and entry.error is None and entry.held_back is None:
                entry.held_back = record

    def resume(self, sequence: int) -> None:
        """The client knows of the error of ``sequence``: what it held back may be used again."""
        for entry in self._entries.values():
            if entry.held_back is not None and entry.held_back.sequence == sequence:
                entry.held_back = None

    # ---- uploads, which are not ordered with the commands that announce them

    def expect(self, name: int, scope: int, announced: Announced) -> m.ErrorRecord | None:
        """Announce an upload, which may have ended already; returns the error with which it did."""
        self.check_new((name,), (scope,))
        early = self._early.pop(name, None)
        if early is None:
            self.account.check(announced.type.nbytes)
        self._enter(name, scope, Entry(arriving=announced))
        if early is None:
            return None
        if early.stored is not None and early.type == announced.type:
            self._entries[name] = Entry(early.stored)
            self._arriving.discard(name)
            return None
        if early.stored is not None:
            self.let_go(early.stored)
        return self.upload_failed(name, early.type, early.error or to_record(_mismatch(early.type, announced.type)))

    def check_upload(self, name: int, type: Type) -> None:
        """Raise unless an upload of this name and type may begin."""
        if name <= 0:
            raise GraphError(f"{name} is no name; names are positive", reason="NAME_INVALID")
        entry = self._entries.get(name)
        if entry is not None and entry.arriving is not None and entry.arriving.type != type:
            raise _mismatch(type, entry.arriving.type)
        if entry is None and len(self._early) >= EARLY_UPLOADS:
            raise QuotaExceeded(f"{EARLY_UPLOADS} uploads came that no command announces", reason="QUOTA_TENSORS")
        self.account.check(type.nbytes)

    def uploaded(self, name: int, type: Type, value: Any, nbytes: int) -> m.ErrorRecord | None:
        """An upload is complete; returns an error if it was announced as another type.

        A second upload of the same name changes nothing.
        """
        entry = self._entries.get(name)
        if entry is not None and entry.arriving is not None:
            if entry.arriving.type != type:
                self.freed.append(value)
                return self.upload_failed(name, type, to_record(_mismatch(type, entry.arriving.type)))
            entry.stored, entry.arriving = Stored(value, nbytes, self.account), None
            self._arriving.discard(name)
        elif name in self._unwanted:
            del self._unwanted[name]
            self.freed.append(value)
        elif entry is None and name not in self._early:
            self._early[name] = Early(type, Stored(value, nbytes, self.account))
        else:
            self.freed.append(value)
        return None

    def upload_failed(self, name: int, type: Type, record: m.ErrorRecord) -> m.ErrorRecord | None:
        """An upload brought the wrong bytes, so nothing waits for it any longer.

        Returns the error as that of the command which announced it; None if nobody did yet, or wants it no more.
        """
        entry = self._entries.get(name)
        if entry is not None and entry.arriving is not None:
            entry.error, entry.arriving = replace(record, sequence=entry.arriving.sequence), None
            self._arriving.discard(name)
            return entry.error
        if name in self._unwanted:
            del self._unwanted[name]
        elif entry is None and name not in self._early and len(self._early) < EARLY_UPLOADS:
            self._early[name] = Early(type, error=record)
        return None

    def _drop_early(self, name: int) -> None:
        early = self._early.pop(name, None)
        if early is not None and early.stored is not None:
            self.let_go(early.stored)

    # ---- invariants

    def validate(self) -> None:
        """Assert what must always hold."""
        self.scopes.validate(self._entries)
        for entry in self._entries.values():
            assert sum(x is not None for x in (entry.stored, entry.arriving, entry.error)) == 1
            assert entry.held_back is None or entry.stored is not None or entry.arriving is not None
        assert self._arriving == {name for name, entry in self._entries.items() if entry.arriving is not None}
        assert not self._early.keys() & self._entries.keys()
        assert not self._unwanted.keys() & self._entries.keys()

    def bytes_of(self, names: Iterable[int]) -> int:
        """The bytes of some names' values, each value counted once."""
        values = {id(stored): stored.nbytes for name in names if (stored := self._entries[name].stored) is not None}
        return sum(values.values())

    def stored(self) -> Iterable[Stored]:
        """Every value that a name or an early upload holds, once for each holder."""
        yield from (entry.stored for entry in self._entries.values() if entry.stored is not None)
        yield from (early.stored for early in self._early.values() if early.stored is not None)


def _mismatch(found: Type, announced: Type) -> DataCorrupt:
    return DataCorrupt(f"the upload is {found}, announced was {announced}", reason="DATA_LENGTH")
