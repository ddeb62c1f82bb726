"""A session's crew: its home worker and the peers that run its replicas with it.

The home commands a peer as a client commands a server: it has a session there, with names of its own. What is the
same on all replicas is mirrored: sent once, and made anew by every member in the same way from then on. The home alone
is the truth: nothing is committed before its own run, with all its sums, is done. When a member fails, the crew is
dismissed, another one signs on, everything is mirrored again, and the run is repeated: with the same bits, since they
depend on the number of logical replicas and not on who carries them.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

from telegrad.errors import ConnectionFailed, StateLost, TelegradError, TimedOut, WorkerLost
from telegrad.ir.graph import Replication
from telegrad.ir.types import Type
from telegrad.wire import messages as m
from telegrad.wire.status import to_exception

from telegrad_server.cluster.groups import Groups
from telegrad_server.cluster.lines import Candidate, PeerLine, Recruiter
from telegrad_server.compiler.replicas import Share
from telegrad_server.executors import Executor
from telegrad_server.executors.communicator import Communicator
from telegrad_server.executors.company import Company
from telegrad_server.functions import Functions, Known
from telegrad_server.spread import Spread, gathered, whole
from telegrad_server.tree import Division, spans

GROUP_SECONDS = 120.0
"""So long members wait for each other in a run; that one of them has died shows much sooner."""

VERDICT_SECONDS = 2.0
"""After a group broke, so long the home waits to hear whether a peer's op failed."""

GATHER_SECONDS = 10.0
"""So long the home waits for a peer's span of what is divided."""

RECRUIT_SECONDS = 10.0
"""A crew that is smaller than wanted looks for more after so long."""


@dataclass(slots=True, eq=False)
class _Group:
    """A crew at work: its peers, this worker's end of their group, and what they hold."""

    name: str
    peers: list[PeerLine]
    communicator: Communicator
    wanted: int
    step: int = 0
    next_name: int = 0
    mirrored: dict[int, tuple[int, ref[Any]]] = field(default_factory=dict[int, tuple[int, "ref[Any]"]])
    """For each name at home the peers' name and the value that they have under it."""
    spread: dict[int, ref[Spread]] = field(default_factory=dict[int, "ref[Spread]"])
    """What is divided over the members, by the peers' name for their spans."""


class Crew:
    """Runs a session's data-parallel functions on several workers. One run at a time."""

    def __init__(
        self,
        session_id: str,
        tenant: str,
        *,
        groups: Groups,
        recruiter: Recruiter,
        functions: Functions,
        executor: Executor,
        strategy: str = "pack",
    ) -> None:
        self._session_id = session_id
        self._tenant = tenant
        self._groups = groups
        self._recruiter = recruiter
        self._functions = functions
        self._executor = executor
        self._strategy = strategy
        self._group: _Group | None = None
        self._generation = 0
        self._looked_at, self._looked_for = 0.0, 0
        self._lock = threading.Lock()
        self._verdict: m.ErrorRecord | None = None
        self._changed = threading.Condition(self._lock)
        self._lost: dict[str, TelegradError] = {}
        self._building = ""
        self._bytes: dict[bytes, bytes] = {}
        self._waiting: Callable[[], AbstractContextManager[None]] = nullcontext

    @property
    def workers(self) -> list[str]:
        """The workers that carry replicas now, the home first."""
        group = self._group
        peers = [] if group is None else [peer.candidate.worker for peer in group.peers]
        return [self._recruiter.myself().worker, *peers]

    def run(
        self,
        known: Known,
        run: m.Run,
        operands: Sequence[Any],
        *,
        waiting: Callable[[], AbstractContextManager[None]],
    ) -> list[Any]:
        """The results of a data-parallel function, of which this worker carries the first replicas.

        ``operands`` are those of the whole call. ``waiting`` surrounds the times in which this worker computes nothing.
        Raises what a member raised, by name of the op as ever.
        """
        how = self._functions.replication_of(known)
        self._waiting = waiting
        without: list[str] = []
        while True:
            group = self._group_for(how, without, waiting)
            if group is None:
                plan = self._functions.plan_of(known)
                return self._executor.run(plan, gathered(plan, operands))
            try:
                return self._run_in(group, how, known, run, operands, waiting)
            except (WorkerLost, ConnectionFailed, TimedOut) as error:
                verdict = self._wait_for_verdict(waiting)
                self._bring_home()
                self._dismiss()
                if verdict is not None:
                    raise _blamed(verdict) from error
                without += [name for name in self._lost if name not in without]
                logging.info("a run begins again with other workers: %s", error.message)
            except BaseException:
                self._bring_home()
                self._dismiss()
                raise

    # ---- who is in it

    def _group_for(
        self, how: Replication, without: Sequence[str], waiting: Callable[[], AbstractContextManager[None]]
    ) -> _Group | None:
        """The group that carries the replicas, None if this worker carries them alone."""
        if how.taking == 1:
            return None
        group = self._group
        now = time.monotonic()
        if group is not None and len(group.peers) + 1 > how.taking:
            self._bring_home()
            self._dismiss()  # a function with fewer replicas than members
            self._looked_for, group = 0, None  # there were enough
        is_short = group is None or len(group.peers) + 1 < how.taking
        is_due = how.taking > self._looked_for or now - self._looked_at > RECRUIT_SECONDS
        if is_short and (without or is_due or self._lost):
            self._looked_at, self._looked_for = now, how.taking
            lost = list(self._lost)
            self._lost.clear()
            with waiting():
                found = self._recruiter.find(how.taking - 1, strategy=self._strategy, without=[*without, *lost])
            if group is None or len(found) > len(group.peers):
                self._bring_home()
                self._dismiss()
                with waiting():
                    group = self._build(found) if found else None
        return group

    def _build(self, candidates: Sequence[Candidate]) -> _Group | None:
        """A group with as many of the candidates as answer."""
        peers: list[PeerLine] = []
        for candidate in candidates:
            try:
                peers.append(self._open(candidate))
            except (ConnectionFailed, TimedOut) as error:
                logging.info("worker %s cannot be a peer: %s", candidate.worker, error.message)
        if not peers:
            return None
        self._generation += 1
        name, key = secrets.token_hex(8), secrets.token_bytes(32)
        everyone = [self._recruiter.myself(), *[peer.candidate for peer in peers]]
        members = tuple(m.GroupMember(c.worker, c.collectives_address, c.machine, c.device) for c in everyone)

        def joining(rank: int) -> m.JoinGroup:
            return m.JoinGroup(name, self._generation, key, rank, members, GROUP_SECONDS)

        self._building = name
        for rank, peer in enumerate(peers, 1):
            peer.send(joining(rank))
        try:
            if self._lost:
                raise WorkerLost("a peer was lost before the group was built")
            communicator = self._groups.join(self._session_id, joining(0))
        except WorkerLost as error:
            logging.info("no group came together: %s", error.message)
            for peer in peers:
                peer.close()
            return None
        finally:
            self._building = ""
        self._group = _Group(name, peers, communicator, len(candidates))
        if self._lost:  # one of them, before there was anything to break
            communicator.abort("a member was lost while the group was built")
        return self._group

    def _open(self, candidate: Candidate) -> PeerLine:
        return self._recruiter.open(
            candidate,
            tenant=self._tenant,
            supply=self._bytes.__getitem__,
            failed=self._peer_failed,
            lost=lambda error: self._peer_lost(candidate.worker, error),
        )

    def _peer_failed(self, record: m.ErrorRecord) -> None:
        with self._changed:
            if self._verdict is None and record.reason != "WORKER_LOST":
                self._verdict = record
            self._changed.notify_all()
        self._break(record.message)

    def _peer_lost(self, worker: str, error: TelegradError) -> None:
        with self._changed:
            self._lost[worker] = error
            self._changed.notify_all()
        self._break(f"worker {worker} is lost: {error.message}")

    def _break(self, why: str) -> None:
        group = self._group
        building = self._building
        if group is not None:
            group.communicator.abort(why)
        elif building:
            self._groups.give_up(building)

    def _wait_for_verdict(self, waiting: Callable[[], AbstractContextManager[None]]) -> m.ErrorRecord | None:
        """What a peer's op failed with, if that is what broke the group."""
        with waiting(), self._changed:
            self._changed.wait_for(lambda: self._verdict is not None or bool(self._lost), VERDICT_SECONDS)
            verdict, self._verdict = self._verdict, None
            return verdict

    def _dismiss(self) -> None:
        """Let everyone go."""
        group, self._group = self._group, None
        if group is not None:
            group.communicator.close()
            for peer in group.peers:
                peer.close()

    def close(self) -> None:
        """The session is over."""
        self._dismiss()

    # ---- a run

    def _run_in(
        self,
        group: _Group,
        how: Replication,
        known: Known,
        run: m.Run,
        operands: Sequence[Any],
        waiting: Callable[[], AbstractContextManager[None]],
    ) -> list[Any]:
        assert known.data is not None
        self._bytes[run.function] = known.data
        self._verdict = None
        group.step += 1
        division = Division.even(how.taking, size=len(group.peers) + 1)
        self._forget_what_is_gone(group)
        spread = self._spread_operands(group, known, division, run, operands)
        mirrors = {
            i: self._mirror(group, run.inputs[i], whole(operands[i]))
            for i in range(len(operands))
            if i not in how.split_inputs and i not in spread and run.inputs[i]
        }
        updated = {j: i for i, j in self._functions.signature_of(known).updates if i in spread}
        names = {j: self._new_name(group) for j in updated}  # of what comes of them
        rows: list[dict[int, int]] = []  # for each peer the names of its rows of results
        for rank, peer in enumerate(group.peers, 1):
            share = Share(*division.blocks[rank])
            given = mirrors | {i: self._alias(group, peer, value.name) for i, value in spread.items()}
            rows.append(self._command(group, peer, how.rows_of(*share), how, run, operands, given, names))
            if spread:
                peer.send(m.Release(tuple([given[i] for i in spread])))
        plan = self._functions.share_of(known, division, 0)
        company = Company(group.communicator, division, step=group.step, waiting=waiting)
        start, stop = how.rows_of(*division.blocks[0])
        own: list[Any] = []
        for i, x in enumerate(operands):
            is_split = i in how.split_inputs
            own.append(self._executor.rows(x, start, stop) if is_split else spread[i].own if i in spread else whole(x))
        values = self._executor.run(plan, own, company=company.present())
        for j in {j for names in rows for j in names}:
            values[j] = self._whole(group, values[j], j, rows, waiting)
        for j, i in updated.items():
            values[j] = self._spread(group, spread[i].type, values[j], names[j], run.inputs[i])
        for i, j in plan.updates:
            if i not in spread:
                group.mirrored[run.inputs[i]] = mirrors[i], ref(values[j])
        return values

    # ---- what is divided

    def _spread_operands(
        self, group: _Group, known: Known, division: Division, run: m.Run, operands: Sequence[Any]
    ) -> dict[int, Spread]:
        """The operands of which each member holds its span, by number."""
        how = self._functions.replication_of(known)
        if not how.shards:
            return {}
        size = len(division.blocks)
        types = self._functions.signature_of(known).input_types
        plan = self._functions.share_of(known, division, 0)
        found: dict[int, Spread] = {}
        for i, (type, own) in enumerate(zip(types, plan.input_types, strict=True)):
            if i in how.split_inputs or own == type:
                continue
            value = operands[i]
            if isinstance(value, Spread) and value.name in group.spread and value.own is not None:
                found[i] = value
                continue
            flat = whole(value).reshape(-1)
            name = self._new_name(group)
            cut = spans(type.size, size)
            for peer, (first, last) in zip(group.peers, cut[1:], strict=True):
                piece = self._executor.to_host(self._executor.rows(flat, first, last))
                self._send(peer, name, Type((last - first,), type.dtype), piece)
            copy = self._executor.joined([self._executor.rows(flat, *cut[0])])
            found[i] = self._spread(group, type, copy, name, run.inputs[i])
        return found

    def _spread(self, group: _Group, type: Type, own: Any, name: int, variable: int) -> Spread:
        value = Spread(type, own, name, variable, lambda value: self._gathered(group, value))
        group.spread[name] = ref(value, lambda _: self._spread_gone(group, name))
        return value

    def _spread_gone(self, group: _Group, name: int) -> None:
        """Nobody holds it any more; on whatever thread that is."""
        group.spread.pop(name, None)
        self._release(group, name)

    def _alias(self, group: _Group, peer: PeerLine, name: int) -> int:
        """A name for a run to update: the peer keeps the former value until the home lets go of it."""
        mine = self._new_name(group)
        peer.send(m.Alias(mine, name))
        return mine

    def _gathered(self, group: _Group, value: Spread) -> Any:
        """The whole of what is divided. StateLost if a member is gone that held a part."""
        pieces = [peer.fetch(value.name) for peer in group.peers]
        return self._joined(group, value, pieces)

    def _joined(self, group: _Group, value: Spread, pieces: Sequence[Future[bytes]]) -> Any:
        arrays = [value.own]
        for peer, piece in zip(group.peers, pieces, strict=True):
            try:
                with self._waiting():
                    data = piece.result(GATHER_SECONDS)
            except (TelegradError, FutureTimeout, CancelledError) as error:
                worker = peer.candidate.worker
                lost = StateLost(
                    f"a part of {value.type}, state that shard_optimizer divides over workers, was lost with"
                    f" worker {worker}; load the optimizer's state from a checkpoint, or make a new optimizer",
                    worker=worker,
                    tensors=str(value.variable),
                )
                value.lose(lost)
                raise lost from error
            itemsize = value.type.dtype.itemsize
            arrays.append(self._executor.from_host(Type((len(data) // itemsize,), value.type.dtype), data))
        return self._executor.joined(arrays).reshape(value.type.shape)

    def _bring_home(self) -> None:
        """Gather what is divided, as far as its holders answer, before the peers go."""
        group = self._group
        if group is None:
            return
        held = [value() for value in list(group.spread.values())]
        values = [value for value in held if value is not None and value.own is not None]
        under_way = [(value, [peer.fetch(value.name) for peer in group.peers]) for value in values]
        for value, pieces in under_way:
            with suppress(StateLost):  # who reads it hears of it
                value.settle(self._joined(group, value, pieces))

    def _command(
        self,
        group: _Group,
        peer: PeerLine,
        span: tuple[int, int],
        how: Replication,
        run: m.Run,
        operands: Sequence[Any],
        mirrors: dict[int, int],
        names: dict[int, int],
    ) -> dict[int, int]:
        """Let a peer run its share of the rows. Returns its names for results with rows, by number.

        ``mirrors`` are its names for inputs, ``names`` those that it shall give to results.
        """
        inputs: list[int] = []
        immediates: list[bytes] = []
        passing: list[int] = []
        for i, value in enumerate(operands):
            if i in mirrors:
                inputs.append(mirrors[i])
                continue
            data, type = self._executor.to_host(value), self._executor.type_of(value)
            if i in how.split_inputs:
                row_bytes = len(data) // how.rows
                data = data[span[0] * row_bytes : span[1] * row_bytes]
                type = Type((span[1] - span[0], *type.shape[1:]), type.dtype)
            if len(data) <= m.INLINE_BYTES:
                inputs.append(0)
                immediates.append(bytes(data))
            else:
                name = self._new_name(group)
                self._send(peer, name, type, data)
                inputs.append(name)
                passing.append(name)
        wanted = {j: self._new_name(group) for j in how.row_outputs if run.outputs[j]}
        named = wanted | names
        outputs = tuple([named.get(j, 0) for j in range(len(run.outputs))])
        command = m.Run(run.function, tuple(inputs), outputs, b"".join(immediates), group=group.name, step=group.step)
        peer.send(command)
        if passing:
            peer.send(m.Release(tuple(passing)))
        return wanted

    def _whole(
        self,
        group: _Group,
        own: Any,
        number: int,
        rows: Sequence[dict[int, int]],
        waiting: Callable[[], AbstractContextManager[None]],
    ) -> Any:
        """A result with the rows of all members."""
        type = self._executor.type_of(own)
        row_bytes = self._executor.nbytes(own) // max(type.shape[0], 1)
        futures = [peer.fetch(names[number]) for peer, names in zip(group.peers, rows, strict=True)]
        pieces = [own]
        with waiting():
            try:
                found = [future.result(GROUP_SECONDS) for future in futures]
            except TimeoutError:
                raise WorkerLost(f"the rows of a peer did not come within {GROUP_SECONDS:g} s") from None
        for data in found:
            piece = Type((len(data) // max(row_bytes, 1), *type.shape[1:]), type.dtype)
            pieces.append(self._executor.from_host(piece, data))
        for peer, names in zip(group.peers, rows, strict=True):
            peer.send(m.Release((names[number],)))
        return self._executor.joined(pieces)

    # ---- what the peers hold

    def _mirror(self, group: _Group, name: int, value: Any) -> int:
        """The peers' name for a value of the home's, which they are sent if they have not got it."""
        known = group.mirrored.get(name)
        if known is not None:
            if known[1]() is value:
                return known[0]
            self._release(group, known[0])
        mine = self._new_name(group)
        data, type = self._executor.to_host(value), self._executor.type_of(value)
        for peer in group.peers:
            self._send(peer, mine, type, data)
        group.mirrored[name] = mine, ref(value)
        return mine

    def _send(self, peer: PeerLine, name: int, type: Type, data: memoryview) -> None:
        if len(data) <= m.INLINE_BYTES:
            peer.send(m.Put(name, type, bytes(data)))
        else:
            peer.send(m.Expect(name, type))
            peer.upload(name, type, data)

    def _forget_what_is_gone(self, group: _Group) -> None:
        for name in [name for name, (_, held) in group.mirrored.items() if held() is None]:
            self._release(group, group.mirrored.pop(name)[0])

    def _release(self, group: _Group, name: int) -> None:
        for peer in group.peers:
            peer.send(m.Release((name,)))

    def _new_name(self, group: _Group) -> int:
        group.next_name += 1
        return group.next_name


def _blamed(verdict: m.ErrorRecord) -> TelegradError:
    """A peer's error as if the op had failed here."""
    error = to_exception(verdict)
    if verdict.node >= 0:
        error.details |= {"node": verdict.node, "is_backward": verdict.is_backward}
    return error
