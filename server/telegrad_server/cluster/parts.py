"""Runs a function whose parts are on several workers: the home commands, the tensors go from worker to worker.

The home has a session on each of the other workers. A run sends all parts at once; a part waits, by name, for what it
needs, and takes it from the worker that made it. On the others a run only ever makes new names. So nothing is changed
until every worker has said that all its parts are done: then the home's names begin to mean the new values, and what
nobody holds any more is freed where it is. After a failure the new names are freed, and everything is as it was.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from telegrad.errors import ConnectionFailed, NotFound, TelegradError, WorkerLost
from telegrad.wire import messages as m
from telegrad.wire.codec import encode_function, function_id, nodes_in_order

from telegrad_server.cluster.lines import Candidate, Recruiter
from telegrad_server.cluster.step import Peer, Ready, Step, Waiting
from telegrad_server.compiler.parts import Cut, Part
from telegrad_server.compiler.places import HOME
from telegrad_server.elsewhere import Elsewhere
from telegrad_server.executors import Executor
from telegrad_server.functions import Functions, Known
from telegrad_server.offers import Offered, Offers

MOST_WORKERS = 1024


class Parts:
    """A session's parts on other workers. One run at a time."""

    def __init__(
        self,
        session_id: str,
        tenant: str,
        *,
        recruiter: Recruiter,
        functions: Functions,
        executor: Executor,
        offers: Offers,
    ) -> None:
        self._session_id = session_id
        self._tenant = tenant
        self._recruiter = recruiter
        self._functions = functions
        self.executor = executor
        self._offers = offers
        self._candidates: list[Candidate | None] = []  # of worker 1, 2, …; None where one was lost
        self._peers: dict[int, Peer] = {}
        self._ready: WeakKeyDictionary[Cut, list[Ready]] = WeakKeyDictionary()
        self._bytes: dict[bytes, bytes] = {}
        self._step = 0
        self._is_closed = False
        self._lock = threading.Lock()

    @property
    def workers(self) -> list[str]:
        """The names of the session's workers as far as they are known, the home first; empty for one that is lost."""
        return [self._recruiter.myself().worker, *["" if c is None else c.worker for c in self._candidates]]

    # ---- runs

    def run(
        self, known: Known, run: m.Run, operands: Sequence[Any], *, brought: Sequence[bool], waiting: Waiting
    ) -> list[Any]:
        """The results of a function: arrays, and `Elsewhere` for those that stay on other workers.

        ``brought`` says which operands came with the call; they are wherever they are used. Raises NotFound
        (WORKER_UNKNOWN) if there are not so many workers, WorkerLost with the names of tensors that are lost.
        """
        places = tuple(
            [
                None if is_brought else x.peer.worker if isinstance(x, Elsewhere) else HOME
                for x, is_brought in zip(operands, brought, strict=True)
            ]
        )
        cut = self._functions.parts_of(known, places)
        needed = {i for part in cut.parts for i in part.inputs} | {i for i, _ in cut.outputs}
        self._check_there(run, operands, needed)
        peers = self._peers_of(cut, waiting)
        self._step += 1
        step = Step(self, cut, self._prepared(cut), operands, brought, peers, self._step, waiting)
        try:
            return step.run()
        except WorkerLost as error:
            self._explain(error, run, operands)
            raise

    def fetch(self, value: Elsewhere, *, waiting: Waiting) -> bytes:
        """The bytes of a value that lives on another worker."""
        if value.copy is not None:
            return value.copy
        peer = value.peer
        assert isinstance(peer, Peer)
        if peer.lost is None:
            try:
                with waiting():
                    return peer.line.fetch(value.name).result()
            except WorkerLost:
                pass
        raise self._loss([(0, value)], peer)

    def close(self) -> None:
        """The session is over."""
        with self._lock:
            self._is_closed = True
            peers = list(self._peers.values())
        for peer in peers:
            peer.line.close()

    # ---- what is lost

    def _check_there(self, run: m.Run, operands: Sequence[Any], needed: set[int]) -> None:
        lost = [
            (run.inputs[i], x)
            for i, x in enumerate(operands)
            if i in needed and isinstance(x, Elsewhere) and x.peer.lost is not None
        ]
        if lost:
            raise self._loss(lost, lost[0][1].peer)

    def _explain(self, error: WorkerLost, run: m.Run, operands: Sequence[Any]) -> None:
        """Let the error say which of the run's tensors went with the worker."""
        lost = [
            (run.inputs[i], x) for i, x in enumerate(operands) if isinstance(x, Elsewhere) and x.peer.lost is not None
        ]
        if lost:
            found = self._loss(lost, lost[0][1].peer)
            error.message, error.args = found.message, found.args
            error.details |= found.details

    def _loss(self, lost: Sequence[tuple[int, Elsewhere]], peer: Any) -> WorkerLost:
        first = ", ".join(str(x.type) for _, x in lost[:4]) + (f" and {len(lost) - 4} more" if len(lost) > 4 else "")
        why = peer.lost.message if peer.lost is not None else "it does not answer"
        return WorkerLost(
            f"worker:{peer.worker} ({peer.name}) is lost ({why}), and with it what lived there: {first}; assign"
            " what is lost anew, everything else is as it was",
            worker=peer.name,
            tensors=",".join(str(name) for name, _ in lost if name),
        )

    # ---- workers

    def _peers_of(self, cut: Cut, waiting: Waiting) -> dict[int, Peer]:
        wanted = sorted(cut.workers - {HOME})
        found = {worker: peer for worker in wanted if (peer := self._peers.get(worker)) and peer.lost is None}
        if len(found) < len(wanted):
            with waiting():
                found = {worker: self._peer(worker) for worker in wanted}
        return found

    def _peer(self, worker: int) -> Peer:
        """The session on a worker, opened if need be."""
        known = self._peers.get(worker)
        if known is not None and known.lost is None:
            return known
        silent: list[str] = []
        while True:
            candidate = self._candidate(worker, silent)
            try:
                return self._open(worker, candidate)
            except ConnectionFailed as error:  # it is not known yet that it is gone
                logging.info("worker %s cannot take parts: %s", candidate.worker, error.message)
                silent.append(candidate.worker)
                self._candidates[worker - 1] = None

    def _open(self, worker: int, candidate: Candidate) -> Peer:
        found: list[Peer] = []

        lost_already: list[TelegradError] = []

        def failed(record: m.ErrorRecord) -> None:
            for peer in found:
                peer.failures.append(record)

        def lost(error: TelegradError) -> None:
            lost_already.append(error)
            for peer in found:
                self._lose(peer, error)

        line = self._recruiter.open(
            candidate, tenant=self._tenant, supply=self._bytes.__getitem__, failed=failed, lost=lost
        )
        peer = Peer(worker, line)
        found.append(peer)
        with self._lock:
            self._peers[worker] = peer
            if self._is_closed:
                line.close()
        if lost_already:  # while it was made
            self._lose(peer, lost_already[0])
        return peer

    def _lose(self, peer: Peer, error: TelegradError) -> None:
        logging.info("worker %s is lost to a session: %s", peer.name, error.message)
        peer.lost = error
        if self._peers.get(peer.worker) is peer:
            self._candidates[peer.worker - 1] = None

    def _candidate(self, worker: int, without: Sequence[str]) -> Candidate:
        candidates = self._candidates
        if worker > len(candidates) or candidates[worker - 1] is None:
            for i, known in enumerate(candidates):  # those that are not used yet may take another's place
                peer = self._peers.get(i + 1)
                candidates[i] = known if peer is not None and peer.lost is None else None
            taken = [c.worker for c in candidates if c is not None]
            found = self._recruiter.find(MOST_WORKERS, strategy="pack", without=[*taken, *without])
            for i, known in enumerate(candidates):
                if known is None and found:
                    candidates[i] = found.pop(0)
            candidates += found
        chosen = candidates[worker - 1] if worker <= len(candidates) else None
        if chosen is None:
            there = [0, *[i for i, c in enumerate(candidates, 1) if c is not None]]
            names = ", ".join(f"worker:{i}" for i in there)
            raise NotFound(
                f"there is no worker:{worker}; this session has {len(there)}: {names}, of which worker:0 is its home",
                reason="WORKER_UNKNOWN",
            )
        return chosen

    # ---- for a step

    def _prepared(self, cut: Cut) -> list[Ready]:
        known = self._ready.get(cut)
        if known is None:
            known = self._ready[cut] = [self._ready_part(part) for part in cut.parts]
        return known

    def _ready_part(self, part: Part) -> Ready:
        if part.key.worker == HOME:
            return Ready(plan=self._functions.plan_of_part(part.function))
        data = encode_function(part.function)
        function = function_id(data)
        self._bytes[function] = data
        return Ready(function, tuple([node.origin for node in nodes_in_order(part.function.graph)]))

    def offer(self, offered: Offered) -> None:
        """Let another worker take a value from here."""
        self._offers.put(self._session_id, offered)

    def to_home(self, key: str) -> bytes:
        """The ticket for an offer of the home."""
        return self._recruiter.permit(
            self._recruiter.myself(), tenant=self._tenant, session_id=self._session_id, offer=key
        )

    def to_peer(self, peer: Peer, key: str) -> bytes:
        """The ticket for an offer of another worker."""
        return self._recruiter.permit(
            peer.line.candidate, tenant=self._tenant, session_id=peer.line.session_id, offer=key
        )

    @property
    def myself(self) -> Candidate:
        """The home."""
        return self._recruiter.myself()
