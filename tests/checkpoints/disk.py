"""A disk in memory that remembers the order of what was done to it, and says what a crash could leave of it.

What a call changes is in doubt until it is synced: the bytes of a file by the file's sync, the names in a folder by the
folder's. A crash leaves everything that was synced before it, and of all else *any* part: each change of a name or none
of it; of each write all, the first half, as many zeros, or nothing. (So a file system may reorder as it likes. Only a
rename within a folder is at one stroke, which is what POSIX and every journal give.)
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from telegrad_server.checkpoints.files import Output

ALL_SUBSETS_OF = 9
"""Changes in doubt of which every subset is tried; of more, those that lack or have at most two."""

Nodes = dict[int, "bytes | dict[str, int]"]
Tree = tuple[tuple[str, "bytes | Tree"], ...]
"""What can be reached: names with a file's bytes or a folder's tree."""


@dataclass(frozen=True)
class Change:
    """Of a node: bytes written at an offset, or names that stand for other nodes, or for none."""

    node: int
    offset: int = 0
    data: bytes = b""
    names: tuple[tuple[str, int | None], ...] = ()

    def variants(self) -> tuple[Change, ...]:
        """What else a crash may leave of it, if it leaves anything."""
        if not self.data:
            return (self,)
        half = Change(self.node, self.offset, self.data[: len(self.data) // 2])
        return self, half, Change(self.node, self.offset, bytes(len(self.data)))


@dataclass(frozen=True)
class Sync:
    """Of a node: what was changed of it before lasts."""

    node: int


@dataclass
class Disk:
    """Files, by full paths, below ``/``."""

    nodes: Nodes = field(default_factory=lambda: {0: {}})
    log: list[Change | Sync] = field(default_factory=list[Change | Sync])

    # ---- Files

    def make_folder(self, path: Path) -> None:
        self._add(path, is_folder=True)

    def create(self, path: Path) -> Output:
        return _Open(self, self._add(path, is_folder=False))

    def sync_folder(self, path: Path) -> None:
        self.log.append(Sync(self._find(path)))

    def rename(self, old: Path, new: Path) -> None:
        assert old.parent == new.parent, "only within a folder"
        node = self._find(old)
        if new.name in self._folder(new.parent) and self.nodes[self._find(new)]:
            raise OSError(errno.ENOTEMPTY, "Directory not empty")
        self._do(Change(self._find(new.parent), names=((old.name, None), (new.name, node))))

    def remove(self, path: Path) -> None:
        assert isinstance(self.nodes[self._find(path)], bytes)
        self._do(Change(self._find(path.parent), names=((path.name, None),)))

    def remove_folder(self, path: Path) -> None:
        if self._folder(path):
            raise OSError(errno.ENOTEMPTY, "Directory not empty")
        self._do(Change(self._find(path.parent), names=((path.name, None),)))

    def names(self, path: Path) -> list[str]:
        return sorted(self._folder(path))

    def read(self, path: Path, most_bytes: int) -> memoryview:
        data = self.nodes[self._find(path)]
        assert isinstance(data, bytes)
        return memoryview(data)[:most_bytes]

    def room(self, path: Path) -> int:
        return 1 << 40

    # ---- crashes

    def tree(self) -> Tree:
        """All that can be reached."""
        return _tree(self.nodes, 0)

    def crashes(self, end: int) -> Iterator[Tree]:
        """What a crash may leave after the first ``end`` entries of the log. Some come more than once."""
        done = self.log[:end]
        synced = {entry.node: place for place, entry in enumerate(done) if isinstance(entry, Sync)}
        changes = [(place, entry) for place, entry in enumerate(done) if isinstance(entry, Change)]
        doubtful = [place for place, entry in changes if synced.get(entry.node, -1) < place]
        for chosen in _subsets(doubtful):
            kept = [entry.variants() if place in chosen else (entry,) for place, entry in changes
                    if place in chosen or place not in doubtful]  # fmt: skip
            for combination in itertools.product(*kept):
                nodes: Nodes = {n: {} if isinstance(content, dict) else b"" for n, content in self.nodes.items()}
                for change in combination:
                    _apply(nodes, change)
                yield _tree(nodes, 0)

    @classmethod
    def of(cls, tree: Tree) -> Disk:
        """A disk with this on it, all of it synced."""
        disk = cls()
        disk._fill(0, tree)
        return disk

    # ---- nodes

    def _fill(self, node: int, tree: Tree) -> None:
        folder = self.nodes[node]
        assert isinstance(folder, dict)
        for name, content in tree:
            folder[name] = new = len(self.nodes)
            self.nodes[new] = content if isinstance(content, bytes) else {}
            if not isinstance(content, bytes):
                self._fill(new, content)

    def _find(self, path: Path) -> int:
        node = 0
        for name in path.parts[1:]:
            folder = self.nodes[node]
            if not isinstance(folder, dict) or name not in folder:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
            node = folder[name]
        return node

    def _folder(self, path: Path) -> dict[str, int]:
        folder = self.nodes[self._find(path)]
        assert isinstance(folder, dict)
        return folder

    def _add(self, path: Path, *, is_folder: bool) -> int:
        if path.name in self._folder(path.parent):
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
        new = len(self.nodes)
        self.nodes[new] = {} if is_folder else b""
        self._do(Change(self._find(path.parent), names=((path.name, new),)))
        return new

    def _do(self, change: Change) -> None:
        self.log.append(change)
        _apply(self.nodes, change)


@dataclass
class _Open:
    disk: Disk
    node: int

    def write(self, data: bytes | memoryview) -> None:
        content = self.disk.nodes[self.node]
        self.disk._do(Change(self.node, len(content), bytes(data)))

    def sync(self) -> None:
        self.disk.log.append(Sync(self.node))

    def close(self) -> None:
        pass


def _apply(nodes: Nodes, change: Change) -> None:
    before = nodes[change.node]
    if isinstance(before, dict):
        for name, node in change.names:
            before.pop(name, None)
            if node is not None:
                before[name] = node
    else:
        start = before[: change.offset].ljust(change.offset, b"\0")
        nodes[change.node] = start + change.data + before[change.offset + len(change.data) :]


def _tree(nodes: Nodes, node: int) -> Tree:
    folder = nodes[node]
    assert isinstance(folder, dict)
    found: list[tuple[str, bytes | Tree]] = []
    for name, child in sorted(folder.items()):
        content = nodes[child]
        found.append((name, content if isinstance(content, bytes) else _tree(nodes, child)))
    return tuple(found)


def _subsets(places: list[int]) -> Iterator[frozenset[int]]:
    every = frozenset(places)
    for size in range(len(places) + 1):
        if len(places) <= ALL_SUBSETS_OF or size <= 2:
            yield from map(frozenset, itertools.combinations(places, size))
        elif size >= len(places) - 2:
            for lacking in itertools.combinations(places, len(places) - size):
                yield every - frozenset(lacking)
