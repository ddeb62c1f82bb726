"""What a gateway tells the workers that it makes, and how it ends if it cannot have them made."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from telegrad_server.cluster.launcher import Device, WorkerSpec
from telegrad_server.config import Config, read_config
from telegrad_server.roles.gateway import worker_arguments

from tests.cluster.conftest import gateway, wait_for

pytestmark = pytest.mark.slow  # servers in processes of their own

GATEWAY = [sys.executable, "-m", "telegrad_server.main", "--role", "gateway", "--port", "0", "--cluster-port", "0"]


def spec(number: int) -> WorkerSpec:
    return WorkerSpec(
        f"worker-{number}", Device(f"abc/gpu{number}", "abc", "gpu", 1.0, labels={"address": "10.0.0.7"}), 1.0
    )


def told(*options: str, number: int) -> Config:
    """The settings of a worker that a gateway with these options makes."""
    config = read_config(["--role", "gateway", *options], {})
    return read_config(worker_arguments(config, spec(number), "key", 50052), {})


def test_workers_of_one_host_have_ports_of_their_own() -> None:
    options = ("--ray", "head", "--cluster-host", "0.0.0.0", "--worker-port", "50051", "--metrics-host", "0.0.0.0")
    first, second = (told(*options, number=i) for i in (0, 1))

    assert (first.port, second.port) == (50051, 50052)
    assert (first.metrics_port, second.metrics_port) == (9464, 9465)
    assert first.advertise_host == "10.0.0.7"


def test_workers_beside_the_gateway_leave_it_its_port_for_metrics() -> None:
    for options in ((), ("--ray", "local")):
        assert told(*options, "--metrics-host", "127.0.0.1", number=0).metrics_port == 9465


def test_workers_have_the_kernels_of_their_gateway() -> None:
    assert told("--native-kernels", "auto", number=0).native_kernels == "auto"
    off = told("--native-kernels", "off", "--kernels-dir", "/kernels", number=0)
    assert (off.native_kernels, off.kernels_dir) == ("off", "/kernels")


@pytest.mark.slow
def test_a_port_for_metrics_that_is_taken_costs_a_worker_its_metrics_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        before = other.getsockname()[1] - 1  # the gateway's; the worker's is the next one

        with gateway("--workers", "1", "--metrics-host", "127.0.0.1", "--metrics-port", str(before)) as running:
            wait_for(running, 1)


def refused(*options: str) -> str:
    """What a gateway says that ends with status 2."""
    done = subprocess.run([*GATEWAY, *options], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--ray", "join"], "--ray join needs --ray-address HOST:PORT"),
        (["--ray", "local", "--worker-gpus", "3"], "3 GPUs cannot be"),
        (["--ray", "local", "--worker-resources", "licence"], "'licence' must be NAME=VALUE"),
        (["--ray", "local", "--worker-resources", "licence=b"], "how much of licence must be a number, not 'b'"),
    ],
)
def test_settings_of_ray_that_cannot_be_end_in_a_sentence(options: list[str], sentence: str) -> None:
    said = refused(*options)

    assert sentence in said
    assert len(said.splitlines()) == 1


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is here")
def test_without_ray_installed_a_sentence_says_what_to_install() -> None:
    assert "install telegrad[ray]" in refused("--ray", "local")


@pytest.mark.ray
@pytest.mark.parametrize(
    ("token", "options", "sentence"),
    [
        (None, [], "Ray wants a token; name its file"),
        ("short", [], "must hold 16 characters or more"),
        ("0123456789abcdef", ["--ray-host", "203.0.113.7"], "203.0.113.7 is no address of this machine"),
        ("0123456789abcdef", ["--ray-host", "nobody.invalid"], "nobody.invalid is no address of this machine"),
        ("0123456789abcdef", ["--ray-folder", "/tmp/" + 40 * "x"], "must have 40 characters or fewer"),
    ],
)
def test_a_head_that_cannot_be_started_ends_in_a_sentence(
    tmp_path: Path, token: str | None, options: list[str], sentence: str
) -> None:
    file = tmp_path / "token"
    if token is not None:
        file.touch(0o600)
        file.write_text(token)
        options = ["--ray-token-file", str(file), *options]

    said = refused("--ray", "head", *options)

    assert sentence in said.splitlines()[-1]
    assert "Traceback" not in said
