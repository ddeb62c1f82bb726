"""A command line whose profiles and tokens are the test's own, and servers of all kinds to ask."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from click.testing import CliRunner, Result
from telegrad.cli import cli
from telegrad_server.secrets_folder import make_secrets, today

from tests.server.test_service import start, stop


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the test's profiles are; nothing of the machine's user is seen."""
    for name in ("TELEGRAD_PROFILE", "TELEGRAD_TOKEN", "TELEGRAD_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "telegrad" / "profiles.toml"


Telegrad = Callable[..., Result]


@pytest.fixture
def telegrad() -> Telegrad:
    """Runs a command line in this process; what it prints and its exit status."""

    def run(*words: str, stdin: str = "") -> Result:
        result = CliRunner().invoke(cli, words, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def process(*words: str, stdin: str = "", code: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a command line as a process of its own; ``code`` runs before it."""
    program = f"import sys; {code}\nfrom telegrad.cli import main\nsys.exit(main())"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *words], input=stdin, capture_output=True, text=True, timeout=60
    )


def shape(result: Result) -> Any:
    """The one object that --json has printed."""
    (line,) = result.stdout.splitlines()
    return json.loads(line)


@dataclass(frozen=True)
class Server:
    """A running server, and the folder of its secrets."""

    address: str
    folder: Path

    @property
    def ca_cert(self) -> str:
        """Its authority."""
        return str(self.folder / "ca.pem")

    @property
    def token_file(self) -> str:
        """The token of its one client."""
        return str(self.folder / "client.token")


@pytest.fixture(scope="session")
def plain() -> Iterator[str]:
    """The address of a server without TLS and tokens."""
    running, address = start()
    yield f"grpc://{address}"
    stop(running)


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with TLS that wants a token."""
    folder = tmp_path_factory.mktemp("secure") / "secrets"
    make_secrets(folder, [], now=today())
    running, address = start("--secrets-dir", str(folder))
    yield Server(f"grpcs://{address}", folder)
    stop(running)


@pytest.fixture(scope="session")
def expired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose certificate was made three years ago, for two years, by an authority that is still good."""
    folder = tmp_path_factory.mktemp("expired") / "secrets"
    make_secrets(folder, [], now=today() - timedelta(days=3 * 365))
    running, address = start("--secrets-dir", str(folder))
    yield Server(f"grpcs://{address}", folder)
    stop(running)


@pytest.fixture(scope="session")
def jobs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that keeps jobs and datasets."""
    running, address = start("--data-dir", str(tmp_path_factory.mktemp("kept")))
    yield f"grpc://{address}"
    stop(running)


def submitted(address: str, name: str, *, steps: int, value: float = 1.0, **options: Any) -> None:
    """Leave a job at a server: it counts its steps, and returns ``value`` over the number of the step."""
    with tg.connect(address, new=True) as session:
        w = tg.Variable(np.float32(0.0), name="w")

        def step(x: tg.Tensor) -> tg.Tensor:
            w.assign(w + 1.0)
            return (x * value / w).mean()

        session.submit(
            step, data={"x": np.ones((8, 1), np.float32)}, steps=steps, batch_size=4, name=name, **options
        )  # fmt: skip


@pytest.fixture(scope="session")
def done(jobs_server: str) -> str:
    """A server with the job "done", which has succeeded."""
    submitted(jobs_server, "done", steps=6, checkpoint_every=2)
    with tg.connect(jobs_server, new=True) as session:
        session.jobs["done"].wait(timeout_seconds=120)
    return jobs_server


def completed(words: str, last: str) -> list[str]:
    """What a shell is offered for the last word of a command line."""
    program = "import sys\nfrom telegrad.cli import main\nsys.exit(main())"
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60,
        env={**os.environ, "_TELEGRAD_COMPLETE": "bash_complete", "COMP_WORDS": f"telegrad {words} {last}",
             "COMP_CWORD": str(len(words.split()) + 1)},
    )  # fmt: skip
    return [line.partition(",")[2] for line in said.stdout.splitlines() if line]
