"""What Prometheus reads: the names, what counts what, and that nothing grows with who uses the server."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import telegrad as tg
from prometheus_client.parser import text_string_to_metric_families
from telegrad.errors import TelegradError
from telegrad.wire.v1 import sessions_pb2 as pb
from telegrad_server.cluster.members import Facts, Members
from telegrad_server.cluster.placement import Queue
from telegrad_server.config import Config
from telegrad_server.datasets import Catalog
from telegrad_server.executors import pick_executor
from telegrad_server.floor import Here
from telegrad_server.foreman import Foreman
from telegrad_server.metrics import METRICS, Endpoint, gateway_figures, job_figures, worker_figures
from telegrad_server.tally import Durations
from telegrad_server.worker import Worker

from tests.server.test_front import Front


def read(port: int) -> dict[str, float]:
    """All samples, with their labels but the version's."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        " ".join([sample.name, *(f"{k}={v}" for k, v in sample.labels.items() if k != "version")]): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture
def front() -> Iterator[Front]:
    front = Front(metrics_host="127.0.0.1", metrics_port=0)
    yield front
    front.close()


def scrape(front: Front) -> dict[str, float]:
    assert front.server.metrics_port is not None
    return read(front.server.metrics_port)


GOLDEN = """
telegrad_workers telegrad_queued_sessions
telegrad_build telegrad_backend telegrad_sessions telegrad_tensors telegrad_tensor_bytes telegrad_queued_tasks
telegrad_cached_functions telegrad_cached_function_bytes telegrad_sessions_opened_total
telegrad_sessions_expired_total telegrad_run_seconds telegrad_failed_tasks_total telegrad_refused_calls_total
telegrad_uploaded_bytes_total telegrad_downloaded_bytes_total
telegrad_jobs telegrad_job_restarts_total telegrad_job_steps_total telegrad_job_wait_seconds
telegrad_checkpoint_seconds telegrad_checkpoint_bytes_total
"""


def test_names_are_promises() -> None:
    assert sorted(METRICS) == sorted(GOLDEN.split())


def test_worker_gateway_and_foreman_tell_every_metric(tmp_path: Path) -> None:
    worker = worker_figures(Worker(Config(backend="numpy"), pick_executor("numpy")))
    gateway = gateway_figures(Members(lease_seconds=1.0), Queue(), {})
    foreman = Foreman(
        Here(Worker(Config(backend="numpy"), pick_executor("numpy"))), Catalog(tmp_path / "data"), tmp_path
    )

    assert set(worker) | set(gateway) | set(job_figures(foreman)) == set(METRICS)
    assert job_figures(None) == {}


def test_a_gateway_counts_its_workers_by_state() -> None:
    members = Members(lease_seconds=10.0)
    for name in ("one", "two", "three"):
        members.join(Facts(name, name, "127.0.0.1:1"), 0.0)
    members.drain("two")

    assert gateway_figures(members, Queue(), {})["telegrad_workers"] == {"live": 2, "draining": 1}


def test_what_a_client_does_is_counted(front: Front) -> None:
    big = np.ones((512, 512), np.float32)
    with tg.connect(f"grpc://127.0.0.1:{front.port}", new=True):
        x = tg.asarray(big)
        y = x + 1
        assert y.numpy().sum() == 2 * big.size
        held = scrape(front)

    after = scrape(front)

    assert held["telegrad_sessions"] == 1
    assert held["telegrad_tensors"] >= 1
    assert held["telegrad_tensor_bytes"] >= big.nbytes
    assert after["telegrad_sessions"] == after["telegrad_tensors"] == after["telegrad_tensor_bytes"] == 0
    assert after["telegrad_sessions_opened_total"] == 1
    assert after["telegrad_uploaded_bytes_total"] == big.nbytes
    assert after["telegrad_downloaded_bytes_total"] == big.nbytes
    assert after["telegrad_run_seconds_count"] == after["telegrad_run_seconds_bucket le=+Inf"] >= 1
    assert after["telegrad_run_seconds_sum"] > 0
    assert after["telegrad_backend backend=numpy"] == 1


def test_failures_and_refusals_are_counted_by_reason(front: Front) -> None:
    with tg.connect(f"grpc://127.0.0.1:{front.port}", new=True), pytest.raises(TelegradError):
        tg.linalg.cholesky(-tg.eye(3)).numpy()
    with pytest.raises(Exception, match="no such session"):
        front.call("Sessions/KeepAlive", pb.KeepAliveRequest(session_id="nobody", session_secret=b"x"))

    found = scrape(front)

    assert sum(value for name, value in found.items() if name.startswith("telegrad_failed_tasks_total")) == 1
    assert found["telegrad_refused_calls_total reason=SESSION_UNKNOWN"] == 1


def test_a_lease_that_is_over_is_counted() -> None:
    now = [0.0]
    worker = Worker(Config(backend="numpy"), pick_executor("numpy"), clock=lambda: now[0])
    worker.open_session("alice", "", 1.0)
    now[0] = 10.0

    worker.tick()

    assert worker_figures(worker)["telegrad_sessions_expired_total"] == 1


def test_labels_do_not_grow_with_what_others_send() -> None:
    worker = Worker(Config(backend="numpy"), pick_executor("numpy"))
    for number in range(1000):
        worker.tally.refused[f"REASON_{number}"] += 1
    worker.tally.refused["NOT_FOUND"] += 2
    endpoint = Endpoint([lambda: worker_figures(worker)], host="127.0.0.1", port=0)

    found = read(endpoint.port)
    endpoint.close()

    refused = {name: value for name, value in found.items() if "refused" in name}
    assert refused == {
        "telegrad_refused_calls_total reason=NOT_FOUND": 2,
        "telegrad_refused_calls_total reason=OTHER": 1000,
    }


@pytest.mark.parametrize(("seconds", "place"), [(0.0, 0), (1.0, 0), (1.5, 1), (2.0, 1), (9.0, 2)])
def test_a_duration_belongs_to_the_first_bound_that_holds_it(seconds: float, place: int) -> None:
    durations = Durations((1.0, 2.0))

    durations.add(seconds)

    assert durations.counts.index(1) == place
    assert durations.seconds == seconds


def test_metrics_are_off_unless_asked_for_and_a_taken_port_is_said() -> None:
    front = Front()
    assert front.server.metrics_port is None
    front.close()
    first = Endpoint([], host="127.0.0.1", port=0)
    with pytest.raises(OSError):
        Endpoint([], host="127.0.0.1", port=first.port)
    first.close()
