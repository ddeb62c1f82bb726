"""The bench of jobs runs, at a size that says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.jobs import Effort, first_news, kills, stall, step_cost

TINY = Effort(
    servers=1, rounds=1, small_steps=40, large_steps=10, checkpoints=1, checkpoint_width=32, kill_seconds=3.0, kills=1
)


@pytest.mark.slow
def test_every_question_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEGRAD_DATA_DIR", str(tmp_path / "embedded"))

    rows = [*first_news(TINY, tmp_path), *step_cost(TINY), *stall(TINY, tmp_path), *kills(TINY, tmp_path)]

    assert len(rows) == 8
    assert all(what and measured for what, _, measured, _ in rows)
