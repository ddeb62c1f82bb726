"""gRPC's health service: who may ask, and what is said when."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc as health
from telegrad_server.access import Caller, Gate
from telegrad_server.probe import ask
from telegrad_server.service import health as health_service

from tests.server.test_front import Front

Status = pb.HealthCheckResponse.ServingStatus


@pytest.fixture
def front() -> Iterator[Front]:
    front = Front(Gate(((b"x" * 32, Caller("alice")),)))
    yield front
    front.close()


@pytest.mark.parametrize("service", ["", "telegrad.wire.v1.Sessions", "live"])
def test_a_server_that_takes_sessions_serves_and_wants_no_token(front: Front, service: str) -> None:
    answer = health.HealthStub(front.channel).Check(pb.HealthCheckRequest(service=service), timeout=10)

    assert answer.status == Status.SERVING


def test_a_wrong_token_is_refused_here_too(front: Front) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        health.HealthStub(front.channel).Check(
            pb.HealthCheckRequest(), timeout=10, metadata=[("authorization", "Bearer wrong")]
        )

    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED  # pyright: ignore


def test_a_service_that_does_not_exist_is_not_found(front: Front) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        health.HealthStub(front.channel).Check(pb.HealthCheckRequest(service="nobody"), timeout=10)

    assert caught.value.code() == grpc.StatusCode.NOT_FOUND  # pyright: ignore
    watch = health.HealthStub(front.channel).Watch(pb.HealthCheckRequest(service="nobody"), timeout=10)
    assert next(watch).status == Status.SERVICE_UNKNOWN
    watch.cancel()


def test_a_watcher_is_told_that_the_server_drains_and_a_live_process_lives(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_service, "WATCH_SECONDS", 0.01)
    stub = health.HealthStub(front.channel)
    watch = stub.Watch(pb.HealthCheckRequest(), timeout=20)
    assert next(watch).status == Status.SERVING

    front.worker.stop()

    assert next(watch).status == Status.NOT_SERVING
    address = f"127.0.0.1:{front.port}"
    said = [ask(address, ca_cert=None, server_name=None, service=s, timeout_seconds=10) for s in ("", "live")]
    assert said == ["NOT_SERVING", "SERVING"]


def test_stopping_tells_watchers_and_does_not_wait_for_them() -> None:
    front = Front()
    watch = health.HealthStub(front.channel).Watch(pb.HealthCheckRequest(), timeout=60)
    assert next(watch).status == Status.SERVING
    told: list[int] = []
    listening = threading.Thread(target=lambda: told.extend(answer.status for answer in watch))
    listening.start()

    front._loop.call_soon_threadsafe(front._ending.set)

    listening.join(20)
    front._thread.join(20)  # the loop is closed with it
    front.channel.close()
    assert told == [Status.NOT_SERVING]


def test_watchers_without_a_token_cannot_use_up_the_calls(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_service, "MAX_WATCHERS", 2)
    stub = health.HealthStub(front.channel)
    watching = [stub.Watch(pb.HealthCheckRequest(), timeout=20) for _ in range(2)]
    assert all(next(watch).status == Status.SERVING for watch in watching)

    with pytest.raises(grpc.RpcError) as caught:
        next(stub.Watch(pb.HealthCheckRequest(), timeout=20))

    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED  # pyright: ignore
    for watch in watching:
        watch.cancel()


def test_bytes_that_are_no_request_are_refused(front: Front) -> None:
    raw = front.channel.unary_unary("/grpc.health.v1.Health/Check", lambda b: b, lambda b: b)

    with pytest.raises(grpc.RpcError) as caught:
        raw(b"\xff\xff", timeout=10)

    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT  # pyright: ignore


def test_nobody_there_is_said_as_such() -> None:
    said = ask("127.0.0.1:1", ca_cert=None, server_name=None, service="", timeout_seconds=5)

    assert said.startswith("UNAVAILABLE")
