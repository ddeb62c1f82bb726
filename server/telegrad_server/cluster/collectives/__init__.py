"""Sums and exchanges between the workers of a group: `executors.communicator` over sockets and shared memory.

docs/collectives.md draws the routes, the order of summation, the bytes and the faults. Read `routes` first.
"""

from telegrad_server.cluster.collectives.listener import Listener, Tls
from telegrad_server.cluster.collectives.members import Member, host_identity
from telegrad_server.cluster.collectives.one import One

__all__ = ["Listener", "Member", "One", "Tls", "host_identity"]
