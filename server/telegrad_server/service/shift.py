"""A worker's shift: the thread on which it is told which loops to run, and says how far they are."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import grpc
from telegrad.errors import TelegradError
from telegrad.wire.v1 import loops_pb2 as pb

from telegrad_server.cluster.lease import Lease
from telegrad_server.failpoints import Reached, nothing
from telegrad_server.loops import Assignment, Hall
from telegrad_server.service.loop_messages import order_from_proto, progress_to_proto
from telegrad_server.service.relay import error_of
from telegrad_server.service.vault import Vault
from telegrad_server.worker import Worker

SAY_SECONDS = 0.5
"""How often a worker says how far its loops are."""

PAUSE_SECONDS = 0.3
"""Between two tries to begin a shift."""

WITHOUT_JOBS_SECONDS = 5.0
"""The same at a gateway that has no jobs."""


class WorkShift:
    """Runs a gateway's jobs on a worker, from `start` until `stop`."""

    def __init__(self, worker: Worker, vault: Vault, lease: Lease, *, reached: Reached = nothing) -> None:
        self._vault = vault
        self._lease = lease
        self._hall = Hall(worker, vault, ended=lambda: None, reached=reached)
        self._thread = threading.Thread(target=self._work, name="telegrad-shift", daemon=True)

    def start(self) -> None:
        """Begin, as soon as the worker is a member of its cluster."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the loops as they stand: their jobs go on elsewhere, from their last checkpoints."""
        self._vault.close()
        self._hall.stop()
        self._thread.join()

    def _work(self) -> None:
        while not self._vault.is_closed:
            pause = PAUSE_SECONDS
            if self._lease.is_running:
                over = threading.Event()
                try:
                    orders = self._vault.stub.WorkShift(self._said(over), metadata=self._vault.metadata)
                    for message in orders:
                        self._do(message)
                except grpc.RpcError as error:
                    found: Any = error
                    if found.code() is grpc.StatusCode.UNIMPLEMENTED:
                        pause = WITHOUT_JOBS_SECONDS
                    else:
                        logging.info("the shift was broken off: %s", error_of(found).message)
                except ValueError:  # of grpc, for a channel that was closed meanwhile
                    pass
                finally:
                    over.set()
            self._vault.wait(pause)

    def _said(self, over: threading.Event) -> Iterator[pb.WorkShiftRequest]:
        worker, incarnation = self._vault.worker
        while not over.is_set():
            loops = [progress_to_proto(loop.assignment, loop.progress) for loop in self._hall.loops()]
            yield pb.WorkShiftRequest(worker=worker, incarnation=incarnation, loops=loops)
            over.wait(SAY_SECONDS)

    def _do(self, message: pb.WorkShiftResponse) -> None:
        try:
            order = order_from_proto(message)
        except TelegradError:
            logging.exception("job %s: an order that cannot be read", message.job)
            return
        if isinstance(order, Assignment):
            self._hall.begin(order)
        elif order is not None:
            self._hall.order(message.job, message.number, order)
