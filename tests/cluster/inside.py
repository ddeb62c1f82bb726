"""A whole cluster inside the process of the tests: the same parts, each worker with its own port, open to be looked at."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from telegrad.wire.v1 import workers_pb2
from telegrad_server.access import Gate
from telegrad_server.cluster.collectives import Listener
from telegrad_server.cluster.groups import Groups
from telegrad_server.cluster.lease import Lease
from telegrad_server.cluster.tickets import Key
from telegrad_server.config import Config
from telegrad_server.executors import pick_executor
from telegrad_server.service import Server, TicketAccess
from telegrad_server.service.gateway import Gateway
from telegrad_server.service.member import Membership
from telegrad_server.service.peers import Recruits
from telegrad_server.worker import Neighbours, Worker


@dataclass
class Inside:
    """The cluster: its gateway's address, and its workers by name."""

    loop: asyncio.AbstractEventLoop
    address: str = ""
    workers: dict[str, Worker] = field(default_factory=dict[str, Worker])
    recruits: dict[str, Recruits] = field(default_factory=dict[str, Recruits])
    _stops: list[Any] = field(default_factory=list[Any])

    async def start(self, count: int, key_file: Path) -> None:
        key_file.write_text(secrets.token_hex(32))
        key = Key.from_file(str(key_file))
        gateway = Gateway(Config(role="gateway", port=0, cluster_port=0), Gate(), key)
        port, inner = await gateway.start()
        gateway.launch()
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
        groups, recruits = Groups(listener), Recruits(self.loop, key, None)
        config = Config(role="worker", port=0)
        executor = pick_executor("numpy")
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

    def others(self, home: str) -> list[str]:
        """The names of the workers 1, 2, … of a session that lives on ``home``, if it is the only one."""
        return [name for name in sorted(self.workers) if name != home]


@contextmanager
def inside(count: int, key_file: Path) -> Iterator[Inside]:
    """A cluster of so many workers."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def wait(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(60)

    cluster = Inside(loop)
    try:
        wait(cluster.start(count, key_file))
        yield cluster
    finally:
        wait(cluster.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
