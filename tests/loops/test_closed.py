"""What is asked through a session that was closed is refused in words: jobs, their checkpoints, datasets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import telegrad as tg
from telegrad.errors import SessionError

from tests.faults import conftest as faults
from tests.faults.conftest import Server
from tests.loops.training import BATCH, made, points

pytestmark = pytest.mark.slow
start = faults.start


def test_jobs_datasets_and_checkpoints_of_a_closed_session_say_that_it_is_closed(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start("--data-dir", str(tmp_path / "served"))
    with tg.connect(server.address, new=True) as session:
        digits = session.datasets.put("digits", **points())
        job = session.submit(made().step, data=digits, epochs=1, batch_size=BATCH, name="first")
        job.wait(timeout_seconds=60)
        jobs, datasets, checkpoint = session.jobs, session.datasets, job.checkpoint()
        news = job.news()
        next(news)
    asked: list[Callable[[], object]] = [
        lambda: job.state, lambda: job.reason, job.refresh, lambda: job.checkpoints, job.state_dict, job.pause,
        lambda: list(job.news()), lambda: job.history, job.cancel, lambda: job.rewind(0), lambda: job.fork(at_step=0),
        lambda: jobs["first"], jobs.list, lambda: datasets["digits"], lambda: list(datasets),
        lambda: datasets.put("others", **points(1)), lambda: digits[0:2], digits.verify,
        checkpoint.state_dict, lambda: list(checkpoint.read()),
    ]  # fmt: skip

    for ask in asked:
        with pytest.raises(SessionError, match=r"the session is closed.*connect again") as caught:
            ask()
        assert caught.value.reason == "SESSION_CLOSED"
