"""What a session survives: cuts, refusals, a killed client, a restarted server; and what it says when it does not."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable

import grpc
import numpy as np
import pytest
import telegrad as tg
from telegrad import nn
from telegrad.errors import ConnectionFailed, SessionError, StateLost, TelegradError
from telegrad.wire.v1 import sessions_pb2 as pb
from telegrad.wire.v1 import sessions_pb2_grpc as services

from tests.faults.conftest import Server, wait_until
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.slow  # every test has a server of its own


def counting(session: tg.Session) -> tuple[tg.Variable, Callable[[], tg.Tensor]]:
    count = tg.Variable(0.0)

    @tg.function
    def step() -> tg.Tensor:
        count.assign(count + 1)
        return count * 1

    return count, step


@pytest.mark.slow
def test_every_step_happens_once_though_the_connection_is_cut_again_and_again(proxy: Proxy) -> None:
    with tg.connect(proxy.address, new=True) as session:
        count, step = counting(session)
        for i in range(300):
            step()
            if i % 50 == 25:
                before = proxy.connections
                proxy.cut()
                wait_until(lambda: proxy.connections > before)  # noqa: B023  # waited for at once

        assert count.item() == 300
    assert proxy.connections >= 7


def test_a_read_waits_through_an_outage(proxy: Proxy) -> None:
    with tg.connect(proxy.address, new=True) as session:
        _, step = counting(session)
        step().item()
        with proxy.down():
            result: list[float] = []
            reader = threading.Thread(target=lambda: result.append(step().item()))
            reader.start()
            wait_until(lambda: proxy.connections >= 3)
            assert not result
        reader.join(timeout=20)

        assert result == [2]


@pytest.mark.slow
def test_large_tensors_arrive_though_the_connection_is_cut(proxy: Proxy) -> None:
    array = np.random.default_rng(0).standard_normal(6_000_000).astype(np.float32)
    with tg.connect(proxy.address, new=True):
        cutter = threading.Thread(target=lambda: (wait_until(lambda: proxy.bytes_up > 4_000_000), proxy.cut()))
        cutter.start()
        x = tg.asarray(array)
        got = (x * 1).numpy()
        cutter.join()

        np.testing.assert_array_equal(got, array)


def test_a_restarted_server_is_a_clear_error_and_a_new_session_works(
    start: Callable[..., Server],
) -> None:
    server = start()
    with tg.connect(server.address, new=True) as session:
        x = tg.asarray(np.ones(1000, np.float32))
        assert (x + 1).numpy()[0] == 2
        server.kill()
        start(port=server.port)

        with pytest.raises(StateLost, match=r"restarted.*connect again"):
            (x + 2).numpy()
        assert not session.is_live
        session.close(check=False)

    with tg.connect(server.address) as again:
        assert tg.asarray([1.0]).item() == 1
        assert again is not session


def test_a_server_that_is_not_there_is_a_clear_error() -> None:
    with pytest.raises(ConnectionFailed, match=r"no telegrad server answers at 127.0.0.1:9 "):
        tg.connect("grpc://127.0.0.1:9", timeout_seconds=0.5)
    with pytest.raises(ConnectionFailed, match="write grpc://host:port"):
        tg.connect("localhost:50051")


def test_a_server_that_stops_tells_its_clients(start: Callable[..., Server]) -> None:
    server = start()
    session = tg.connect(server.address, new=True)
    session.synchronize()
    assert server.stop() == 0

    with pytest.raises(TelegradError, match="shutting down"):
        tg.asarray(np.ones(1000, np.float32)).numpy()
    session.close(check=False)


CLIENT = """
import sys, time, numpy as np, telegrad as tg
session = tg.connect(sys.argv[1], lease_seconds=2)
held = [tg.asarray(np.ones(1000, np.float32)) * i for i in range(1000)]
session.synchronize()
c = session.commands.connection
print(c._id, c._secret.hex(), flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_killed_clients_tensors_are_freed_when_its_lease_is_over_and_not_before(server: Server) -> None:
    command = [sys.executable, "-c", CLIENT, server.address]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None and client.stdin is not None
    session_id, secret = client.stdout.readline().split()
    held = client_memory(server)
    client.kill()
    killed = time.monotonic()
    client.wait()
    client.stdin.close()
    client.stdout.close()

    wait_until(lambda: client_memory(server) < held - 3_000_000, seconds=10)
    took = time.monotonic() - killed

    assert 2 - 2 / 3 - 0.1 <= took <= 2 + 5  # the last heartbeat was up to a third of the lease before the kill
    with grpc.insecure_channel(server.address.removeprefix("grpc://")) as channel, pytest.raises(grpc.RpcError) as gone:
        services.SessionsStub(channel).KeepAlive(
            pb.KeepAliveRequest(session_id=session_id, session_secret=bytes.fromhex(secret))
        )
    assert gone.value.code() is grpc.StatusCode.NOT_FOUND


def client_memory(server: Server) -> int:
    """What the server holds for its clients, as it says itself."""
    with grpc.insecure_channel(server.address.removeprefix("grpc://")) as channel:
        return services.SessionsStub(channel).Hello(pb.HelloRequest()).held_bytes


def test_the_same_arguments_give_the_same_session_while_it_lives(server: Server) -> None:
    first = tg.connect(server.address)

    assert tg.connect(server.address) is first
    other = tg.connect(server.address, new=True)
    assert other is not first
    first.close()
    assert tg.connect(server.address) is not first
    tg.connect(server.address).close()
    other.close()


def test_two_sessions_do_not_see_each_other(server: Server) -> None:
    with tg.connect(server.address, new=True):
        x = tg.asarray(np.ones(1000, np.float32)) * 2
        x.numpy()
        with tg.connect(server.address, new=True), pytest.raises(TelegradError, match="different sessions"):
            x + tg.asarray(np.ones(1000, np.float32))
        assert x.numpy()[0] == 2


@pytest.mark.parametrize("options", [{}, {"replicas": 2}])
def test_a_function_uses_no_tensor_of_another_session(server: Server, options: dict[str, int]) -> None:
    rows = np.ones((2, 3), np.float32)
    with tg.connect(server.address, new=True):
        model, captured = nn.Linear(3, 2), tg.asarray(rows)
        captured.numpy()
        with tg.connect(server.address, new=True):
            mine = tg.asarray(rows)
            for function, arguments in (
                (lambda x: model(x), (rows,)),
                (lambda x: x + captured, (rows,)),
                (lambda x, y: x + y, (mine, captured)),
                (lambda x, m: m(x), (rows, model)),
            ):
                with pytest.raises(SessionError, match="different sessions"):
                    tg.function(function, **options)(*arguments)
        assert tg.function(model)(rows).shape == (2, 2)
