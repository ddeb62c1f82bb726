"""One call under way on one member: what has arrived, what is added, what is still to come. No I/O and no clock.

Pieces are added as they arrive. A piece whose sibling in the tree is there already is added straight from where it
lies, in the link's memory; one that comes too early is kept. So the order of arrival decides when something is added,
never what is added to what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from telegrad_server.cluster.collectives.frames import PART, PIECE_BYTES, RESULT, Frame, Header, LinkBroken, Owner
from telegrad_server.cluster.collectives.routes import Route, Span
from telegrad_server.executors.base import Array
from telegrad_server.tree import Node

Key = tuple[int, int, int, int]
"""Space, peer (-1 for everyone's calls), tag, sequence."""
NOBODY: Node = (0, 0)
"""The root where nothing is added."""
Post = Callable[[int, Frame], None]


class Spare:
    """Buffers of one piece each that are used again; as much as was ever needed at once, up to a limit."""

    def __init__(self, *, limit: int) -> None:
        self._free: list[Array] = []
        self._limit = limit

    def take(self) -> Array:
        """A buffer of PIECE_BYTES bytes."""
        return self._free.pop() if self._free else np.empty(PIECE_BYTES, np.uint8)

    def give(self, buffer: Array) -> None:
        """Take a buffer back."""
        if len(self._free) < self._limit:
            self._free.append(buffer)


class Exchange(Owner):
    """What one member does in one call."""

    def __init__(
        self,
        key: Key,
        route: Route,
        *,
        parts: Mapping[Node, Array],
        out: Array,
        out_start: int,
        spare: Spare,
    ) -> None:
        """``parts`` are flat and whole; ``out`` is flat and begins with the element ``out_start``."""
        self.key = key
        self.route = route
        self.peers = set(route.parts_from) | set(route.results_from)
        """Those from whom something comes."""
        self._parts = parts
        self._out = out
        self._out_start = out_start
        self._spare = spare
        division = route.division
        self._root = (0, division.replicas) if division else NOBODY
        self._add_of = division.add_of if division else {}
        self._sum_dtype = sum_dtype(out.dtype)
        self._step = PIECE_BYTES // self._sum_dtype.itemsize
        self._held: dict[tuple[Node, int], tuple[Array, Array]] = {}
        self._is_made_at_once = self._root == NOBODY or self._root in parts
        awaited: dict[int, int] = {}
        for source, _ in route.contributions:
            if source in route.parts_from:
                awaited[source] = awaited.get(source, 0) + _length(route.mine)
        self._parts_awaited = awaited
        self._results_awaited = {r: _length(span) for r, span in route.results_from.items() if _length(span)}
        self._to_make = _length(route.mine)
        pieces = {r: len(self._cut(span)) * len(parts) for r, span in route.parts_to.items()}
        self.unsent = sum(pieces.values()) + len(self._cut(route.mine)) * len(route.results_to)

    @property
    def is_done(self) -> bool:
        """Whether the result is whole and nothing of this call is still to be sent."""
        return not (self._to_make or self._results_awaited or self.unsent)

    @property
    def missing(self) -> list[int]:
        """From which ranks something is still to come; those first that keep the others waiting."""
        return sorted(self._parts_awaited) or sorted(self._results_awaited)

    @property
    def remaining(self) -> int:
        """Becomes less with everything that moves."""
        return self.unsent + self._to_make + sum(self._parts_awaited.values()) + sum(self._results_awaited.values())

    def needs(self, peer: int) -> bool:
        """Whether a member must still send or take something."""
        is_target = peer in self.route.parts_to or peer in self.route.results_to
        return peer in self._parts_awaited or peer in self._results_awaited or bool(self.unsent and is_target)

    def outgoing(self, peer: int) -> Iterator[Frame]:
        """This member's parts for one peer."""
        nodes = {node: index for index, (_, node) in enumerate(self.route.contributions)}
        for start, stop in self._cut(self.route.parts_to.get(peer, (0, 0))):
            for node, part in self._parts.items():
                payload = part[start:stop].view(np.uint8)
                if self.route.is_eager:
                    payload = payload.copy()  # out may be this part, and it may be written before this is sent
                yield Frame(self._header(PART, nodes[node], start), payload, self)

    def begin(self, post: Post) -> None:
        """Make what needs nobody else."""
        if not self._is_made_at_once:
            return
        for start, stop in self._cut(self.route.mine):
            if self._root != NOBODY:
                value, target = self._parts[self._root][start:stop], self._target(start, stop)
                if value.ctypes.data != target.ctypes.data:
                    target[:] = value
            self._made(start, stop, post)

    def place(self, peer: int, header: Header) -> Array | None:
        """Where the payload of a result belongs, as bytes; None for a part."""
        if header.kind != RESULT:
            return None
        first, last = self.route.results_from.get(peer, (0, 0))
        stop = header.start + header.length // self._out.itemsize
        if not (first <= header.start <= stop <= last) or header.length % self._out.itemsize:
            raise LinkBroken(f"it sent a result that was not asked for ({header})")
        return self._target(header.start, stop).view(np.uint8)

    def accept(self, peer: int, header: Header, payload: Array, *, is_placed: bool, post: Post) -> None:
        """Take a piece. ``payload`` is used again by the link afterwards."""
        if header.kind == RESULT:
            if not is_placed:
                place = self.place(peer, header)
                assert place is not None
                place[:] = payload
            _take(self._results_awaited, peer, header.length // self._out.itemsize)
            return
        known = self.route.contributions
        source, node = known[header.part] if header.part < len(known) else (-1, (0, 1))
        dtype = self.dtype_of(node)
        stop = header.start + header.length // dtype.itemsize
        is_within = self.route.mine[0] <= header.start < stop <= self.route.mine[1]
        if source != peer or not is_within or header.length % dtype.itemsize:
            raise LinkBroken(f"it sent a part that was not asked for ({header})")
        value = payload.view(dtype)
        _take(self._parts_awaited, peer, value.size)
        self._add(node, header.start, value, post)

    def dtype_of(self, node: Node) -> np.dtype[np.generic]:
        """The dtype of a node's part: sums of 16-bit floats are not rounded before the end."""
        return self._out.dtype if node[1] - node[0] == 1 else self._sum_dtype

    def _add(self, node: Node, start: int, value: Array, post: Post) -> None:
        stop = start + value.size
        buffer: Array | None = None
        while node != self._root:
            add = self._add_of[node]
            sibling = add.right if node == add.left else add.left
            kept: Array | None = None
            if sibling in self._parts:
                other = self._parts[sibling][start:stop]
            elif (sibling, start) in self._held:
                other, kept = self._held.pop((sibling, start))
            else:
                if buffer is None:
                    fresh = self._spare.take()
                    copy = fresh[: value.nbytes].view(value.dtype)
                    copy[:] = value
                    value, buffer = copy, fresh
                self._held[node, start] = (value, buffer)
                return
            left, right = (value, other) if node == add.left else (other, value)
            if value.dtype != self._sum_dtype or other.dtype != self._sum_dtype:
                left, right = left.astype(self._sum_dtype), right.astype(self._sum_dtype)
            if add.out == self._root and self._out.dtype == self._sum_dtype:
                value = np.add(left, right, out=self._target(start, stop))
            else:
                target = buffer if buffer is not None else kept if kept is not None else self._spare.take()
                value = np.add(left, right, out=target[: left.nbytes].view(self._sum_dtype))
                for used in (buffer, kept):
                    if used is not None and used is not target:
                        self._spare.give(used)
                buffer, kept = target, None
            if kept is not None:
                self._spare.give(kept)
            node = add.out
        target = self._target(start, stop)
        if value.ctypes.data != target.ctypes.data:
            target[:] = value
        if buffer is not None:
            self._spare.give(buffer)
        self._made(start, stop, post)

    def _made(self, start: int, stop: int, post: Post) -> None:
        self._to_make -= stop - start
        payload = self._target(start, stop).view(np.uint8)
        for peer in self.route.results_to:
            post(peer, Frame(self._header(RESULT, 0, start), payload, self))

    def _target(self, start: int, stop: int) -> Array:
        return self._out[start - self._out_start : stop - self._out_start]

    def _header(self, kind: int, part: int, start: int) -> Header:
        space, _, tag, sequence = self.key
        return Header(kind, space, part, self.route.digest, tag, sequence, start)

    def _cut(self, span: Span) -> list[Span]:
        return [(at, min(at + self._step, span[1])) for at in range(span[0], span[1], self._step)]


def sum_dtype(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """The dtype in which values are added: float32 for 16-bit floats, otherwise their own."""
    is_16_bit_float = dtype.itemsize == 2 and dtype.kind not in "iu"
    return np.dtype(np.float32) if is_16_bit_float else dtype


def _take(awaited: dict[int, int], peer: int, count: int) -> None:
    left = awaited.get(peer, 0) - count
    if left < 0:
        raise LinkBroken("it sent more than was asked for")
    if left:
        awaited[peer] = left
    else:
        del awaited[peer]


def _length(span: Span) -> int:
    return span[1] - span[0]
