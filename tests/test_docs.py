"""The README and the docs: their Python runs, and what must be in them is."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from telegrad.ops import registry
from telegrad.wire.status import REASONS
from telegrad.wire.v1 import datasets_pb2, jobs_pb2, sessions_pb2, tensors_pb2
from telegrad_server.config import Config
from telegrad_server.metrics import METRICS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "deploy/README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def pages_with_python() -> list[Any]:
    """The README, and in the slow tier all others."""
    found = [p for p in PAGES if blocks(p)]
    return [pytest.param(p, marks=() if p.name == "README.md" else pytest.mark.slow, id=p.name) for p in found]


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with_python())
def test_the_python_in_a_page_runs(page: Path, tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks(page)))

    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "TELEGRAD_DATA_DIR": str(tmp_path / "data")},
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_first_five_minutes_are_as_the_readme_says(tmp_path: Path) -> None:
    """All of it, with another port, since 50051 may be taken, and without pip."""
    section = re.split(r"^## ", (ROOT / "README.md").read_text(), flags=re.MULTILINE)[1]
    with socket.create_server(("127.0.0.1", 0)) as free:
        section = section.replace("50051", str(free.getsockname()[1]))
    assert section.startswith("The first five minutes\n")
    for name, text in re.findall(r"^```python (\S+)\n(.*?)^```", section, re.DOTALL | re.MULTILINE):
        (tmp_path / name).write_text(text)
    console = re.findall(r"^```console\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    installing, serving, *commands = [line.partition("  #")[0].strip() for line in "".join(console).splitlines()]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "XDG_CONFIG_HOME": str(tmp_path / "config"), "COLUMNS": "200"}

    with subprocess.Popen(shlex.split(serving), cwd=tmp_path, env=environment, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None and b"listening" in server.stdout.readline()
            said = [
                subprocess.check_output(line, shell=True, cwd=tmp_path, env=environment, text=True, timeout=100)
                for line in commands
            ]
        finally:
            server.terminate()

    assert installing.startswith("pip install")
    assert "digits SUCCEEDED" in said[2] and "2280/2280" in said[2]
    assert "SUCCEEDED" in said[3]
    assert float(said[4]) < 0.1


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]

    assert missing == []


def test_every_reason_is_documented() -> None:
    text = (ROOT / "docs/errors.md").read_text()

    assert [r for r in REASONS if f"`{r}`" not in text] == []


def test_every_op_is_documented() -> None:
    text = (ROOT / "docs/ops.md").read_text()

    assert [n for n, c in registry().items() if c.__module__.startswith("telegrad.") and f"`{n}`" not in text] == []


def test_every_rpc_is_documented() -> None:
    text = (ROOT / "docs/wire.md").read_text()
    services = [
        sessions_pb2.DESCRIPTOR.services_by_name["Sessions"],
        tensors_pb2.DESCRIPTOR.services_by_name["Tensors"],
        datasets_pb2.DESCRIPTOR.services_by_name["Datasets"],
        jobs_pb2.DESCRIPTOR.services_by_name["Jobs"],
    ]

    assert [m.name for s in services for m in s.methods if f"`{m.name}`" not in text] == []


def test_every_metric_is_documented() -> None:
    text = (ROOT / "deploy/README.md").read_text()

    assert [name for name in METRICS if f"`{name}`" not in text] == []


def test_every_setting_is_documented() -> None:
    text = (ROOT / "deploy/README.md").read_text()

    assert [f.name for f in fields(Config) if f"`{f.name}`" not in text] == []
