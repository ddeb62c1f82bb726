"""The connection in process: the same worker as a server's, called directly; nothing is encoded."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from telegrad.critical import SLICE_SECONDS, Critical
from telegrad.ir.types import Type
from telegrad.transport import DatasetCalls, Deliver, Greeting, JobCalls, Lost, UploadFailed
from telegrad.transport.local_datasets import LocalDatasets
from telegrad.transport.local_jobs import LocalJobs
from telegrad.transport.shared_memory import SharedMemory
from telegrad.wire.arrays import array_bytes, array_from
from telegrad.wire.messages import FEATURES, Command, Ended, Event

TENANT = "local"


class LocalConnection:
    """A session on a worker in this process. Its lease is renewed by being alive."""

    def __init__(self, *, lease_seconds: float, backend: str) -> None:
        # The one seam through which the client loads the server, and only here.
        self._server = import_module("telegrad_server.embedded")
        self._worker: Any = self._server.open_worker(backend)
        self._backend = backend
        self._lease_seconds = lease_seconds
        hello = self._worker.hello()
        self.greeting = Greeting(
            hello.server_version,
            hello.incarnation,
            frozenset(hello.ops),
            hello.backend,
            hello.fingerprint,
            tuple(hello.warnings),
            features=FEATURES,
        )
        self._critical = Critical()
        self._heard = 0
        self._has_room = True
        self._open = False
        self.memory: SharedMemory | None = None  # all memory is shared

    def open(self, deliver: Deliver, lost: Lost, upload_failed: UploadFailed) -> None:
        grant = self._worker.open_session(TENANT, "", None)
        self._id, self._secret = grant.session_id, grant.session_secret

        def hear(number: int, event: Event) -> None:
            self._heard = number
            if isinstance(event, Ended):
                self._open = False
            deliver(event)

        self._worker.attach(TENANT, self._id, self._secret, 0, hear)
        self._worker.begin_delivery(self._id)
        self._open = True

    def send(self, sequence: int, command: Command) -> None:
        self._has_room = self._worker.receive(self._id, sequence, command, self._heard)

    def wait_for_room(self) -> None:
        while not self._has_room:
            with self._critical:
                self._has_room = self._worker.wait_for_room(self._id, timeout_seconds=SLICE_SECONDS)

    def supply(self, function: bytes, data: bytes) -> None:
        self._worker.supply(self._id, function, data)

    def upload(self, name: int, type: Type, array: npt.NDArray[Any]) -> None:
        with self._critical:
            upload = self._worker.begin_upload(TENANT, self._id, self._secret, name, type)
            upload.write(array_bytes(array))
            upload.finish()

    def download(self, type: Type, ticket: str) -> npt.NDArray[Any]:
        with self._critical:
            data = self._worker.download(TENANT, self._id, self._secret, ticket)
            array = np.array(array_from(type, data))
            self._worker.download_done(TENANT, self._id, self._secret, ticket)
        return array

    def dismiss(self, type: Type, ticket: str) -> None:
        with self._critical:
            self._worker.download_done(TENANT, self._id, self._secret, ticket)

    def close(self) -> None:
        with self._critical:
            if self._open:
                self._open = False
                self._worker.close_session(TENANT, self._id, self._secret)

    @property
    def datasets(self) -> DatasetCalls:
        return LocalDatasets(self._server.open_catalog(), TENANT)

    @property
    def jobs(self) -> JobCalls:
        return LocalJobs(self._server.open_foreman(self._backend), TENANT, self._ticket)

    def _ticket(self, ticket: str) -> memoryview:
        return self._worker.download(TENANT, self._id, self._secret, ticket)

    @property
    def is_open(self) -> bool:
        return self._open
