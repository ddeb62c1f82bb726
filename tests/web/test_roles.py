"""The page of real server processes: over TLS, and of a gateway whose workers hold the sessions."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import telegrad as tg
from telegrad_server import commands

from tests.faults.conftest import wait_until
from tests.web.training import train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@contextmanager
def server(*options: str) -> Iterator[tuple[str, str]]:
    """A process: its gRPC port, and its page's address."""
    command = [sys.executable, "-m", "telegrad_server.main", "--port", "0", "--backend", "numpy", "--web-port", "0"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"listening on \S+:(\d+).*page at (https?://[^\s;)]+)\)", line)
        assert found, line
        yield found[1], found[2]
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_the_page_has_the_servers_certificate_and_tokens(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    assert commands.main(["init", str(folder)]) == 0
    token = (folder / "client.token").read_text().strip()
    trust = ssl.create_default_context(cafile=str(folder / "ca.pem"))

    def ask(path: str, **headers: str) -> Any:
        request = urllib.request.Request(f"https://localhost:{port}{path}", headers=headers)
        with urllib.request.urlopen(request, context=trust, timeout=30) as answer:
            return answer.read()

    with server("--secrets-dir", str(folder), "--web-host", "0.0.0.0") as (_, address):
        port = address.rpartition(":")[2]
        assert address.startswith("https://")
        assert b"telegrad" in ask("/")
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask("/api/hello")
        assert caught.value.code == 401
        caught.value.close()
        assert json.loads(ask("/api/hello", Authorization=f"Bearer {token}"))["tenant"] == "default"
        with pytest.raises(OSError):  # no clear text
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30)
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"https://localhost:{port}/", timeout=30)  # who does not trust the authority


def test_a_gateway_shows_its_workers_and_the_sessions_and_jobs_on_them(tmp_path: Path) -> None:
    options = ("--role", "gateway", "--cluster-port", "0", "--workers", "2", "--web-host", "127.0.0.1")
    options = (*options, "--worker-lease-seconds", "1.5", "--data-dir", str(tmp_path / "data"))
    with server(*options) as (port, address):

        def ask(path: str) -> Any:
            with urllib.request.urlopen(f"{address}/api/{path}", timeout=30) as answer:
                return json.load(answer)

        with tg.connect(f"grpc://127.0.0.1:{port}", timeout_seconds=60) as session:
            x = tg.ones((1000,), dtype=tg.float32)
            assert x.sum().item() == 1000
            wait_until(lambda: any(s["bytes"] >= 4000 for s in ask("sessions")["sessions"]), seconds=30)
            (held,) = ask("sessions")["sessions"]
            devices = {device["worker"]: device for device in ask("cluster")["devices"]}
            assert held["id"] and held["scopes"][0]["tensors"] >= 1
            assert devices[held["worker"]]["own_bytes"] == held["bytes"]
            assert all(0 < d["used_bytes"] < d["memory_bytes"] for d in devices.values())
            job = train(session, "clusters", epochs=100_000)
            wait_until(lambda: "loss" in ask(f"jobs/{job.id}/metrics")["series"], seconds=60)
            (listed,) = ask("jobs")["jobs"]
            assert (listed["name"], listed["state"]) == ("clusters", "RUNNING")
            assert listed["worker"] in devices and listed["spark"]
            wait_until(lambda: any(s["is_job"] for s in ask("sessions")["sessions"]), seconds=30)
            job.cancel()
        wait_until(lambda: not ask("sessions")["sessions"], seconds=30)
