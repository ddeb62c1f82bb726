"""The examples: each fits on a page and runs, embedded and against servers, at a small size here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.conftest import gateway, wait_for
from tests.faults import conftest as faults
from tests.faults.conftest import Server

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SMALL = {
    "cnn.py": ["--epochs", "1"],
    "digits.py": ["--epochs", "2"],
    "digits_job.py": ["--epochs", "2"],
    "digits_remote.py": [],
    "gpt.py": ["--steps", "20"],
    "pipeline.py": ["--epochs", "1"],
    "replicas.py": ["--epochs", "1"],
    "series.py": ["--epochs", "1"],
    "two_tower.py": ["--epochs", "1"],
}
SAID = {
    "cnn.py": r"accuracy \d+\.\d% on 359 held-out images",
    "digits.py": r"accuracy  \d+\.\d% on 359 held-out images",
    "digits_job.py": r"after step 46 \(DONE\): \d+\.\d% of the held-out images",
    "digits_remote.py": r"accuracy  9[6-9]\.\d% on 359 held-out images",
    "gpt.py": r"loss \d\.\d+ at step 10, \d\.\d+ at 20\nThe statement ",
    "pipeline.py": r"\d+\.\d% of the rows right",
    "replicas.py": r"which ended at step 32\nbits: sha256 [0-9a-f]{16} ",
    "series.py": r"expected [▁-█]{24}\ncame     [▁-█]{24}\nmean error",
    "two_tower.py": r"\d+\.\d% of the later clicks are among ten recommendations",
}
JOBS = [example for example in EXAMPLES if "session.submit(" in example.read_text()]

start = faults.start


def said(example: Path | str, folder: Path, *more: str) -> str:
    """What an example prints, with jobs under ``folder`` if it is embedded."""
    path = ROOT / "examples" / example
    done = subprocess.run(
        [sys.executable, path, *SMALL[path.name], *more],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=ROOT / "examples",
        env={**os.environ, "TELEGRAD_DATA_DIR": str(folder), "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.name)
def test_an_example_is_a_page(example: Path) -> None:
    assert len(example.read_text().splitlines()) < 80


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.name)
def test_an_example_runs_and_says_what_came_of_it(example: Path, tmp_path: Path) -> None:
    assert re.search(SAID[example.name], said(example, tmp_path))


@pytest.mark.parametrize("example", JOBS, ids=lambda p: p.name)
def test_a_job_runs_on_a_server_too(start: Callable[..., Server], example: Path, tmp_path: Path) -> None:
    server = start("--data-dir", str(tmp_path / "served"))

    text = said(example, tmp_path / "embedded", "--server", server.address)

    assert re.search(SAID[example.name], text)
    assert not (tmp_path / "embedded").exists()


@pytest.mark.slow
def test_both_ways_to_run_the_digits_end_in_the_same_bits(tmp_path: Path) -> None:
    digests = [
        re.findall(r"sha256 (\w+)", said(name, tmp_path, *more))
        for name, more in (("digits.py", ["--epochs", "40"]), ("digits_remote.py", []))
    ]

    assert len(digests[0]) == 1
    assert digests[0] == digests[1]


def test_replicas_have_the_same_bits_on_a_server(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start("--data-dir", str(tmp_path / "served"))

    served = said("replicas.py", tmp_path / "embedded", "--server", server.address)

    assert served.splitlines()[-1] == said("replicas.py", tmp_path / "embedded").splitlines()[-1]


@pytest.mark.slow
def test_a_pipeline_over_two_workers_has_the_losses_of_one(tmp_path: Path) -> None:
    with gateway("--workers", "2") as running:
        wait_for(running, 2)
        two = said("pipeline.py", tmp_path, "--server", running.address).splitlines()
    one = said("pipeline.py", tmp_path).splitlines()

    assert "'1.0.weight': 1" in two[0]
    assert [line for line in two if line.startswith(("epoch", "1", "9"))] == [
        line for line in one if line.startswith(("epoch", "1", "9"))
    ]
    assert any(line.startswith("epoch 1: loss") for line in two)
