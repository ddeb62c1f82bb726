"""The seams between a home worker and its peers: who may be one, the line to one, and what finds and opens them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from telegrad.errors import TelegradError
from telegrad.ir.types import Type
from telegrad.wire import messages as m

from telegrad_server.uploads import Upload


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that may be a peer."""

    worker: str
    incarnation: str
    address: str
    collectives_address: str
    machine: str
    device: str


class PeerLine(Protocol):
    """The home's line to its session on a peer. Every method may be called by any thread; none waits."""

    candidate: Candidate
    session_id: str

    def send(self, command: m.Command) -> None:
        """Let the peer do something, after all that it was told before."""
        ...

    def upload(self, name: int, type: Type, data: memoryview) -> None:
        """Send the bytes of a name that was announced by Expect; they must not change until they are sent."""
        ...

    def fetch(self, name: int) -> Future[bytes]:
        """The bytes of a value, once it is there."""
        ...

    def close(self) -> None:
        """End the session on the peer."""
        ...


class Recruiter(Protocol):
    """Finds peers and opens lines to them."""

    def find(self, count: int, *, strategy: str, without: Sequence[str]) -> list[Candidate]:
        """At most ``count`` workers, fewer if there are no more, or if the gateway does not answer."""
        ...

    def open(
        self,
        candidate: Candidate,
        *,
        tenant: str,
        supply: Callable[[bytes], bytes],
        failed: Callable[[m.ErrorRecord], None],
        lost: Callable[[TelegradError], None],
    ) -> PeerLine:
        """A line to a session on the peer.

        ``supply`` gives a function's bytes, ``failed`` hears of commands that had no effect, ``lost`` that the line is
        gone. ConnectionFailed or WorkerLost if the peer does not answer.
        """
        ...

    def myself(self) -> Candidate:
        """This worker."""
        ...

    def permit(self, producer: Candidate, *, tenant: str, session_id: str, offer: str) -> bytes:
        """A ticket for one offer of a session on ``producer``."""
        ...

    def pull(self, pull: m.Pull, begin: Callable[[], Upload]) -> None:
        """Take a value from another worker into the upload that ``begin`` gives; returns at once."""
        ...
