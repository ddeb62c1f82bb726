"""Where a worker process takes the connections of all its groups, and how a member joins one."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from telegrad.errors import AccessError, TelegradError, WorkerLost

from telegrad_server.cluster.collectives import rings
from telegrad_server.cluster.collectives.connected import Connected
from telegrad_server.cluster.collectives.frames import LinkBroken
from telegrad_server.cluster.collectives.handshake import PROTOCOL, Hello, Line, is_proof, nonce, proof
from telegrad_server.cluster.collectives.links import Link
from telegrad_server.cluster.collectives.members import Failure, Group, Member
from telegrad_server.cluster.collectives.one import One
from telegrad_server.cluster.collectives.rings import TOKEN_BYTES, Rings
from telegrad_server.executors.communicator import Communicator

_HANDSHAKE_SECONDS = 5.0
_RETRY_SECONDS = 0.02
_MOST_HANDSHAKES = 64
_REMEMBERED = 1024
_WELCOME, _REFUSED, _NOT_YET = b"w", b"r", b"n"


@dataclass(frozen=True)
class Tls:
    """Certificates for both directions: the context to accept with, and that to connect with, and for which name."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    server_name: str

    @classmethod
    def from_files(cls, *, cert: str, key: str, ca: str, server_name: str) -> Tls:
        """From PEM files, for members who show the same certificate, which ``ca`` has signed. TLS 1.3."""
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        client = ssl.create_default_context(cafile=ca)
        for context in (server, client):
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        server.load_cert_chain(cert, key)
        return cls(server, client, server_name)


@dataclass
class _Entry:
    """What a listener knows of a group: its newest generation, and while it gathers, who has come."""

    group: Group
    rank: int
    key: bytes
    is_over: bool = False
    communicator: Connected | None = None
    arrived: dict[int, Link] = field(default_factory=dict[int, Link])
    refused: list[str] = field(default_factory=list[str])


class Listener:
    """Accepts the connections of members. One for a worker process; `start` before a group is joined, `close` after."""

    def __init__(self, host: str, port: int, *, tls: Tls | None) -> None:
        self.tls = tls
        self._socket = socket.create_server((host, port), backlog=128)
        self.host, self.port = self._socket.getsockname()[:2]
        self._lock = threading.Condition()
        self._entries: dict[str, _Entry] = {}
        self._handshakes: dict[threading.Thread, socket.socket] = {}
        self._is_closed = False
        self._thread = threading.Thread(target=self._accept, name=f"telegrad collectives {self.port}", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def close(self) -> None:
        """End the thread and every group that was joined here. Idempotent."""
        with self._lock:
            self._is_closed = True
            groups = [entry.communicator for entry in self._entries.values() if entry.communicator is not None]
            waiting = {link for entry in self._entries.values() for link in entry.arrived.values()}
            self._entries.clear()
            handshakes = dict(self._handshakes)
            self._lock.notify_all()
        for group in groups:
            group.close()
        for link in waiting:
            link.stream.sock.close()
        for sock in handshakes.values():
            _hang_up(sock)
        _hang_up(self._socket)  # closing alone does not end an accept
        self._socket.close()
        for thread in (self._thread, *handshakes):
            if thread.ident is not None:
                thread.join()

    def join(
        self,
        members: Sequence[Member],
        *,
        rank: int,
        group: str,
        generation: int,
        key: bytes,
        timeout_seconds: float,
        joining_seconds: float | None = None,
    ) -> Communicator:
        """This process's end of a group, connected to all other members.

        ``members`` is the same list everywhere, in the order of ranks; ``key`` is the group's secret, at least 16
        bytes; ``timeout_seconds`` is how long members wait for each other in every call, and here if there are no
        ``joining_seconds``. An older generation of the group that still lives in this process ends.

        WorkerLost if a member does not come in time, or if the generation is over; AccessError if one has another key.
        """
        assert len(key) >= 16, "a group's key has at least 16 bytes"
        known = Group(group, generation, tuple(members))
        entry = self._expect(known, rank=rank, key=key)
        if len(members) == 1:
            return One(group, generation=generation)
        until = time.monotonic() + (timeout_seconds if joining_seconds is None else joining_seconds)
        links: list[Link] = []
        try:
            for peer in range(rank):
                links.append(self._connect(known, rank=rank, peer=peer, key=key, until=until))
            links += self._await(entry, until=until)
            communicator = Connected(known, rank=rank, links=links, timeout_seconds=timeout_seconds)
            with self._lock:
                if entry.is_over or self._is_closed:
                    raise Failure("left", rank, "it ended while it was built").error(known, during="joining")
                entry.communicator = communicator
                communicator.start()
        except BaseException:
            with self._lock:
                entry.is_over = True
                links += [link for link in entry.arrived.values() if link not in links]
            for link in links:
                link.stream.sock.close()
            raise
        return communicator

    def give_up(self, group: str) -> None:
        """End the joining of a group that waits for members to come: one of them will not."""
        with self._lock:
            entry = self._entries.get(group)
            if entry is not None and entry.communicator is None:
                entry.is_over = True
                self._lock.notify_all()

    # the side that listens

    def _expect(self, group: Group, *, rank: int, key: bytes) -> _Entry:
        with self._lock:
            old = self._entries.pop(group.name, None)
            if old is not None and old.group.generation >= group.generation:
                self._entries[group.name] = old
                raise WorkerLost(_stale(group.name, group.generation, old), generation=group.generation)
            entry = self._entries[group.name] = _Entry(group, rank, key)
            if old is not None:
                old.is_over = True
            while len(self._entries) > _REMEMBERED and (oldest := next(iter(self._entries))) != group.name:
                del self._entries[oldest]
        if old is not None and old.communicator is not None:
            old.communicator.abort(f"generation {group.generation} takes its place")
        return entry

    def _await(self, entry: _Entry, *, until: float) -> list[Link]:
        expected = set(range(entry.rank + 1, len(entry.group.members)))
        with self._lock:
            while expected - entry.arrived.keys():
                left = until - time.monotonic()
                if left <= 0 or self._is_closed or entry.is_over:
                    missing = sorted(expected - entry.arrived.keys())
                    why = "; ".join(["", *entry.refused])
                    text = f"{entry.group.describe(missing)} did not join in time{why}"
                    raise Failure("timeout", missing[0], text).error(entry.group, during="joining")
                self._lock.wait(left)
            return [*entry.arrived.values()]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                if self._is_closed:
                    return
                time.sleep(_RETRY_SECONDS)  # out of file descriptors, or the other side has gone again
                continue
            thread = threading.Thread(target=self._greet, args=(sock,), name="telegrad collectives hello", daemon=True)
            with self._lock:
                if self._is_closed or len(self._handshakes) >= _MOST_HANDSHAKES:
                    sock.close()
                    continue
                self._handshakes[thread] = sock
            thread.start()

    def _greet(self, sock: socket.socket) -> None:
        is_taken = False
        try:
            sock.settimeout(_HANDSHAKE_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:
                sock = self.tls.server.wrap_socket(sock, server_side=True)
            is_taken = self._welcome(sock)
        except (LinkBroken, OSError):
            pass  # the other side is told, or gone; whoever waits for it here names it when its time is over
        finally:
            with self._lock:
                self._handshakes.pop(threading.current_thread(), None)
            if not is_taken:
                sock.close()

    def _welcome(self, sock: socket.socket) -> bool:
        line = Line(sock, until=time.monotonic() + _HANDSHAKE_SECONDS)
        said = line.receive()
        hello = Hello.decode(said)
        with self._lock:
            entry = self._entries.get(hello.group)
            refusal = _refusal(hello, entry)
        if entry is None or refusal is not None:
            line.send(refusal or b"")
            return False
        theirs, ours = line.receive(), nonce()
        line.send(_WELCOME + ours + proof(entry.key, b"listener", said, theirs, ours))
        if not is_proof(line.receive(), entry.key, b"connector", said, theirs, ours):
            with self._lock:
                entry.refused.append(f"someone who said to be rank {hello.rank} had another key")
            line.send(_REFUSED + b"the proof of the group's key is wrong")
            return False
        line.send(_WELCOME)
        memory = _accept_memory(line)
        link = Link(sock, peer=hello.rank, rings=None if memory is None else Rings(memory, side=1, peer=hello.rank))
        with self._lock:
            if entry.is_over or self._is_closed or hello.rank in entry.arrived:
                return False
            entry.arrived[hello.rank] = link
            self._lock.notify_all()
        return True

    # the side that connects

    def _connect(self, group: Group, *, rank: int, peer: int, key: bytes, until: float) -> Link:
        member = group.members[peer]
        why = "it was not tried"
        while time.monotonic() < until and not self._is_closed:
            sock: socket.socket | None = None
            try:
                sock = socket.create_connection((member.host, member.port), timeout=max(until - time.monotonic(), 1e-3))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.tls is not None:
                    sock = self.tls.client.wrap_socket(sock, server_hostname=self.tls.server_name)
                line = Line(sock, until=min(until, time.monotonic() + _HANDSHAKE_SECONDS))
                self._say_hello(line, group, rank=rank, peer=peer, key=key)
                is_near = bool(member.machine) and member.machine == group.members[rank].machine
                memory = _offer_memory(line, is_near=is_near)
                return Link(sock, peer=peer, rings=None if memory is None else Rings(memory, side=0, peer=peer))
            except _NotYet as not_yet:
                why = str(not_yet)
            except TelegradError:  # refused for good; these are OSErrors too
                if sock is not None:
                    sock.close()
                raise
            except (LinkBroken, OSError) as error:
                why = str(error)
            if sock is not None:
                sock.close()
            time.sleep(_RETRY_SECONDS)
        text = f"{group.describe([peer])} could not be joined: {why}"
        raise Failure("timeout", peer, text).error(group, during="joining")

    def _say_hello(self, line: Line, group: Group, *, rank: int, peer: int, key: bytes) -> None:
        said = Hello(PROTOCOL, group.name, group.generation, rank, peer).encode()
        ours = nonce()
        line.send(said)
        line.send(ours)
        answer = line.receive()
        _raise_refusal(answer, group, peer)
        theirs, proven = answer[1 : 1 + len(ours)], answer[1 + len(ours) :]
        if not is_proof(proven, key, b"listener", said, ours, theirs):
            raise AccessError(
                f"{group.describe([peer])} has another key for {group}; give all members the same", rank=peer
            )
        line.send(proof(key, b"connector", said, ours, theirs))
        _raise_refusal(line.receive(), group, peer)


class _NotYet(Exception):
    """The other member has not joined yet."""


def _refusal(hello: Hello, entry: _Entry | None) -> bytes | None:
    """What to answer instead of a welcome."""
    if hello.protocol != PROTOCOL:
        return _REFUSED + f"this worker speaks {PROTOCOL!r}, not {hello.protocol!r}".encode()
    if entry is None:
        return _NOT_YET + b"this worker is in no group of that name"
    newest = entry.group.generation
    if hello.generation > newest:
        return _NOT_YET + f"this worker is still in generation {newest}".encode()
    if hello.generation < newest or entry.is_over:
        return _REFUSED + _stale(hello.group, hello.generation, entry).encode()
    if hello.to_rank != entry.rank or not entry.rank < hello.rank < len(entry.group.members):
        return _REFUSED + f"rank {hello.rank} has no business with rank {entry.rank} here".encode()
    if hello.rank in entry.arrived:
        return _REFUSED + f"rank {hello.rank} is here already".encode()
    return None


def _stale(group: str, generation: int, entry: _Entry) -> str:
    return f"generation {generation} of group {group} is over; this worker has seen generation {entry.group.generation}"


def _raise_refusal(answer: bytes, group: Group, peer: int) -> None:
    kind, text = answer[:1], answer[1:].decode(errors="replace")
    if kind == _NOT_YET:
        raise _NotYet(text)
    if kind != _WELCOME:
        raise Failure("refused", peer, f"{group.describe([peer])} refused: {text}").error(group, during="joining")


def _offer_memory(line: Line, *, is_near: bool) -> rings.Memory | None:
    """Memory that the other side has attached to as well; None if data goes over the socket."""
    if not is_near or not rings.is_possible():
        line.send(b"")
        return None
    token = os.urandom(TOKEN_BYTES)
    fd, memory = rings.create(token)
    try:
        line.send(f"{os.getpid()} {fd} ".encode() + token)
        return memory if line.receive() == b"y" else None
    finally:
        os.close(fd)


def _accept_memory(line: Line) -> rings.Memory | None:
    offer = line.receive()
    if not offer:
        return None
    words = offer.split(b" ", 2)
    memory = None
    if rings.is_possible() and len(words) == 3 and words[0].isdigit() and words[1].isdigit():
        memory = rings.attach(int(words[0]), int(words[1]), words[2])
    line.send(b"n" if memory is None else b"y")
    return memory


def _hang_up(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is closed already
