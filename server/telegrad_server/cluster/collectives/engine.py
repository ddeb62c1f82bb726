"""The thread that moves all bytes of one group: frames in and out of its links, additions, deadlines, the end.

One thread for a whole group, and no lock around what it works on. Callers hand it exchanges and wait for them. While
something is waited for it looks again for a moment before it sleeps, so that a piece that comes soon finds it awake;
nobody waiting, it sleeps at once and leaves the core to whoever computes. Asleep it hears sockets, bells and callers.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence

import numpy as np

from telegrad_server.cluster.collectives.exchange import Exchange, Key
from telegrad_server.cluster.collectives.frames import (
    ABORT,
    BELL,
    EVERYONE,
    GOODBYE,
    PAIR,
    PART,
    READY,
    RESULT,
    Frame,
    Header,
    LinkBroken,
)
from telegrad_server.cluster.collectives.links import Link
from telegrad_server.cluster.collectives.members import Failure, Group
from telegrad_server.cluster.collectives.stream import WOULD_BLOCK
from telegrad_server.executors.base import Array
from telegrad_server.executors.communicator import ONCE

_SPIN_SECONDS = 100e-6
_PARTING_SECONDS = 0.5
"""How long a member that breaks or leaves a group tries to tell the others."""
_IDLE = "nothing"


class Call:
    """An exchange under way: what its caller waits for, and for whom its frames are held back."""

    def __init__(self, engine: Engine, exchange: Exchange) -> None:
        self.exchange = exchange
        self.ready: set[int] = set()
        self.held: dict[int, list[Frame]] = {}
        self.remaining = -1
        self.moved_at = 0.0
        self.failure: Failure | None = None
        self.during = _IDLE
        self._engine = engine
        self._ended = threading.Lock()
        self._ended.acquire()

    @property
    def what(self) -> str:
        """The call in words."""
        return f"{self.exchange.route.what} under tag {self.exchange.key[2]}"

    @property
    def is_done(self) -> bool:
        """Whether `wait` returns at once, or raises."""
        return not self._ended.locked()

    def end(self, failure: Failure | None, during: str) -> None:
        """Let everyone go who waits."""
        self.failure = failure
        self.during = during
        self._ended.release()

    def wait(self, *, timeout_seconds: float | None) -> None:
        """Return when the result is in place. WorkerLost when the group broke."""
        with self._engine.awake():
            is_ended = self._ended.acquire(timeout=-1 if timeout_seconds is None else timeout_seconds)
            if not is_ended:
                self._engine.time_out(self, seconds=timeout_seconds or 0.0)
                self._ended.acquire()
        self._ended.release()
        if self.failure is not None:
            raise self.failure.error(self._engine.group, during=self.what)


class _Over(Exception):
    """The group ends; caught by the thread's own function."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


class Engine:
    """Moves the bytes of one group. `start` begins, `close` or a failure ends; it never begins again."""

    def __init__(self, group: Group, *, rank: int, links: Sequence[Link], timeout_seconds: float) -> None:
        self.group = group
        self._rank = rank
        self._links = {link.peer: link for link in links}
        self._timeout_seconds = timeout_seconds
        self._tick_seconds = min(timeout_seconds / 4, 0.25)
        self._lock = threading.Lock()
        self._failure: Failure | None = None
        self._submitted: deque[Call] = deque()
        self._request: Failure | None = None
        self._waiting = 0
        self._is_asleep = False
        self._sequences: dict[tuple[int, int, int], int] = {}
        self._calls: dict[Key, Call] = {}
        self._early_frames: dict[Key, list[tuple[int, Header, Array]]] = {}
        self._early_ready: dict[Key, dict[int, int]] = {}
        self._bell, self._ear = socket.socketpair()
        self._thread = threading.Thread(
            target=self._run, name=f"telegrad collectives {group.name}/{group.generation} rank {rank}", daemon=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    # what any thread may call

    def submit(self, call: Call) -> None:
        """Begin a call. WorkerLost if the group is broken already."""
        with self._lock:
            if self._failure is not None:
                raise self._failure.error(self.group, during=call.what)
            self._submitted.append(call)
        self._wake()

    def key(self, *, space: int, peer: int, tag: int) -> Key:
        """The next key under a tag, as every member that takes part counts them."""
        if tag >= ONCE:
            return (space, peer, tag, 0)
        with self._lock:
            number = self._sequences.get((space, peer, tag), 0)
            self._sequences[space, peer, tag] = number + 1
        return (space, peer, tag, number)

    def awake(self) -> _Awake:
        """While it is entered, the thread looks again before it sleeps."""
        return _Awake(self)

    def count_waiting(self, change: int) -> None:
        """One more or one fewer that waits."""
        with self._lock:
            self._waiting += change

    def check(self) -> None:
        """WorkerLost if the group is broken."""
        failure = self._failure
        if failure is not None:
            raise failure.error(self.group, during=_IDLE)

    def abort(self, failure: Failure) -> None:
        """Break the group; the first failure counts."""
        with self._lock:
            if self._failure is not None:
                return
            self._failure = self._request = failure
        self._wake()

    def time_out(self, call: Call, *, seconds: float) -> None:
        """Break the group because a call was not done in the time that its caller gave."""
        self.abort(self._late(call, seconds))

    def close(self) -> None:
        """Say goodbye, end the thread and wait for its end."""
        self.abort(Failure("left", self._rank, f"{self.group.describe([self._rank])} has left it"))
        if self._thread.ident is not None:
            self._thread.join()

    def _wake(self) -> None:
        if self._is_asleep:
            try:
                self._bell.send(b"\0")
            except OSError:
                pass  # the thread has ended between the question and the bell

    # the thread

    def _run(self) -> None:
        failure = Failure("abort", self._rank, f"the exchange of {self.group.describe([self._rank])} ended by a bug")
        try:
            with np.errstate(all="ignore"), selectors.DefaultSelector() as selector:
                try:
                    self._loop(selector)
                except _Over as over:
                    failure = over.failure
                self._end_calls(failure)
                self._part(selector, failure)
        finally:
            self._end_calls(failure)
            for link in self._links.values():
                link.stream.sock.close()
            self._bell.close()
            self._ear.close()

    def _loop(self, selector: selectors.BaseSelector) -> None:
        self._ear.setblocking(False)
        selector.register(self._ear, selectors.EVENT_READ)
        for link in self._links.values():
            selector.register(link.stream.sock, selectors.EVENT_READ, link)
        writers: set[int] = set()
        unread: set[int] = set()
        checked_at = spin_until = 0.0
        while True:
            moved = self._admit()
            readable = {key.data.peer for key, _ in selector.select(0) if key.data is not None} | unread
            for peer, link in self._links.items():
                try:
                    if link.send_some():
                        moved = True
                    came, has_more = link.receive_some(self, is_readable=peer in readable and not link.stream.is_ended)
                except LinkBroken as broken:
                    self._lost(link, broken, selector)
                    unread.discard(peer)
                    continue
                moved = moved or came
                (unread.add if has_more else unread.discard)(peer)
                if link.stream.is_blocked != (peer in writers) and not link.stream.is_ended:
                    (writers.add if link.stream.is_blocked else writers.discard)(peer)
                    events = selectors.EVENT_WRITE if link.stream.is_blocked else 0
                    selector.modify(link.stream.sock, selectors.EVENT_READ | events, link)
            self._end_done()
            now = time.monotonic()
            if now - checked_at > self._tick_seconds:
                checked_at = now
                self._check_deadlines(now)
            if moved:
                spin_until = now + _SPIN_SECONDS
            elif unread:
                pass
            elif self._waiting and now < spin_until:
                os.sched_yield()
            else:
                self._sleep(selector)

    def _admit(self) -> bool:
        if self._request is not None:
            raise _Over(self._request)
        moved = False
        while self._submitted:
            self._begin(self._submitted.popleft())
            moved = True
        return moved

    def _sleep(self, selector: selectors.BaseSelector) -> None:
        rings = [link.rings for link in self._links.values() if link.rings is not None]
        self._is_asleep = True
        for ring in rings:
            ring.sleeps()
        try:
            if (
                self._submitted
                or self._request is not None
                or any(self._can_move(link) for link in self._links.values())
            ):
                return
            selector.select(self._tick_seconds if self._calls else None)
        finally:
            self._is_asleep = False
            for ring in rings:
                ring.wakes()
        try:
            self._ear.recv(4096)
        except BlockingIOError:
            pass

    def _can_move(self, link: Link) -> bool:
        rings = link.rings
        return rings is not None and (not rings.is_empty or bool((link.urgent or link.bulk) and not rings.is_full))

    def _begin(self, call: Call) -> None:
        exchange = call.exchange
        route = exchange.route
        self._calls[exchange.key] = call
        call.moved_at = time.monotonic()
        for peer in {*exchange.peers, *route.parts_to, *route.results_to}:
            if self._links[peer].has_left:
                raise _Over(Failure("left", peer, f"{self.group.describe([peer])} has left it"))
        if route.is_eager:
            for peer in route.parts_to:
                self._links[peer].urgent.extend(exchange.outgoing(peer))
        else:
            for peer in exchange.peers:
                space, _, tag, sequence = exchange.key
                self._links[peer].urgent.append(Frame(Header(READY, space, 0, route.digest, tag, sequence)))
        exchange.begin(self._post_for(call))
        for peer, digest in self._early_ready.pop(exchange.key, {}).items():
            self._ready(call, peer, digest)
        for peer, header, payload in self._early_frames.pop(exchange.key, []):
            self._deliver(call, peer, header, payload, is_placed=False)

    def _post_for(self, call: Call) -> _Post:
        return _Post(self._links, call)

    # frames that arrive: a Sink

    def place(self, peer: int, header: Header) -> Array | None:
        """The bytes of the result that a payload is."""
        call = self._calls.get(_key(peer, header))
        if call is None or header.kind != RESULT:
            return None
        self._check_digest(call, peer, header.digest)
        return call.exchange.place(peer, header)

    def arrived(self, peer: int, header: Header, payload: Array, *, is_placed: bool) -> None:
        """Do what a frame says."""
        if header.kind == BELL:
            return
        if header.kind == ABORT:
            raise _Over(Failure.decode(payload.tobytes()))
        if header.kind == GOODBYE:
            self._links[peer].has_left = True
            return
        key = _key(peer, header)
        call = self._calls.get(key)
        if header.kind == READY:
            if call is None:
                self._early_ready.setdefault(key, {})[peer] = header.digest
            else:
                self._ready(call, peer, header.digest)
        elif header.kind in (PART, RESULT):
            if call is None:
                self._early_frames.setdefault(key, []).append((peer, header, payload.copy()))
            else:
                self._deliver(call, peer, header, payload, is_placed=is_placed)

    def _deliver(self, call: Call, peer: int, header: Header, payload: Array, *, is_placed: bool) -> None:
        self._check_digest(call, peer, header.digest)
        call.exchange.accept(peer, header, payload, is_placed=is_placed, post=self._post_for(call))

    def _ready(self, call: Call, peer: int, digest: int) -> None:
        self._check_digest(call, peer, digest)
        call.ready.add(peer)
        link = self._links[peer]
        if peer in call.exchange.route.parts_to:
            link.bulk.append(call.exchange.outgoing(peer))
        link.urgent.extend(call.held.pop(peer, ()))

    def _check_digest(self, call: Call, peer: int, digest: int) -> None:
        if digest != call.exchange.route.digest:
            raise _Over(
                Failure("mismatch", peer, f"{self.group.describe([peer])} makes another call than {call.what} here")
            )

    # the end of calls and of the group

    def _end_done(self) -> None:
        done = [call for call in self._calls.values() if call.exchange.is_done]
        for call in done:
            del self._calls[call.exchange.key]
            call.end(None, _IDLE)

    def _end_calls(self, failure: Failure) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = failure
            calls = [*self._calls.values(), *self._submitted]
            self._submitted.clear()
        for link in self._links.values():
            link.stream.detach_payload()
        self._calls.clear()
        for call in calls:
            call.end(failure, call.what)

    def _check_deadlines(self, now: float) -> None:
        for call in self._calls.values():
            remaining = call.exchange.remaining
            if remaining != call.remaining:
                call.remaining, call.moved_at = remaining, now
            elif now - call.moved_at > self._timeout_seconds:
                raise _Over(self._late(call, self._timeout_seconds))

    def _late(self, call: Call, seconds: float) -> Failure:
        route = call.exchange.route
        missing = call.exchange.missing or sorted({*route.parts_to, *route.results_to} - call.ready)
        who = self.group.describe(missing)
        text = f"nothing came from {who} within {seconds:g} s, for {call.what}"
        return Failure("timeout", missing[0] if missing else -1, text)

    def _lost(self, link: Link, broken: LinkBroken, selector: selectors.BaseSelector) -> None:
        """A link has ended. Where its member had said goodbye that is well, if nobody needs it any more."""
        if link.has_left:
            if link.rings is not None:
                while link.rings.receive(self, frames=1):
                    pass
            self._end_done()
            link.stream.is_ended = True
            selector.unregister(link.stream.sock)
            link.stream.sock.close()
            if not any(call.exchange.needs(link.peer) for call in self._calls.values()):
                return
        during = ", ".join(call.what for call in self._calls.values()) or _IDLE
        cause, ended = ("left", "it has left the group") if link.has_left else ("closed", str(broken))
        who = self.group.describe([link.peer])
        raise _Over(Failure(cause, link.peer, f"{who} is lost: {ended}, during {during}"))

    def _part(self, selector: selectors.BaseSelector, failure: Failure) -> None:
        """Tell the others, as far as they listen, and hear out those who are still sending, or their kernel would
        throw away what they have not read yet."""
        is_leaving = failure.cause == "left" and failure.rank == self._rank
        payload = np.frombuffer(failure.encode(), np.uint8)
        last = Frame(Header(GOODBYE)) if is_leaving else Frame(Header(ABORT), payload)
        open_links = {link for link in self._links.values() if not link.stream.is_ended}
        for link in open_links:
            link.rings = None
            link.control.append(last)
            link.urgent.clear()
            link.bulk.clear()
        closing: set[Link] = set()
        deadline = time.monotonic() + _PARTING_SECONDS
        while open_links and time.monotonic() < deadline:
            for link in [*open_links]:
                try:
                    if link not in closing:
                        link.send_some()
                        if link.stream.is_between_frames and not link.control:
                            link.stream.sock.shutdown(socket.SHUT_WR)
                            closing.add(link)
                    if not link.stream.sock.recv(1 << 16):
                        raise LinkBroken("it has ended")
                except WOULD_BLOCK:
                    pass
                except (LinkBroken, OSError):
                    open_links.discard(link)
                    selector.unregister(link.stream.sock)
                    continue
                events = 0 if link in closing else selectors.EVENT_WRITE
                selector.modify(link.stream.sock, selectors.EVENT_READ | events, link)
            if open_links:
                selector.select(0.05)


class _Awake:
    """A context in which the engine counts one more that waits."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> None:
        self._engine.count_waiting(1)

    def __exit__(self, *_: object) -> None:
        self._engine.count_waiting(-1)


class _Post:
    """Puts a call's results into the queues of links, or aside for those that have not made the call yet."""

    def __init__(self, links: dict[int, Link], call: Call) -> None:
        self._links = links
        self._call = call

    def __call__(self, peer: int, frame: Frame) -> None:
        if self._call.exchange.route.is_eager or peer in self._call.ready:
            self._links[peer].urgent.append(frame)
        else:
            self._call.held.setdefault(peer, []).append(frame)


def _key(peer: int, header: Header) -> Key:
    """The key by which this side knows a frame's call. Between two members each side counts what it sends and what it
    gets: a READY is about what this side sends."""
    if header.space == EVERYONE:
        return (EVERYONE, -1, header.tag, header.sequence)
    return (PAIR, peer if header.kind == READY else -2 - peer, header.tag, header.sequence)
