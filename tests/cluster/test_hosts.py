"""A cluster over hosts (network namespaces) with TLS and tokens, as `telegrad-server init` makes them; links are cut.

The gateway is on host 1, a worker on hosts 2 and 3 each, clients are on host 4, or beside a worker.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.namespaces import Hosts, Program, address, are_possible, hosts
from tests.cluster.test_crew import digest, embedded

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not are_possible(), reason="needs hosts.sh and root"),
]

LEASE_SECONDS = 6.0
NOTICED_SECONDS = 10.0
"""A silent peer is noticed by keep-alive, 3 s and 3 s, and replaced; on a machine that does other things, too."""

SHORT_SECONDS = 1.5
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
GIVEN_UP = 75


class Cluster:
    """A gateway and two workers on three of four hosts."""

    def __init__(self, on: Hosts, folder: Path) -> None:
        self.on = on
        self._secrets = folder / "secrets"
        command = [sys.executable, "-m", "telegrad_server", "init", str(self._secrets), "--name", address(1)]
        subprocess.check_call(command, stdout=subprocess.DEVNULL)
        self.gateway = self._server(
            1, "gateway", "--cluster-host", address(1), f"--worker-lease-seconds={LEASE_SECONDS}"
        )
        assert "gateway listening" in self.gateway.line()
        self.workers = {host: self._worker(host) for host in (2, 3)}

    def _server(self, host: int, role: str, *more: str) -> Program:
        options = ["--role", role, "--host", address(host), "--secrets-dir", str(self._secrets), "--backend", "numpy"]
        return self.on.run(host, "-m", "telegrad_server.main", *options, *more, **THREADS)

    def _worker(self, host: int) -> Program:
        options = ("--gateway", f"{address(1)}:50052", "--name", f"host-{host}", "--port", "50053")
        worker = self._server(host, "worker", *options, "--direct-host", address(host))
        assert f"worker host-{host} listening" in worker.line()
        return worker

    def client(self, what: str, *, host: int = 4, home: int, steps: int, gates: str = "") -> Program:
        """tests/cluster/away.py on a host."""
        environment = {
            "TELEGRAD_TEST_CA": str(self._secrets / "ca.pem"),
            "TELEGRAD_TOKEN_FILE": str(self._secrets / "client.token"),
            "TELEGRAD_TEST_GATES": gates,
            "PYTHONPATH": os.pathsep.join(["", str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
        }
        words = ("-m", "tests.cluster.away", what, f"grpcs://{address(1)}:50051", f"host-{home}", str(steps))
        return self.on.run(host, *words, **THREADS, **environment)

    def cut_for(self, host: int, seconds: float) -> None:
        """Cut a host's link and heal it again."""
        self.on.cut(host)
        time.sleep(seconds)
        self.on.heal(host)

    def supervise(self, host: int) -> int:
        """Wait until the host's worker has ended, and start it again, as a supervisor does; its exit status."""
        status = self.workers[host].process.wait(20)
        self.workers[host] = self._worker(host)
        return status


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with hosts(4) as on:
        yield Cluster(on, tmp_path_factory.mktemp("cluster"))


def test_replicas_on_two_hosts_have_the_bits_of_one_process(cluster: Cluster) -> None:
    client = cluster.client("train", home=2, steps=6)

    assert client.until("digest") == digest(embedded(replicas=4, steps=6))


@pytest.mark.parametrize(
    ("strike", "mend"), [(Hosts.cut, Hosts.heal), (Hosts.freeze, Hosts.thaw)], ids=["cut", "frozen"]
)
def test_a_peer_that_falls_silent_in_mid_step_is_replaced_and_changes_no_bit(
    cluster: Cluster, strike: Callable[[Hosts, int], None], mend: Callable[[Hosts, int], None]
) -> None:
    client = cluster.client("train", home=2, steps=120, gates="110")
    while client.until("step") < 30:
        pass

    strike(cluster.on, 3)
    began = last = time.monotonic()
    longest = 0.0
    while client.until("step") < 110:
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    print(f"the longest step took {longest:.1f} s, all {last - began:.1f} s")
    assert longest < NOTICED_SECONDS

    time.sleep(max(0.0, began + LEASE_SECONDS + 1 - time.monotonic()))
    mend(cluster.on, 3)
    assert cluster.supervise(3) == GIVEN_UP
    client.say()
    assert client.until("digest") == digest(embedded(replicas=4, steps=120))


def test_a_worker_behind_a_cut_commits_nothing_after_its_lease_and_ends_when_it_hears_that(cluster: Cluster) -> None:
    client = cluster.client("count", host=3, home=3, steps=100_000)
    assert client.until("direct") is True
    while client.until("count") < 20:
        pass

    cluster.on.cut(3)
    cut = time.monotonic()
    times: list[float] = []
    while True:
        try:
            event = client.line(LEASE_SECONDS / 2)
        except AssertionError:
            break
        if found := re.search(r'"count".*"at": ([\d.]+)', event):
            times.append(float(found[1]))
    assert times[-1] < cut + LEASE_SECONDS
    time.sleep(max(0.0, cut + LEASE_SECONDS + 1 - time.monotonic()))
    cluster.on.heal(3)

    assert client.until("error", 20.0) == "StateLost"
    assert cluster.supervise(3) == GIVEN_UP
    assert cluster.client("count", home=3, steps=3).until("ended") is True


@pytest.mark.parametrize("host", [1, 2], ids=["gateway", "home"])
def test_a_cut_that_is_shorter_than_the_lease_is_waited_out(cluster: Cluster, host: int) -> None:
    client = cluster.client("count", home=2, steps=60)
    while client.until("count") < 20:
        pass

    cluster.cut_for(host, SHORT_SECONDS)

    assert [client.until("count") for _ in range(21, 61)] == list(range(21, 61))


def test_a_home_that_is_cut_off_for_good_is_lost_and_its_client_hears_so(cluster: Cluster) -> None:
    client = cluster.client("count", home=2, steps=100_000)
    while client.until("count") < 20:
        pass

    cluster.on.cut(2)
    began = time.monotonic()
    assert client.until("error", 60.0) == "StateLost"
    print(f"told after {time.monotonic() - began:.1f} s")

    cluster.on.heal(2)
    assert cluster.supervise(2) == GIVEN_UP
    assert cluster.client("train", home=2, steps=4).until("digest") == digest(embedded(replicas=4, steps=4))
