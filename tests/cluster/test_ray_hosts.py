"""Ray over network namespaces as hosts: hosts that die, and a link that is cut and healed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.cluster import namespaces

HOSTS = namespaces.SCRIPT

pytestmark = [
    pytest.mark.ray,
    pytest.mark.hosts,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not namespaces.are_possible(), reason="needs hosts.sh and root"),
]

GATEWAY = """
import json, sys, threading
from telegrad_server.cluster.nodes import WorkerSize, spec_for
from telegrad_server.cluster.ray_cluster import Program, RayLauncher, RaySettings
lock = threading.Lock()
def say(**event):
    with lock:
        print(json.dumps(event), flush=True)
program = Program("http.server", lambda spec: ["--bind", "127.0.0.1", "0"], {})
launcher = RayLauncher(RaySettings(**json.loads(sys.argv[1])), size=WorkerSize(), program=program)
def changed():
    say(devices={device.labels["address"]: device.name for device in launcher.devices()})
launcher.open(lambda name, reason: say(ended=name, reason=reason), changed)
for line in sys.stdin:
    name, wanted = line.split()
    launcher.start(spec_for(name, next(d for d in launcher.devices() if d.labels["address"] == wanted)))
launcher.close()
"""

RAYLET = """
import json, os, sys
from telegrad_server.cluster.ray_cluster import RayletSettings, run_raylet
sys.exit(run_raylet(RayletSettings(**json.loads(sys.argv[1])), os.environ))
"""


def address(host: int) -> str:
    return f"10.231.7.{10 + host}"


def on_host(host: int, program: str, settings: dict[str, Any], **more: Any) -> subprocess.Popen[str]:
    """A program on a host, with the host's name."""
    name = f'hostname tghost{host}; exec "$@"'
    command = ["ip", "netns", "exec", f"tghost{host}", "unshare", "--uts", "sh", "-c", name, "sh", sys.executable, "-P"]
    return subprocess.Popen([*command, "-c", program, json.dumps(settings)], text=True, start_new_session=True, **more)


def processes_of(host: int) -> list[int]:
    return [int(pid) for pid in subprocess.check_output(["ip", "netns", "pids", f"tghost{host}"], text=True).split()]


class Gateway:
    """The launcher on the first host, and what it has told."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.process = on_host(1, GATEWAY, settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.devices: dict[str, str] = {}
        self.ended: dict[str, str] = {}
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            with self._news:
                self.devices = event.get("devices", self.devices)
                if "ended" in event:
                    self.ended[event["ended"]] = event["reason"]
                self._news.notify_all()

    def until(self, condition: Callable[[], Any], seconds: float) -> float:
        """Wait for it; returns the seconds that it took."""
        began = time.monotonic()
        with self._news:
            while not condition():
                assert time.monotonic() < began + seconds, f"not in {seconds} s: {self.devices} {self.ended}"
                self._news.wait(0.1)
        return time.monotonic() - began

    def start(self, name: str, host: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name} {address(host)}\n")
        self.process.stdin.flush()

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self._thread.join()
        self.process.stdout.close()


@pytest.fixture
def hosts() -> Iterator[Path]:
    """Three hosts; whatever still runs on them afterwards is killed."""
    with namespaces.hosts(3):
        yield HOSTS


def web_servers(host: int) -> list[int]:
    return [pid for pid in processes_of(host) if "http.server" in _command(pid)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def test_hosts_die_are_cut_off_and_come_back(hosts: Path) -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="tg-", ignore_cleanup_errors=True))
        token = Path(folder) / "token"
        token.touch(0o600)
        token.write_text("0123456789abcdef")
        head = {"mode": "head", "host": address(1), "token_file": str(token), "folder": f"{folder}/1"}
        began = time.monotonic()
        gateway = Gateway(head)
        stack.callback(gateway.close)

        def raylet(host: int) -> subprocess.Popen[str]:
            settings = {
                "address": f"{address(1)}:6379",
                "token_file": str(token),
                "cpus": 1,
                "folder": f"{folder}/{host}",
            }
            return on_host(host, RAYLET, settings)

        second, third = raylet(2), raylet(3)
        gateway.until(lambda: len(gateway.devices) == 2, 40.0)
        print(f"three hosts up in {time.monotonic() - began:.1f} s")
        for host in (2, 3):
            gateway.start(f"worker-{host}", host)
            gateway.until(lambda host=host: web_servers(host), 20.0)

        for pid in processes_of(2):
            os.kill(pid, signal.SIGKILL)
        told = gateway.until(lambda: "worker-2" in gateway.ended, 8.0)
        print(f"all processes of a host killed: told after {told:.1f} s: {gateway.ended['worker-2']}")
        second.wait()
        gateway.until(lambda: list(gateway.devices) == [address(3)], 5.0)
        second = raylet(2)
        print(f"it was back after {gateway.until(lambda: address(2) in gateway.devices, 30.0):.1f} s")
        gateway.start("worker-4", 2)
        gateway.until(lambda: web_servers(2), 20.0)

        subprocess.check_call([hosts, "cut", "3"])
        told = gateway.until(lambda: "worker-3" in gateway.ended, 12.0)
        print(f"link cut: told after {told:.1f} s: {gateway.ended['worker-3']}")
        cut = time.monotonic()
        status = third.wait(40)
        print(f"the host behind the cut gave up {time.monotonic() - cut:.1f} s later with status {status}")
        assert status == 1
        gateway.until(lambda: not web_servers(3), 3.0)
        subprocess.check_call([hosts, "heal", "3"])
        third = raylet(3)
        print(f"healed: it was back after {gateway.until(lambda: address(3) in gateway.devices, 30.0):.1f} s")

        gateway.start("worker-5", 3)
        gateway.until(lambda: web_servers(3), 20.0)
        subprocess.check_call([hosts, "cut", "3"])
        gateway.until(lambda: "worker-5" in gateway.ended, 12.0)
        subprocess.check_call([hosts, "heal", "3"])
        healed = time.monotonic()
        gateway.until(lambda: not web_servers(3), 15.0)
        print(f"healed before it gave up: its worker was gone after {time.monotonic() - healed:.1f} s")
        third.wait(15)

        began = time.monotonic()
        gateway.process.kill()
        gateway.until(lambda: not web_servers(2), 15.0)
        print(f"gateway killed: its workers were gone after {time.monotonic() - began:.1f} s")
        assert second.wait(30) == 1
        gateway.until(lambda: not processes_of(1) and not processes_of(2), 15.0)
        print(f"and all processes of Ray after {time.monotonic() - began:.1f} s")
