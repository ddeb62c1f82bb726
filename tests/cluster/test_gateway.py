"""A session through a gateway: the same as on a single server, with a home that may die."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import telegrad as tg
from click.testing import CliRunner
from telegrad import nn, optim
from telegrad.cli import cli
from telegrad.errors import AccessError, QuotaExceeded, StateLost
from telegrad.wire.v1 import sessions_pb2 as pb
from telegrad_server.access import check_exposure
from telegrad_server.config import read_config

from tests.cluster.conftest import Running, gateway, start_worker, wait_for

pytestmark = pytest.mark.slow  # members in processes of their own


def train(session: tg.Session, steps: int = 5) -> list[float]:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 8)).astype(np.float32), rng.integers(0, 3, 32)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = optim.AdamW(model.parameters(), lr=0.01)

    @tg.function
    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.minimize(loss)
        return loss

    return [step(x, y).item() for _ in range(steps)]


def test_a_step_through_the_gateway_has_the_bits_of_an_embedded_one(two_workers: Running) -> None:
    with tg.connect(backend="numpy", new=True) as session:
        expected = train(session)
    with tg.connect(two_workers.address, new=True) as session:
        found = train(session)
        assert session.home.startswith("worker-")

    assert found == expected


def test_sessions_are_spread_over_the_workers(two_workers: Running) -> None:
    for session in [tg.connect(two_workers.address, worker="worker-1", new=True) for _ in range(3)]:
        session.close()  # from then on it counts for nothing, whatever the worker said last
    with tg.connect(two_workers.address, new=True) as first, tg.connect(two_workers.address, new=True) as second:
        assert {first.home, second.home} == {"worker-1", "worker-2"}


def test_the_session_and_the_command_line_say_where_one_is(two_workers: Running) -> None:
    with tg.connect(two_workers.address, worker="worker-1", new=True) as session:
        assert "of worker-1, through the gateway, open" in repr(session)

    said = CliRunner().invoke(cli, ["hello", two_workers.address])

    assert said.exit_code == 0, said.output
    assert re.search(r"^home +worker-\d, through the gateway$", said.output, re.MULTILINE)
    assert re.findall(r"^worker +(worker-\d) +live +numpy", said.output, re.MULTILINE) == ["worker-1", "worker-2"]


def test_the_command_line_shows_the_clusters_devices_and_examines_it(two_workers: Running) -> None:
    def shapes(*words: str) -> list[Any]:
        said = CliRunner().invoke(cli, [*words, two_workers.address, "--json"])
        assert said.exit_code == 0, said.output
        return [json.loads(line) for line in said.stdout.splitlines()]

    with tg.connect(two_workers.address, worker="worker-1", new=True) as session:
        train(session)
        (devices,) = shapes("devices")
        _, look = shapes("top", "--count", "2", "--interval", "0.1")
        (status,) = shapes("status")
    (examined,) = shapes("doctor")

    assert [d["name"] for d in devices["devices"]] == [d["name"] for d in look["devices"]] == ["worker-1", "worker-2"]
    assert all(0 <= d["busy"] <= 1 for d in look["devices"])
    assert (status["workers"], status["sessions"]) == (2, sum(d["sessions"] for d in devices["devices"]))
    (compute,) = [check for check in examined["checks"] if check["check"] == "compute"]
    assert re.search(r"^numpy on worker-\d: a sum and back", compute["found"])


def test_bulk_goes_through_both_ways(two_workers: Running) -> None:
    data = np.random.default_rng(1).normal(size=3_000_000)
    with tg.connect(two_workers.address, new=True):
        assert np.array_equal(tg.asarray(data).numpy(), data)


def test_errors_come_through_as_they_are(two_workers: Running) -> None:
    with tg.connect(two_workers.address, new=True):
        x = tg.take(tg.asarray(np.arange(3.0)), tg.asarray(np.array([7])))
        with pytest.raises(IndexError, match="7"):
            x.numpy()
        assert (tg.asarray([1.0]) + 1).item() == 2


def test_a_demand_chooses_the_worker_and_one_that_nobody_meets_is_refused(two_workers: Running) -> None:
    with tg.connect(two_workers.address, worker="worker-2", new=True) as session:
        assert session.home == "worker-2"
    with tg.connect(two_workers.address, backend="numpy", new=True):
        pass


@pytest.mark.slow
def test_a_full_cluster_queues_and_says_so() -> None:
    heard: list[tuple[int, str]] = []
    with gateway("--workers", "1", "--max-sessions", "1") as running:
        first = tg.connect(running.address, new=True)
        with pytest.raises(QuotaExceeded, match=r"place 1 in the queue \(all 1 workers") as caught:
            tg.connect(running.address, queue_seconds=0, new=True)
        assert caught.value.reason == "QUEUE_TIMEOUT"

        def queued(position: int, reason: str) -> None:
            heard.append((position, reason))
            first.close()  # which makes room

        with tg.connect(running.address, on_queued=queued, new=True):
            assert (tg.asarray([1.0]) + 1).item() == 2
    # the one that gave up may still stand before us for a while; it does not hold us up for ever
    assert heard and "as many sessions as they take" in heard[0][1]


@pytest.mark.slow
@pytest.mark.parametrize("hurt", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "standing still"])
def test_a_session_waits_for_a_worker_that_has_just_died(tmp_path: Path, hurt: signal.Signals) -> None:
    key, heard = tmp_path / "key", list[str]()
    key.write_text("5a" * 32)
    with gateway("--cluster-key-file", str(key)) as running, ExitStack() as stack:

        def begin(name: str) -> subprocess.Popen[str]:
            worker = start_worker(running.inner, str(key), name)
            stack.callback(worker.communicate)
            stack.callback(worker.kill)
            return worker

        def queued(position: int, reason: str) -> None:
            heard.append(reason)
            if reason == "worker one does not answer" and heard.count(reason) == 1:
                begin("two")

        worker = begin("one")
        tg.connect(running.address, queue_seconds=60, new=True).close()
        worker.send_signal(hurt)

        with tg.connect(running.address, on_queued=queued, queue_seconds=60, new=True) as session:
            assert session.home == "two"
            assert (tg.asarray([1.0]) + 1).item() == 2
    assert "worker one does not answer" in heard


@pytest.mark.slow
def test_the_death_of_the_home_is_told_and_another_takes_its_place() -> None:
    with gateway("--workers", "2") as running:
        wait_for(running, 2)
        session = tg.connect(running.address, new=True)
        x = tg.asarray(np.ones(4, np.float32))
        assert x.sum().item() == 4
        running.worker(session.home).kill()

        with pytest.raises(StateLost, match="worker-1, the home of this session, is gone"):
            for _ in range(100):
                (x + 1).numpy()
        session.close()
        with tg.connect(running.address, new=True) as second:
            assert second.home == "worker-2"
            assert (tg.asarray([1.0]) + 1).item() == 2
        with tg.connect(running.address, worker="worker-3", queue_seconds=30, new=True) as third:
            assert third.home == "worker-3"  # what was started in its place


@pytest.mark.slow
def test_a_worker_that_stops_being_heard_is_given_up_and_never_comes_back() -> None:
    with gateway("--workers", "1", "--worker-lease-seconds", "1.5") as running:
        session = tg.connect(running.address, new=True)
        x = tg.asarray(np.ones(4, np.float32))
        assert x.sum().item() == 4
        process = running.worker("worker-1")
        process.send_signal(signal.SIGSTOP)

        with pytest.raises(StateLost, match="nothing was heard from it"):
            (x + 1).numpy()
        session.close()
        process.wait(10)  # the gateway has killed it, stopped as it was


@pytest.mark.slow
def test_workers_outlive_a_gateway_and_so_do_sessions(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    with gateway("--cluster-key-file", str(key)) as first:
        port, inner = first.address.rpartition(":")[2], first.inner.rpartition(":")[2]
        worker = start_worker(first.inner, str(key), "steady")
        session = tg.connect(first.address, new=True)
        x = tg.asarray(np.arange(4.0))
        assert x.sum().item() == 6
        first.process.kill()
        first.process.wait()
        with gateway("--cluster-key-file", str(key), port=port, inner=inner):
            assert (x * 2).sum().item() == 12
            session.close()
    worker.terminate()
    worker.communicate(timeout=30)
    assert worker.returncode == 0


@pytest.mark.slow
def test_a_worker_joins_a_new_gateway_at_once_however_long_its_lease_is(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    options = ("--cluster-key-file", str(key), "--worker-lease-seconds", "300")
    with ExitStack() as stack, gateway(*options) as first:
        port, inner = first.address.rpartition(":")[2], first.inner.rpartition(":")[2]
        worker = start_worker(first.inner, str(key), "patient")
        stack.callback(worker.communicate, timeout=30)
        stack.callback(worker.terminate)
        first.process.kill()
        first.process.wait()
        with (
            gateway(*options, port=port, inner=inner) as second,
            tg.connect(second.address, new=True, queue_seconds=30) as session,
        ):
            assert session.home == "patient"


def test_a_call_without_a_ticket_or_with_anothers_is_refused(two_workers: Running) -> None:
    target = two_workers.address.removeprefix("grpc://")
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary("/telegrad.wire.v1.Sessions/KeepAlive")
        for metadata in ((), (("telegrad-ticket-bin", b"x" * 80),)):
            with pytest.raises(grpc.RpcError) as caught:
                call(pb.KeepAliveRequest(session_id="s").SerializeToString(), metadata=metadata)
            record = dict(caught.value.trailing_metadata())["telegrad-error-bin"]  # type: ignore[attr-defined]
            assert pb.ErrorRecord.FromString(record).reason == "TICKET_INVALID"


def test_who_does_not_know_the_password_cannot_join(two_workers: Running, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("cd" * 32)

    worker = start_worker(two_workers.inner, str(key), "stranger")
    _, errors = worker.communicate(timeout=30)

    assert worker.returncode == 75 and "only members of the cluster" in errors


def test_a_worker_needs_a_gateway_and_a_key(capfd: pytest.CaptureFixture[str]) -> None:
    from telegrad_server.main import main

    assert main(["--role", "worker", "--backend", "numpy"]) == 2
    assert "a worker needs --gateway" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        (["--role", "worker", "--host", "0.0.0.0"], "TLS (--tls-cert FILE --tls-key FILE) and the cluster's key"),
        (["--role", "gateway", "--cluster-host", "0.0.0.0"], "TLS (--cluster-cert FILE --cluster-cert-key FILE)"),
        (["--role", "gateway", "--host", "0.0.0.0"], "a token (--token-file FILE)"),
    ],
)
def test_nothing_listens_to_other_machines_unguarded(options: list[str], missing: str) -> None:
    with pytest.raises(AccessError) as caught:
        check_exposure(read_config(options, {}))

    assert missing in caught.value.message


def test_the_home_speaks_for_itself_where_it_has_an_address(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    with gateway("--cluster-key-file", str(key)) as running:
        worker = start_worker(running.inner, str(key), "open", "--direct-host", "127.0.0.1")  # type: ignore[arg-type]
        with tg.connect(running.address, new=True) as session:
            assert session.is_direct
            assert (tg.asarray([1.0]) + 1).item() == 2
        worker.terminate()
        worker.communicate(timeout=30)
