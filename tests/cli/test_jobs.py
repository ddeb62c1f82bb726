"""``telegrad jobs`` against a real server with jobs of every kind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad.cli.report import JOB_EXITS, NOT_ENDED

from tests.cli.conftest import Telegrad, shape
from tests.server.test_service import start, stop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # a server in a process of its own

ROOT = Path(__file__).resolve().parents[2]
JOB = {
    "id", "name", "state", "reason", "message", "line", "step", "live_step", "last_step", "steps_per_epoch",
    "position", "restarts", "worker", "submitted_at", "changed_at", "steps_per_second", "live_metrics",
}  # fmt: skip


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
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


@pytest.fixture(scope="module")
def done(keeper: str) -> str:
    """A server with the job "done", which has succeeded."""
    submitted(keeper, "done", steps=6, checkpoint_every=2)
    with tg.connect(keeper, new=True) as session:
        session.jobs["done"].wait(timeout_seconds=120)
    return keeper


def test_jobs_are_listed_with_how_they_stand(telegrad: Telegrad, done: str) -> None:
    found = shape(telegrad("jobs", "list", "--server", done, "--json"))
    said = telegrad("jobs", "list", "--server", done, "--state", "succeeded")

    job = next(job for job in found["jobs"] if job["name"] == "done")
    assert set(job) == JOB
    assert (job["state"], job["step"], job["last_step"], job["worker"]) == ("SUCCEEDED", 6, 6, None)
    line = next(line for line in said.stdout.splitlines() if line.startswith("done"))
    assert line.split()[1:4] == ["SUCCEEDED", "6/6", "3/3"]
    assert "done" not in telegrad("jobs", "list", "--server", done, "--state", "failed").stdout


def test_a_job_is_shown_by_name_and_by_id(telegrad: Telegrad, done: str) -> None:
    found = shape(telegrad("jobs", "show", "done", "--server", done, "--json"))
    said = telegrad("jobs", "show", found["id"], "--server", done).stdout

    assert set(found) == JOB | {"checkpoints"}
    assert found["checkpoints"] == [4, 6]
    assert "state      SUCCEEDED (DONE)\n" in said
    assert "kept       checkpoints of the steps 4, 6\n" in said


def test_a_job_that_is_not_there_is_one_sentence_and_exit_6(telegrad: Telegrad, keeper: str) -> None:
    for command in ("show", "watch", "wait", "logs", "pause", "resume", "cancel"):
        said = telegrad("jobs", command, "nothing", "--server", keeper)

        assert (said.exit_code, said.stdout) == (6, "")
        assert said.stderr.startswith("telegrad: ") and len(said.stderr.splitlines()) == 1


def test_the_log_tells_what_happened_in_words_and_in_json(telegrad: Telegrad, done: str) -> None:
    words = [line[28:] for line in telegrad("jobs", "logs", "done", "--server", done).stdout.splitlines()]
    lines = telegrad("jobs", "logs", "done", "--server", done, "--metrics", "--json").stdout.splitlines()

    assert words[0] == "submitted as done, to train until step 6"
    assert words[1:3] == ["given to worker here", "began at step 0"]
    assert words[-1] == "done at step 6"
    told = [json.loads(line) for line in lines]
    assert [item["words"] for item in told if "event" in item] == words
    values = {item["step"]: item["value"] for item in told if item.get("metric") == "loss"}
    assert values == {k: pytest.approx(1 / k) for k in range(1, 7)}


def test_a_log_begins_after_an_event_and_can_be_followed_to_the_end(telegrad: Telegrad, done: str) -> None:
    numbers = [
        json.loads(x)["number"]
        for x in telegrad("jobs", "logs", "done", "--server", done, "--json").stdout.splitlines()
    ]

    said = telegrad("jobs", "logs", "done", "--server", done, "--follow", "--after", str(numbers[-2]), "--json")

    assert [json.loads(line)["event"] for line in said.stdout.splitlines()] == ["Succeeded"]


def test_waiting_ends_as_the_job_ended(telegrad: Telegrad, done: str) -> None:
    submitted(done, "bad", steps=3, value=float("nan"))

    good = telegrad("jobs", "wait", "done", "--server", done, "--json")
    bad = telegrad("jobs", "wait", "bad", "--server", done)
    watched = telegrad("jobs", "watch", "bad", "--server", done)

    assert (good.exit_code, shape(good)["state"]) == (JOB_EXITS["SUCCEEDED"], "SUCCEEDED")
    assert bad.exit_code == watched.exit_code == JOB_EXITS["FAILED"]
    assert bad.stderr.startswith("telegrad: the job bad is FAILED (NONFINITE): ")


def test_a_job_is_paused_goes_on_is_extended_and_cancelled(telegrad: Telegrad, keeper: str) -> None:
    submitted(keeper, "long", steps=1_000_000, checkpoint_every=50)
    asked = ("long", "--server", keeper)

    assert telegrad("jobs", "pause", *asked).exit_code == 0
    paused = telegrad("jobs", "wait", *asked, "--until-paused")
    assert telegrad("jobs", "resume", *asked, "--json").exit_code == 0
    running = telegrad("jobs", "wait", *asked, "--for-seconds", "0")
    longer = telegrad("jobs", "extend", *asked, "--steps", "2000000", "--json")
    assert telegrad("jobs", "cancel", *asked).exit_code == 0
    cancelled = telegrad("jobs", "wait", *asked)

    assert paused.exit_code == JOB_EXITS["PAUSED"]
    assert running.exit_code == NOT_ENDED
    assert shape(longer)["last_step"] == 2_000_000
    assert cancelled.exit_code == JOB_EXITS["CANCELLED"]
    assert telegrad("jobs", "extend", *asked).exit_code == 2


def test_an_interrupt_leaves_the_job_alone(keeper: str) -> None:
    submitted(keeper, "left", steps=1_000_000, checkpoint_every=50)
    command = [sys.executable, "-m", "telegrad.cli", "jobs", "watch", "left", "--server", keeper, "--json"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    running.stdout.readline()

    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)

    assert running.returncode == 130
    assert "Traceback" not in said
    with tg.connect(keeper, new=True) as session:
        assert session.jobs["left"].state in ("QUEUED", "STARTING", "RUNNING")
        session.jobs["left"].cancel()


def completed(words: str, last: str) -> list[str]:
    """What a shell is offered for the last word of a command line."""
    program = "import sys\nfrom telegrad.cli import main\nsys.exit(main())"
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60,
        env={**os.environ, "_TELEGRAD_COMPLETE": "bash_complete", "COMP_WORDS": f"telegrad {words} {last}",
             "COMP_CWORD": str(len(words.split()) + 1)},
    )  # fmt: skip
    return [line.partition(",")[2] for line in said.stdout.splitlines() if line]


def test_a_shell_completes_the_names_of_jobs(done: str) -> None:
    assert completed(f"jobs show --server {done}", "do") == ["done"]
    assert completed("jobs show --server grpc://127.0.0.1:1", "do") == []


def test_a_server_without_a_folder_says_that_it_keeps_no_jobs(telegrad: Telegrad, plain: str) -> None:
    said = telegrad("jobs", "list", "--server", plain)

    assert said.exit_code == 7
    assert "--data-dir" in said.stderr


def test_every_exit_status_of_a_job_is_documented() -> None:
    text = (ROOT / "docs/cli.md").read_text()

    assert [status for status in (*JOB_EXITS.values(), NOT_ENDED) if f"\n| {status} | " not in text] == []
