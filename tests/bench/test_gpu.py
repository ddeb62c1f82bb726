"""`scripts/gpu` on NumPy: what it would do with a GPU, and that a result is there as soon as it is known."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bench import gpu


def test_a_dry_bench_times_every_line_and_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main("bench", is_dry=True, folder=tmp_path)

    written = (tmp_path / "bench.txt").read_text().splitlines()
    assert written == capsys.readouterr().out.splitlines()
    assert len(written) == 8 and all("GB/s" in line for line in written)


def test_what_there_is_no_time_for_is_said() -> None:
    lines = list(gpu.bench(time.monotonic() - 1, is_dry=True)) + list(gpu.checks(time.monotonic() - 1, is_dry=True))

    assert lines and all(line.endswith("no time left") for line in lines)


@pytest.mark.slow
def test_dry_checks_run_tests_file_by_file() -> None:
    lines = list(gpu.checks(time.monotonic() + 100, is_dry=True))

    assert [line.split(":")[0] for line in lines] == list(gpu.DRY_CHECKS)
    assert all("passed" in line for line in lines), lines
