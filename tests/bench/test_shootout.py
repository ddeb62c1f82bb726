"""The shoot-out: our ways agree with each other on every line, and what is found is written down."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.results import Section, Table, write_section
from bench.shootout.child import Child
from bench.shootout.lines import LINES
from bench.shootout.turns import LossesDiffer, agreed
from tests.architecture import ROOT


def test_a_section_takes_the_place_of_the_one_of_its_title(tmp_path: Path) -> None:
    file = tmp_path / "local" / "RESULTS.md"
    for title, value in (("First", "1"), ("Second", "2"), ("First", "3")):
        write_section(Section(title, "About.", (Table(("what", "value"), [("x", value)]),)), file)

    text = file.read_text()

    assert text.count("## ") == 2
    assert text.index("## First") < text.index("## Second")
    assert "| x | 3 |" in text and "| x | 1 |" not in text
    assert text.count("- machine: ") == 2


def test_no_comparison_is_made_where_losses_differ() -> None:
    assert agreed({"a": [2.0, 1.0], "b": [2.0, 1.0005]}) == pytest.approx(5e-4, rel=1e-2)
    for bad in (1.1, math.nan):
        with pytest.raises(LossesDiffer):
            agreed({"a": [2.0, 1.0], "b": [2.0, bad]})


@pytest.mark.parametrize("name", LINES)
def test_no_line_can_be_learnt_by_heart(name: str) -> None:
    line = LINES[name].of_batch(4)

    x, y = line.data()

    assert np.array_equal(x[::2], x[1::2])
    assert (y[::2] != y[1::2]).any()


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", LINES)
def test_the_first_losses_are_pytorchs(name: str) -> None:
    pytest.importorskip("torch")
    losses: dict[str, list[float]] = {}

    for peer in ("embedded", "torch eager"):
        with Child(peer) as child:
            child.load(name)
            losses[peer], _ = child.losses(3)

    agreed(losses)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_quick_run_of_ours_writes_its_table(tmp_path: Path) -> None:
    file = tmp_path / "RESULTS.md"
    peers = [option for peer in ("embedded", "remote", "job") for option in ("--peer", peer)]

    subprocess.run(
        [sys.executable, "-m", "bench.shootout", "--line", "mlp", "--quick", "--to", str(file), *peers],
        cwd=ROOT, check=True, capture_output=True, timeout=500,
    )  # fmt: skip

    text = file.read_text()
    assert LINES["mlp"].title in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| resident", "| fresh", "| first"))]
    assert len(rows) == 5  # two feeds, quiet and not, and the first step
    for row in rows:
        assert all(float(cell.split(" ")[0]) > 0 for cell in row[1:]), row
