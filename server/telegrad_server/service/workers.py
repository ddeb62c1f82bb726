"""The Workers service of a gateway: worker processes join, renew their leases and leave."""

from __future__ import annotations

import hmac
import time
from typing import Any, Protocol

import grpc
from telegrad.errors import AccessError, GraphError, NotFound
from telegrad.wire.v1 import workers_pb2 as pb

from telegrad_server.cluster.members import Facts, Gone, Members, State
from telegrad_server.cluster.placement import companions
from telegrad_server.cluster.tickets import Key
from telegrad_server.service.edge import guarded, reader
from telegrad_server.service.loads import shown

MAX_PEERS = 1024


class Membership(Protocol):
    """Who keeps the members, and hears which of them are gone."""

    members: Members

    def gone(self, gone: Gone | None) -> None:
        """A worker is no member any more."""
        ...


class Workers:
    """The handlers of the Workers service."""

    def __init__(self, membership: Membership, key: Key) -> None:
        self._membership = membership
        self._password = f"Bearer {key.password}"

    def handlers(self) -> grpc.GenericRpcHandler:
        """The handlers under their names."""

        def unary(method: Any, request: Any) -> Any:
            async def admitted(message: Any, context: Any) -> Any:
                self._admit(context)
                return method(message)

            return grpc.unary_unary_rpc_method_handler(guarded(admitted), reader(request), _serialized)

        return grpc.method_handlers_generic_handler(
            "telegrad.wire.v1.Workers",
            {
                "JoinCluster": unary(self.join, pb.JoinClusterRequest),
                "RenewLease": unary(self.renew, pb.RenewLeaseRequest),
                "LeaveCluster": unary(self.leave, pb.LeaveClusterRequest),
                "FindPeers": unary(self.find_peers, pb.FindPeersRequest),
            },
        )

    def _admit(self, context: Any) -> None:
        for name, value in context.invocation_metadata() or ():
            if name == "authorization" and hmac.compare_digest(value, self._password):
                return
        raise AccessError("only members of the cluster may call this", reason="ACCESS_DENIED")

    def join(self, r: pb.JoinClusterRequest) -> pb.JoinClusterResponse:
        """Takes a process in."""
        if not r.worker or not r.incarnation or not r.address:
            raise GraphError("a worker joins with its name, its process and its address", reason="MALFORMED_MESSAGE")
        facts = Facts(
            name=r.worker,
            incarnation=r.incarnation,
            address=r.address,
            direct_address=r.direct_address,
            collectives_address=r.collectives_address,
            machine=r.machine,
            device=r.device,
            backend=r.backend,
            fingerprint=r.fingerprint,
            version=r.version,
            max_sessions=r.max_sessions,
            max_bytes=r.max_bytes,
        )
        member, gone = self._membership.members.join(facts, time.monotonic())
        self._membership.gone(gone)
        response = pb.JoinClusterResponse(generation=member.generation)
        response.lease.FromNanoseconds(int(self._membership.members.lease_seconds * 1e9))
        return response

    def renew(self, r: pb.RenewLeaseRequest) -> pb.RenewLeaseResponse:
        """Renews a lease. NotFound if the gateway does not know the process: it should join (again)."""
        member = self._membership.members.renew(
            r.worker,
            r.incarnation,
            sessions=r.load.sessions,
            held_bytes=r.load.held_bytes,
            busy_seconds=r.load.busy_seconds,
            now=time.monotonic(),
            held={session.session_id: session.held_bytes for session in r.load.held},
        )
        self._membership.members.shown(r.worker, r.incarnation, shown(r.load))
        if member is None:
            raise NotFound(f"worker {r.worker} has not joined this gateway", reason="WORKER_UNKNOWN")
        if r.is_leaving:
            self._membership.members.drain(r.worker)
        response = pb.RenewLeaseResponse(is_draining=member.state is State.DRAINING)
        response.lease.FromNanoseconds(int(self._membership.members.lease_seconds * 1e9))
        return response

    def leave(self, r: pb.LeaveClusterRequest) -> pb.LeaveClusterResponse:
        """Lets a worker go."""
        self._membership.gone(self._membership.members.leave(r.worker, r.incarnation))
        return pb.LeaveClusterResponse()

    def find_peers(self, r: pb.FindPeersRequest) -> pb.FindPeersResponse:
        """Workers for a session's replicas."""
        members = self._membership.members
        home = members.find(r.worker, r.incarnation)
        if home is None:
            raise NotFound(f"worker {r.worker} has not joined this gateway", reason="WORKER_UNKNOWN")
        if r.strategy not in ("pack", "spread"):
            raise GraphError(f"strategy {r.strategy!r} is none; pack or spread", reason="MALFORMED_MESSAGE")
        if r.wanted:
            found = [member for name in r.wanted if (member := members.find(name)) is not None]
        else:
            found = companions(
                home,
                members.all(),
                count=min(r.count, MAX_PEERS),
                strategy=r.strategy,
                without=r.without,
            )
        return pb.FindPeersResponse(
            peers=[
                pb.Peer(
                    worker=m.facts.name,
                    incarnation=m.facts.incarnation,
                    address=m.facts.address,
                    collectives_address=m.facts.collectives_address,
                    machine=m.facts.machine,
                    device=m.facts.device,
                    fingerprint=m.facts.fingerprint,
                )
                for m in found
            ]
        )


def _serialized(message: Any) -> bytes:
    return message.SerializeToString()
