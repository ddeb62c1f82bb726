"""A whole cluster inside the process of the tests: each worker has its own port, and can be looked at."""

from __future__ import annotations

import asyncio
import gc
import secrets
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import telegrad as tg
from telegrad.wire.v1 import workers_pb2
from telegrad_server.access import Gate
from telegrad_server.cluster.collectives import Listener
from telegrad_server.cluster.groups import Groups
from telegrad_server.cluster.lease import Lease
from telegrad_server.cluster.tickets import Key
from telegrad_server.config import Config
from telegrad_server.executors import Executor, pick_executor
from telegrad_server.service import Server, TicketAccess
from telegrad_server.service.gateway import Gateway
from telegrad_server.service.member import Membership
from telegrad_server.service.peers import Recruits
from telegrad_server.worker import Neighbours, Worker


@dataclass
class Inside:
    """The cluster: its gateway's address, and its workers by name."""

    loop: asyncio.AbstractEventLoop
    executor: Callable[[], Executor]
    address: str = ""
    workers: dict[str, Worker] = field(default_factory=dict[str, Worker])
    recruits: dict[str, Recruits] = field(default_factory=dict[str, Recruits])
    _stops: list[Any] = field(default_factory=list[Any])
    _anchors: WeakKeyDictionary[tg.Session, list[tg.Variable]] = field(
        default_factory=WeakKeyDictionary[tg.Session, "list[tg.Variable]"]
    )

    async def start(self, count: int, key_file: Path) -> None:
        key_file.write_text(secrets.token_hex(32))
        key = Key.from_file(str(key_file))
        gateway = Gateway(Config(role="gateway", port=0, cluster_port=0), Gate(), key)
        port, inner = await gateway.start()
        await gateway.launch()
        self._stops.append(lambda: gateway.stop(0))
        self.address = f"grpc://127.0.0.1:{port}"
        for number in range(count):
            await self._start_worker(f"worker-{number}", key, f"127.0.0.1:{inner}")
        while len(gateway.members) < count:
            await asyncio.sleep(0.01)

    async def _start_worker(self, name: str, key: Key, gateway: str) -> None:
        lease = Lease()
        listener = Listener("127.0.0.1", 0, tls=None)
        listener.start()
        executor = self.executor()
        groups, recruits = Groups(listener, executor), Recruits(self.loop, key, None)
        config = Config(role="worker", port=0)
        worker = Worker(config, executor, lease=lease, neighbours=Neighbours(groups, recruits))
        server = Server(worker, config, TicketAccess(key, worker.incarnation), is_inside=True)
        port = await server.start()
        worker.start()
        facts = workers_pb2.JoinClusterRequest(
            worker=name,
            incarnation=worker.incarnation,
            address=f"127.0.0.1:{port}",
            collectives_address=f"127.0.0.1:{listener.port}",
            machine="here",
            device=executor.device,
            backend="numpy",
            fingerprint=executor.fingerprint,
            max_sessions=100,
            max_bytes=1 << 40,
        )
        membership = Membership(
            gateway,
            key,
            None,
            facts,
            lease,
            load=lambda: workers_pb2.Load(sessions=worker.statistics()["sessions"]),
            given_up=lambda error: None,
            drained=lambda: None,
        )
        recruits.introduce(membership, facts)
        running = asyncio.create_task(membership.run())

        async def stop() -> None:
            running.cancel()
            await membership.leave()
            await server.stop(0)
            await asyncio.to_thread(groups.close)

        self._stops.insert(0, stop)
        self.workers[name], self.recruits[name] = worker, recruits

    async def stop(self) -> None:
        for stop in self._stops:
            await stop()

    def held_by(self, session: tg.Session) -> list[int]:
        """The bytes that a session, the only one, holds on its workers, the home first, once nothing is under way.

        One byte on each other worker is there for this.
        """
        anchors = self._anchors.setdefault(session, [])
        for number in range(len(anchors) + 1, len(self.workers)):
            with tg.on(number):
                anchors.append(tg.Variable(np.zeros(1, np.uint8)))
        gc.collect()
        for _ in range(2):
            session.release()
            session.synchronize()
        for anchor in anchors:
            anchor.numpy()  # behind all that was released
        return [self.workers[name].held_bytes("local") for name in self.of(session)]

    def of(self, session: tg.Session) -> list[str]:
        """The names of a session's workers, the home first."""
        seats = self.workers[session.home]._seats  # pyright: ignore[reportPrivateUsage]
        (seat,) = [seat for seat in seats.values() if not seat.session.is_peers]
        assert seat.company is not None
        return seat.company.parts.workers


@contextmanager
def inside(
    count: int, key_file: Path, executor: Callable[[], Executor] = lambda: pick_executor("numpy")
) -> Iterator[Inside]:
    """A cluster of so many workers, each with an executor of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def wait(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(60)

    cluster = Inside(loop, executor)
    try:
        wait(cluster.start(count, key_file))
        yield cluster
    finally:
        wait(cluster.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def without_kernels(key_file: Path) -> Iterator[None]:
    """A session on one worker that leaves all to NumPy, as the stand-ins for devices do."""
    with (
        inside(1, key_file, lambda: pick_executor("numpy", kernels="off")) as found,
        tg.connect(found.address, new=True),
    ):
        yield
