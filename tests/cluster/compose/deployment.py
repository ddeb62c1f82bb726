"""docker-compose.yml, brought up beside whatever else runs on this machine, for the tests in this folder."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import telegrad as tg
from telegrad.errors import TelegradError

ROOT = Path(__file__).resolve().parents[3]


def free_port() -> int:
    """A port of loopback that nobody has, for now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Deployment:
    """A project of Compose with a name, ports and volumes of its own. ``more`` are files beside docker-compose.yml."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.port, self.web_port = free_port(), free_port()
        self.address = f"grpcs://localhost:{self.port}"
        self.ca_cert, self.token_file = folder / "ca.pem", folder / "client.token"
        self._project = f"telegrad-test-{os.getpid()}{'-more' * bool(more)}"
        self._command = ["docker", "compose", "-p", self._project]
        for name in ("docker-compose.yml", *more):
            self._command += ["-f", str(ROOT / name)]
        self._environment = {
            **os.environ,
            "TELEGRAD_PORT": str(self.port),
            "TELEGRAD_WEB_PORT": str(self.web_port),
        }
        self.up_seconds = 0.0

    def compose(self, *words: str, input: str | None = None) -> str:
        """What a command of Compose prints. AssertionError with all it said if it fails."""
        done = subprocess.run(
            [*self._command, *words], env=self._environment, input=input, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, f"docker compose {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def up(self, *words: str) -> None:
        """Start what does not run, wait until it is healthy, and take out what a client needs."""
        began = time.monotonic()
        self.compose("up", "--detach", "--no-build", "--wait", *words)
        self.up_seconds = time.monotonic() - began
        for path in (self.ca_cert, self.token_file):
            self.compose("cp", f"gateway:/etc/telegrad/{path.name}", str(path))

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """A command of Compose that takes its time."""
        command = [*self._command, *words]
        return subprocess.Popen(
            command, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
        )

    @property
    def token(self) -> str:
        """The client's token."""
        return self.token_file.read_text().strip()

    def connect(self, **options: Any) -> tg.Session:
        """A new session, with the client's token."""
        return tg.connect(self.address, token=self.token, ca_cert=str(self.ca_cert), new=True, **options)

    def is_served(self) -> bool:
        """Whether a session can be opened and computes."""
        try:
            with self.connect():
                return (tg.asarray([1.0, 2.0]) * 2).sum().item() == 6.0
        except TelegradError:
            return False

    def metrics(self, host: str) -> str:
        """What Prometheus would read of a host."""
        script = (
            f"import urllib.request as u; print(u.urlopen('http://{host}:9464/metrics', timeout=5).read().decode())"
        )
        return self.compose("exec", "-T", "gateway", "python", "-c", script)

    def workers(self) -> dict[str, dict[str, Any]]:
        """The container of each worker process that runs, by the worker's name."""
        found: dict[str, dict[str, Any]] = {}
        for container in self.containers("worker"):
            processes = subprocess.run(["docker", "top", container["Id"]], capture_output=True, text=True)
            found |= dict.fromkeys(re.findall(r" --name (worker-\d+) ", processes.stdout), container)
        return found

    def containers(self, *services: str) -> list[dict[str, Any]]:
        """What `docker inspect` says of the containers that run."""
        ids = self.compose("ps", "--quiet", *services).split()
        if not ids:
            return []
        return json.loads(subprocess.check_output(["docker", "inspect", *ids], text=True))

    def crash(self, container: dict[str, Any]) -> None:
        """Kill every process in the container but the first, which then ends: a crash, not a stop."""
        subprocess.run(["docker", "exec", container["Id"], "sh", "-c", "kill -9 -1"], check=False, capture_output=True)

    def freeze(self, container: dict[str, Any]) -> None:
        """Let all processes of the container stand still."""
        subprocess.run(["docker", "pause", container["Id"]], check=True, capture_output=True)

    def thaw(self, container: dict[str, Any]) -> None:
        """Let them go on."""
        subprocess.run(["docker", "unpause", container["Id"]], check=True, capture_output=True)

    def restarts(self, container: dict[str, Any]) -> int:
        """How often the engine has started the container again."""
        return int(self.asked(container, "{{.RestartCount}}"))

    def health(self, container: dict[str, Any]) -> str:
        """The container's health, as the engine sees it."""
        return self.asked(container, "{{.State.Health.Status}}")

    def asked(self, container: dict[str, Any], form: str) -> str:
        """What the engine now says of the container, in a form of Go's templates."""
        return subprocess.check_output(["docker", "inspect", "-f", form, container["Id"]], text=True).strip()

    def in_volume(self, volume: str, *words: str, input: bytes = b"") -> bytes:
        """What a command prints that sees a volume as /volume, as root: how the README backs up and restores."""
        command = ["docker", "run", "--rm", "--interactive", "--user", "0", "--entrypoint", words[0]]
        command += ["-v", f"{self._project}_{volume}:/volume", os.environ["TELEGRAD_IMAGE"], *words[1:]]
        return subprocess.run(command, input=input, capture_output=True, check=True, timeout=60).stdout

    def down(self) -> None:
        """Stop it and delete all it made."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "10")


def until(condition: Callable[[], bool], *, seconds: float) -> None:
    """Ask what goes on in other processes again and again. AssertionError if it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"this did not come true within {seconds} s"
        time.sleep(0.1)
