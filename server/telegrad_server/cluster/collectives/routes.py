"""Who sends what to whom in each collective: pure, and the same on every member.

One scheme serves all of them. Each span of the flat array has an owner. What is to be added goes straight to the owner
(*parts*), which adds in the order of the tree; what the owner has made goes straight to everyone (*results*). An
all-reduce is both halves and moves as many bytes over each link as a ring does, in two hops however many
members there are. Small arrays are summed by everyone, which saves the second half.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from telegrad_server.tree import Division, Node, spans

Span = tuple[int, int]
SMALL_BYTES = 1 << 14
"""Up to this much is summed by everyone, and sent without asking whether the other side has made the call."""
NOTHING: Span = (0, 0)


@dataclass(frozen=True)
class Route:
    """One member's view of a call."""

    what: str
    """The call in words, equal on all members that make the same call."""
    division: Division | None
    mine: Span
    """What this member adds up."""
    parts_to: Mapping[int, Span] = field(default_factory=dict[int, Span])
    parts_from: frozenset[int] = frozenset()
    results_to: tuple[int, ...] = ()
    results_from: Mapping[int, Span] = field(default_factory=dict[int, Span])
    is_eager: bool = False
    """Whether data goes out at once; otherwise when the receiver has said that it takes it. Only where nobody can get
    further ahead than one call of a tag, so that what a member must keep for later is bounded."""

    @property
    def digest(self) -> int:
        """What tells this call from another under the same tag."""
        return zlib.crc32(self.what.encode())

    @property
    def contributions(self) -> tuple[tuple[int, Node], ...]:
        """(rank, node) of all parts."""
        return self.division.contributions if self.division else ()


def _others(rank: int, size: int) -> list[int]:
    """The other ranks, beginning after one's own, so that not everyone sends to the same one first."""
    return [(rank + step) % size for step in range(1, size)]


def all_reduce(rank: int, *, division: Division, count: int, itemsize: int, dtype: str) -> Route:
    """Parts to the owners and results to all; or, for small arrays, parts to all."""
    size = len(division.blocks)
    what = f"all_reduce of {dtype}[{count}] over {division.blocks}"
    sources = {source for source, _ in division.contributions}
    is_small = count * itemsize <= SMALL_BYTES
    cut = [(0, count)] * size if is_small else spans(count, size)
    others = [r for r in _others(rank, size) if count]
    return Route(
        what,
        division,
        mine=cut[rank],
        parts_to={r: cut[r] for r in others if rank in sources},
        parts_from=frozenset(r for r in others if r in sources),
        results_to=() if is_small else tuple(others),
        results_from={} if is_small else {r: cut[r] for r in others},
        is_eager=is_small and len(sources) == size,
    )


def reduce_scatter(rank: int, *, division: Division, count: int, itemsize: int, dtype: str) -> Route:
    """Parts to the owners."""
    size = len(division.blocks)
    cut = spans(count, size)
    others = _others(rank, size)
    return Route(
        f"reduce_scatter of {dtype}[{count}] over {division.blocks}",
        division,
        mine=cut[rank],
        parts_to={r: cut[r] for r in others if _length(cut[r])},
        parts_from=frozenset(others if _length(cut[rank]) else ()),
        is_eager=count >= size and count * itemsize <= SMALL_BYTES,
    )


def all_gather(rank: int, *, size: int, count: int, itemsize: int, dtype: str) -> Route:
    """Results to all."""
    cut = spans(count, size)
    others = _others(rank, size)
    return Route(
        f"all_gather of {dtype}[{count}] over {size} ranks",
        None,
        mine=cut[rank],
        results_to=tuple(others if _length(cut[rank]) else ()),
        results_from={r: cut[r] for r in others if _length(cut[r])},
        is_eager=count >= size and count * itemsize <= SMALL_BYTES,
    )


def broadcast(rank: int, *, size: int, root: int, count: int, itemsize: int, dtype: str) -> Route:
    """A sum of one part: the root's pieces to the owners, which pass them on; or, for small arrays, to all."""
    division = Division(1, tuple((int(r > root), int(r >= root)) for r in range(size)))
    is_small = count * itemsize <= SMALL_BYTES
    cut = [(0, count)] * size if is_small else spans(count, size)
    others = [r for r in _others(rank, size) if count]
    return Route(
        f"broadcast of {dtype}[{count}] from rank {root}",
        division,
        mine=cut[rank],
        parts_to={r: cut[r] for r in others} if rank == root else {},
        parts_from=frozenset({root} - {rank} if count else ()),
        results_to=() if is_small else tuple(r for r in others if r != root),
        results_from={} if is_small or rank == root else {r: cut[r] for r in others},
    )


def send(rank: int, *, size: int, peer: int, count: int, dtype: str) -> Route:
    """A sum of one part, of which another owns all."""
    return Route(
        f"message of {dtype}[{count}]",
        _only(rank, size),
        mine=NOTHING,
        parts_to={peer: (0, count)} if count else {},
    )


def recv(rank: int, *, size: int, peer: int, count: int, dtype: str) -> Route:
    """The other end of a send."""
    return Route(
        f"message of {dtype}[{count}]",
        _only(peer, size),
        mine=(0, count),
        parts_from=frozenset({peer} if count else ()),
    )


def _only(rank: int, size: int) -> Division:
    return Division(1, tuple((int(r > rank), int(r >= rank)) for r in range(size)))


def _length(span: Span) -> int:
    return span[1] - span[0]
