"""``telegrad jobs`` against a real server with jobs of every kind."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import telegrad as tg
from telegrad.cli.report import JOB_EXITS, NOT_ENDED

from tests.cli.conftest import Telegrad, completed, shape, submitted

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # a server in a process of its own

ROOT = Path(__file__).resolve().parents[2]
JOB = {
    "id", "name", "state", "reason", "message", "line", "step", "live_step", "last_step", "steps_per_epoch",
    "position", "restarts", "worker", "fingerprint", "submitted_at", "changed_at", "steps_per_second", "live_metrics",
}  # fmt: skip


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

    assert set(found) == JOB | {"metrics", "checkpoints"}
    assert found["metrics"]["loss"] == pytest.approx(1 / 6)
    assert found["checkpoints"] == [0, 4, 6]
    assert "state      SUCCEEDED (DONE)\n" in said
    assert re.search(r"^computes   telegrad .*numpy", said, re.MULTILINE)
    assert "kept       checkpoints of the steps 0, 4, 6\n" in said


def test_a_job_that_is_not_there_is_one_sentence_and_exit_6(telegrad: Telegrad, jobs_server: str) -> None:
    for command in ("show", "watch", "wait", "logs", "pause", "resume", "cancel"):
        said = telegrad("jobs", command, "nothing", "--server", jobs_server)

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


def test_a_job_is_paused_goes_on_is_extended_and_cancelled(telegrad: Telegrad, jobs_server: str) -> None:
    submitted(jobs_server, "long", steps=1_000_000, checkpoint_every=50)
    asked = ("long", "--server", jobs_server)

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


def test_a_job_is_forked_and_rewound(telegrad: Telegrad, done: str) -> None:
    asked = ("done", "--server", done)

    fork = shape(telegrad("jobs", "fork", *asked, "--at-step", "4", "--name", "forked", "--steps", "9", "--json"))
    ended = telegrad("jobs", "wait", "forked", "--server", done)
    back = telegrad("jobs", "rewind", "forked", "6", "--server", done)
    unknown = telegrad("jobs", "fork", *asked, "--steps", "9", "--set", "lr=1")

    assert (fork["name"], fork["last_step"], fork["step"]) == ("forked", 9, 4)
    assert ended.exit_code == 0
    assert back.exit_code == 6 and "no checkpoint of step 6" in back.stderr
    assert unknown.exit_code != 0 and "no number 'lr' that a fork could change" in unknown.stderr
    assert telegrad("jobs", "fork", *asked, "--set", "lr").exit_code == 2
    assert telegrad("jobs", "rewind", "forked", "9", "--server", done).stdout == "forked goes on from step 9\n"


def test_a_terminal_has_a_bar(done: str) -> None:
    terminal, own = pty.openpty()
    command = [sys.executable, "-m", "telegrad.cli", "jobs", "watch", "done", "--server", done]
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "160"}
    running = subprocess.Popen(command, stdout=own, stderr=own, env=env)
    os.close(own)
    said = b""
    with contextlib.suppress(OSError):  # how a terminal's end is told
        while more := os.read(terminal, 65536):
            said += more
    os.close(terminal)

    assert running.wait(timeout=60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.decode())
    assert re.search(r"done SUCCEEDED ━+ epoch 3/3  step 6/6  loss 0\.1667", text)
    assert "done has succeeded at step 6: loss 0.1667" in text


def test_metrics_are_drawn_and_told(telegrad: Telegrad, done: str) -> None:
    said = telegrad("jobs", "plot", "done", "loss", "--server", done)
    told = shape(telegrad("jobs", "plot", "done", "loss", "--server", done, "--json"))["metrics"]
    unknown = telegrad("jobs", "plot", "done", "lr", "--server", done)

    assert said.stdout.splitlines()[0] == "loss"
    assert said.stdout.splitlines()[1].lstrip().startswith("1 ┤")
    assert told["loss"]["step"] == [1, 2, 3, 4, 5, 6]
    assert told["loss"]["value"] == [pytest.approx(1 / k) for k in range(1, 7)]
    assert unknown.exit_code == 6 and "no metric 'lr' is recorded" in unknown.stderr


def test_a_fork_that_cannot_be_is_a_sentence(telegrad: Telegrad, done: str) -> None:
    at = ("--server", done)

    assert telegrad("jobs", "fork", "done", "--at-step", "3", *at).exit_code == 6
    assert telegrad("jobs", "rewind", "done", "3", *at).exit_code == 6
    assert telegrad("jobs", "fork", "done", "--set", "lr=fast", *at).exit_code == 2


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_interrupt_leaves_the_job_alone(jobs_server: str, options: tuple[str, ...]) -> None:
    name = f"left{len(options)}"  # the other one may not have stopped yet
    submitted(jobs_server, name, steps=1_000_000, checkpoint_every=50)
    command = [sys.executable, "-u", "-m", "telegrad.cli", "jobs", "watch", name, "--server", jobs_server, *options]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    running.stdout.readline()

    running.send_signal(signal.SIGINT)
    told, said = running.communicate(timeout=60)

    assert running.returncode == 130
    assert "Traceback" not in said
    assert bool(options) or f"telegrad jobs watch {name}" in told.splitlines()[-1]
    with tg.connect(jobs_server, new=True) as session:
        assert session.jobs[name].state in ("QUEUED", "STARTING", "RUNNING")
        session.jobs[name].cancel()


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
