"""Every event of a job can be told in words, with its cause."""

from __future__ import annotations

import pytest
from telegrad.wire.job_words import in_words
from telegrad.wire.jobs import JobEvent
from telegrad_server.jobs.events import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_has_words_of_its_own(kind: str) -> None:
    said = in_words(kind, {"worker": "w", "step": "3"})

    assert kind not in said
    assert "=" not in said and not said.endswith(".")


@pytest.mark.parametrize(
    ("kind", "details", "words"),
    [
        ("Lost", {"why": "WORKER_OOM", "message": "killed"}, "its worker was killed for want of memory: killed"),
        ("Lost", {"why": "EATEN"}, "its worker was lost"),
        ("Paused", {"why": "NONFINITE", "message": "loss was nan at step 3"},
         "paused at a value that is not finite: loss was nan at step 3"),
        ("Failed", {"reason": "OP_FAILED", "message": "no", "line": "a.py:3"}, "failed (OP_FAILED): no, at a.py:3"),
        ("Succeeded", {"step": "9", "is_early": "True"}, "stopped early at step 9, since its metric got no better"),
        ("Succeeded", {"step": "9", "is_early": "False"}, "done at step 9"),
        ("Upset", {"by": "noise"}, "Upset by=noise"),
    ],
)  # fmt: skip
def test_words_say_the_cause(kind: str, details: dict[str, str], words: str) -> None:
    assert JobEvent(1, 0.0, kind, details).words == words
