"""docker-compose.yml on a real engine: what comes up, who may come in, training over it, and what a crash does.

Run by scripts/test-cluster, which builds the image.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import telegrad as tg
from telegrad.errors import AccessError, TelegradError
from telegrad_server.probe import ask

from tests.cluster.compose.deployment import ROOT, Deployment, until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

UP_SECONDS = 20.0


def train(*arguments: str, **environment: str) -> str:
    """Train on the digits; the digest of the parameters."""
    command = [sys.executable, str(ROOT / "examples/digits.py"), *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"sha256 (\w+)", done.stdout)
    assert found
    return found[1]


def test_it_is_up_within_twenty_seconds_of_the_first_start(cluster: Deployment) -> None:
    print(f"up --wait took {cluster.up_seconds:.1f} s")
    if cluster.up_seconds > UP_SECONDS:  # the machine may have done other things: once more
        cluster.down()
        cluster.up()
        print(f"and then {cluster.up_seconds:.1f} s")

    assert cluster.up_seconds < UP_SECONDS
    assert cluster.is_served()


def test_training_from_outside_ends_in_the_bits_of_training_embedded(whole: Deployment) -> None:
    where = ("--server", whole.address, "--ca-cert", str(whole.ca_cert))

    remote = train(*where, TELEGRAD_TOKEN_FILE=str(whole.token_file))

    assert remote == train()


def test_nothing_but_the_gateways_port_is_published_and_that_on_loopback(whole: Deployment) -> None:
    published = {
        (container["Config"]["Labels"]["com.docker.compose.service"], port, binding["HostIp"], binding["HostPort"])
        for container in whole.containers()
        for port, bindings in container["NetworkSettings"]["Ports"].items()
        for binding in bindings or ()
    }

    assert published == {("gateway", "50051/tcp", "127.0.0.1", str(whole.port))}


def test_processes_are_not_root_and_have_no_rights_of_its_own(whole: Deployment) -> None:
    for container in whole.containers():
        status = subprocess.check_output(["docker", "exec", container["Id"], "cat", "/proc/self/status"], text=True)
        values = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert values["Uid"].split() == ["10001"] * 4
        assert int(values["CapEff"], 16) == int(values["CapBnd"], 16) == 0
        assert values["NoNewPrivs"] == "1"


def test_secrets_are_read_only_where_they_are_used_and_made_once(whole: Deployment) -> None:
    (gateway,) = whole.containers("gateway")
    mounts = {mount["Destination"]: mount["RW"] for mount in gateway["Mounts"]}
    assert mounts["/etc/telegrad"] is False

    said = whole.compose("run", "--rm", "--no-TTY", "init")

    assert re.search("^kept .*tokens", said, re.MULTILINE)
    assert "made" not in said


def test_who_has_no_token_or_a_wrong_one_or_no_tls_is_refused(
    whole: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TELEGRAD_TOKEN", raising=False)
    for token in (None, "telegrad_of_nobody_at_all"):
        with pytest.raises(AccessError):
            tg.connect(whole.address, token=token, ca_cert=str(whole.ca_cert), new=True)
    said = ask(f"localhost:{whole.port}", ca_cert=None, server_name=None, service="", timeout_seconds=3)
    assert said.startswith(("UNAVAILABLE", "DEADLINE_EXCEEDED"))


def test_health_is_told_without_a_token_and_inside_by_the_images_own_check(whole: Deployment) -> None:
    said = ask(f"localhost:{whole.port}", ca_cert=str(whole.ca_cert), server_name=None, service="", timeout_seconds=5)

    assert said == "SERVING"
    assert whole.compose("exec", "-T", "gateway", "telegrad-server", "health").strip() == "SERVING"


@pytest.mark.parametrize(
    ("host", "sample"),
    [("gateway", r'telegrad_workers\{state="live"\} 1\.0'), ("worker", r"telegrad_sessions_opened_total [1-9]")],
)
def test_prometheus_finds_metrics_inside_the_network(whole: Deployment, host: str, sample: str) -> None:
    assert whole.is_served()

    text = whole.metrics(host)

    assert re.search(f"^{sample}", text, re.MULTILINE)
    assert re.search(r'^telegrad_build\{version="[^"]+"\} 1\.0$', text, re.MULTILINE)
    assert whole.token not in text


def test_a_worker_that_crashes_is_replaced_and_sessions_that_lived_there_are_told(whole: Deployment) -> None:
    (worker,) = whole.containers("worker")
    restarts = whole.restarts(worker)
    with pytest.raises(TelegradError), whole.connect() as session:
        x = tg.asarray([1.0])
        assert x.item() == 1.0

        whole.crash(worker)

        (x + 1).item()
        session.close()

    until(lambda: whole.restarts(worker) > restarts, seconds=30)
    until(whole.is_served, seconds=60)


def test_a_pause_is_waited_out(whole: Deployment) -> None:
    with whole.connect():
        x = tg.asarray([1.0, 2.0])
        assert x.sum().item() == 3.0

        whole.compose("pause", "gateway")
        y = x * 3
        whole.compose("unpause", "gateway")

        assert y.sum().item() == 9.0
    (gateway,) = whole.containers("gateway")
    until(lambda: whole.health(gateway) == "healthy", seconds=20)  # after a pause the engine waits for the next check


def test_stopping_ends_in_order_with_status_0(whole: Deployment) -> None:
    (gateway,) = whole.containers("gateway")

    whole.compose("stop", "gateway")

    assert whole.asked(gateway, "{{.State.ExitCode}} {{.State.OOMKilled}}") == "0 false"


def test_what_was_backed_up_is_good_in_a_new_deployment(whole: Deployment) -> None:
    before = whole.token
    saved = whole.in_volume("secrets", "tar", "-C", "/volume", "-c", ".")
    whole.down()
    whole.compose("create", "--no-build")  # makes the volumes
    whole.in_volume("secrets", "tar", "-C", "/volume", "-x", input=saved)

    whole.up()

    assert whole.token == before
    assert whole.is_served()
