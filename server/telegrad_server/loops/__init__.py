"""The loop of a job on a worker: a session of its own, commanded in process as a client's is, a Run for each step."""

from telegrad_server.loops.checkpoints import Checkpoints
from telegrad_server.loops.hall import Desk, Hall, Loop, Order
from telegrad_server.loops.runner import Assignment, Orders, Progress, Runner

__all__ = ["Assignment", "Checkpoints", "Desk", "Hall", "Loop", "Order", "Orders", "Progress", "Runner"]
