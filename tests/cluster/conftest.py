"""Clusters of real processes on loopback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import pytest
import telegrad as tg


@dataclass
class Running:
    """A gateway with its workers."""

    process: subprocess.Popen[str]
    address: str
    inner: str

    def workers(self) -> list[psutil.Process]:
        """The worker processes that the gateway has made."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "worker" in words(child)]

    def worker(self, name: str) -> psutil.Process:
        """The process of a worker."""
        (found,) = [child for child in self.workers() if name in words(child)]
        return found


def words(process: psutil.Process) -> list[str]:
    """Its command line; that of one which has died is empty."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@contextmanager
def gateway(*options: str, port: str = "0", inner: str = "0") -> Iterator[Running]:
    command = [sys.executable, "-m", "telegrad_server.main", "--role", "gateway", "--backend", "numpy"]
    process = subprocess.Popen(
        [*command, "--port", port, "--cluster-port", inner, *options], stdout=subprocess.PIPE, text=True
    )
    line = read_line(process)
    found = re.search(r"listening on (\S+), for workers on (\S+)", line)
    assert found, line
    try:
        yield Running(process, f"grpc://{found[1]}", found[2])
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Running]:
    """A gateway with two workers, for tests that leave them alive."""
    with gateway("--workers", "2", "--worker-lease-seconds", "3") as running:
        wait_for(running, 2)
        yield running


def wait_for(running: Running, count: int) -> None:
    """Until the first so many workers that the gateway made are in."""
    for i in range(1, count + 1):
        tg.connect(running.address, worker=f"worker-{i}", queue_seconds=60, new=True).close()


def start_worker(
    inner: str, key_file: str, name: str, *options: str, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """A worker that joins by itself."""
    command = [sys.executable, "-m", "telegrad_server.main", "--role", "worker", "--backend", "numpy", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--gateway", inner, "--cluster-key-file", key_file, "--name", name, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    read_line(process)
    return process
