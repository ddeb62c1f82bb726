"""What the page's server answers, and to whom."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from telegrad.wire.datasets import Description
from telegrad_server.access import Gate
from telegrad_server.executors import pick_executor
from telegrad_server.roles.hardware import OneWorker
from telegrad_server.web.http import Request
from telegrad_server.web.site import Site
from telegrad_server.web.sources import Sources

from tests.faults.conftest import wait_until
from tests.web.conftest import TOKENS, Page, ended, submitted

LOOKS = ("hello", "jobs", "cluster", "sessions", "datasets")
ACTS = (
    "pause", "resume", "cancel", "extend?epochs=9&request=12345678", "fork?name=f&step=0&request=23456789",
    "rewind?step=0&request=34567890",
)  # fmt: skip


def test_the_page_and_its_files_are_served_to_everyone(guarded: Page) -> None:
    index = guarded.ask("/")

    assert (index.status, index.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for name in re.findall(r'(?:src|href)="([\w.]+)"', index.body.decode()):
        assert guarded.ask(f"/{name}").status == 200, name


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_inline() -> None:
    for entry in files("telegrad_server.web").joinpath("static").iterdir():
        text = entry.read_text().replace("http://www.w3.org/2000/svg", "").replace("grpc://localhost", "")
        assert not re.search(r"(?<!:)//\w+\.\w+", text), entry.name
        assert not re.search(r"https?://", text), entry.name
        assert "innerHTML" not in text and "eval(" not in text, entry.name
        if entry.name.endswith(".html"):
            assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", text), entry.name


@pytest.mark.parametrize("path", ["/", "/app.js", "/api/hello", "/api/jobs/none", "/nothing"])
def test_every_answer_says_what_the_browser_may_not_do(page: Page, path: str) -> None:
    headers = page.ask(path).headers

    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "set-cookie" not in headers
    assert not [name for name in headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", [f"/api/{name}" for name in LOOKS])
def test_what_is_a_tenants_wants_a_token(guarded: Page, path: str) -> None:
    missing, wrong = guarded.ask(path), guarded.ask(path, authorization="Bearer telegrad_token_of_nobody")

    assert (missing.status, missing.reason) == (401, "TOKEN_MISSING")
    assert (wrong.status, wrong.reason) == (401, "TOKEN_INVALID")
    assert missing.headers["www-authenticate"] == "Bearer"
    assert guarded.ask(path, by="alice").status == 200


def test_a_tenant_sees_nothing_of_another(guarded: Page) -> None:
    job = submitted(guarded, "alice", "secret-plan")
    session = guarded.worker.open_session("alice", "r", 60.0).session_id
    ended(guarded, "alice", job)

    for path in ("jobs", "cluster", "sessions", "datasets"):
        assert guarded.ask(f"/api/{path}", by="alice").status == 200
        text = guarded.ask(f"/api/{path}", by="bob").body.decode()
        assert not [word for word in ("secret-plan", job, session, "points", "alice") if word in text], path
    for key in (job, "secret-plan"):
        unknown = guarded.ask("/api/jobs/ffff", by="bob")
        for path in ("", "/metrics", "/numbers"):
            answer = guarded.ask(f"/api/jobs/{key}{path}", by="bob")
            assert (answer.status, answer.reason) == (unknown.status, unknown.reason) == (404, "JOB_UNKNOWN")
        for act in ACTS:
            assert guarded.post(f"/api/jobs/{key}/{act}", by="bob").status == 404, act
    assert session in guarded.ask("/api/sessions", by="alice").body.decode()


def test_a_jobs_curve_events_and_checkpoints_are_told_from_where_the_page_has_them(page: Page) -> None:
    job = submitted(page, "local")
    ended(page, "local", job)

    told = page.ask(f"/api/jobs/{job}").json
    metrics = page.ask(f"/api/jobs/{job}/metrics").json

    assert (told["job"]["state"], told["job"]["step"], told["checkpoints"][-1]) == ("SUCCEEDED", 8, 8)
    kinds = [event["kind"] for event in told["events"]]
    assert (kinds[0], kinds[-1]) == ("Submitted", "Succeeded")
    loss = metrics["series"]["loss"]
    assert loss["step"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert loss["value"] == [row.value for row in page.foreman.metrics("local", job, -1) if row.name == "loss"]
    assert metrics["more"] is False
    later = page.ask(f"/api/jobs/{job}?after={told['events'][-2]['number']}").json
    assert [event["kind"] for event in later["events"]] == ["Succeeded"]
    assert page.ask(f"/api/jobs/{job}/metrics?after_step=6").json["series"]["loss"]["step"] == [7, 8]


def test_the_list_has_the_newest_first_each_with_a_small_curve(page: Page) -> None:
    jobs = [submitted(page, "local", name) for name in ("one", "two")]
    for job in jobs:
        ended(page, "local", job)

    told = page.ask("/api/jobs").json

    assert [job["name"] for job in told["jobs"]] == ["two", "one"]
    values = [row.value for row in page.foreman.metrics("local", jobs[0], -1) if row.name == "loss"]
    assert told["jobs"][1]["spark"] == [float(f"{value:.4g}") for value in values]


def test_what_is_known_is_not_sent_again(page: Page) -> None:
    for path in ("/", "/app.js", "/api/hello", "/api/jobs"):
        first = page.ask(path)
        again = page.ask(path, if_none_match=first.headers["etag"])
        assert (first.status, again.status, again.body) == (200, 304, b""), path
        assert again.headers["etag"] == first.headers["etag"]
    tag = page.ask("/api/jobs").headers["etag"]

    submitted(page, "local")

    changed = page.ask("/api/jobs", if_none_match=tag)
    assert changed.status == 200 and len(changed.json["jobs"]) == 1


def test_buttons_pause_resume_extend_and_cancel(page: Page) -> None:
    job = submitted(page, "local", epochs=100_000)
    wait_until(lambda: page.foreman.find("local", job).state == "RUNNING", seconds=60)

    assert page.post(f"/api/jobs/{job}/pause").status == 200
    wait_until(lambda: page.foreman.find("local", job).state == "PAUSED", seconds=60)
    extended = page.post(f"/api/jobs/{job}/extend?epochs=100001&request=abcdefgh")
    again = page.post(f"/api/jobs/{job}/extend?epochs=100001&request=abcdefgh")
    assert extended.json["last_step"] == again.json["last_step"] == 400_004
    assert page.post(f"/api/jobs/{job}/resume").json["state"] in ("QUEUED", "STARTING", "RUNNING")
    assert page.post(f"/api/jobs/{job}/cancel").status == 200
    wait_until(lambda: page.foreman.find("local", job).state == "CANCELLED", seconds=60)
    refused = page.post(f"/api/jobs/{job}/pause")
    assert refused.status == 409 and refused.json["error"]["message"]


def test_a_fork_goes_on_from_a_step_with_other_numbers_and_is_made_once(page: Page) -> None:
    job = submitted(page, "local")
    ended(page, "local", job)
    asked = f"/api/jobs/{job}/fork?name=again&step=8&epochs=3&set.rate=0.25&request=abcdefgh"

    assert page.ask(f"/api/jobs/{job}/numbers").json == {"numbers": {"rate": None}}
    made, again = page.post(asked).json, page.post(asked).json

    assert (made["name"], made["last_step"], made["id"]) == ("again", 12, again["id"])
    assert page.ask(f"/api/jobs/{made['id']}/numbers").json == {"numbers": {"rate": 0.25}}
    ended(page, "local", made["id"])
    assert page.ask(f"/api/jobs/{made['id']}").json["checkpoints"][0] == 8


def test_a_job_goes_back_to_a_checkpoint_once(page: Page) -> None:
    job = submitted(page, "local")
    ended(page, "local", job)

    for _ in range(2):
        assert page.post(f"/api/jobs/{job}/rewind?step=0&request=abcdefgh").status == 200

    ended(page, "local", job)
    assert [event.kind for event in page.foreman.events("local", job, 0)].count("Rewound") == 1


@pytest.mark.parametrize(
    ("act", "status", "says"),
    [
        ("fork?step=0&request=12345678", 400, "no name of a job"),
        ("fork?name=a%20b&step=0&request=12345678", 400, "no name of a job"),
        ("fork?name=%C3%A4&step=0&request=12345678", 400, "no name of a job"),
        ("fork?name=f&step=0", 400, "request="),
        ("fork?name=f&step=7&request=12345678", 404, "no checkpoint of step 7"),
        ("fork?name=f&step=0&epochs=2&steps=3&request=12345678", 400, "not both"),
        ("fork?name=f&step=8&epochs=1&request=12345678", 400, "a step left to do"),
        ("fork?name=f&step=0&epochs=0&request=12345678", 400, "epochs"),
        ("fork?name=f&step=0&set.momentum=0.5&request=12345678", 400, "it has rate"),
        ("fork?name=f&step=0&set.rate=nan&request=12345678", 400, "must be a number"),
        ("fork?name=f&step=0&set.rate=1e999&request=12345678", 400, "finite"),
        ("rewind?request=12345678", 400, "step="),
        ("rewind?step=7&request=12345678", 404, "no checkpoint of step 7"),
        ("rewind?step=-1&request=12345678", 404, "no checkpoint of step -1"),
        ("rewind?step=0&request=short", 400, "request="),
    ],
)
def test_going_on_in_another_way_is_refused_in_a_sentence(page: Page, act: str, status: int, says: str) -> None:
    job = submitted(page, "local")
    ended(page, "local", job)

    answer = page.post(f"/api/jobs/{job}/{act}")

    assert (answer.status, says in answer.json["error"]["message"]) == (status, True), answer.body
    assert page.ask(f"/api/jobs/{job}").json["job"]["state"] == "SUCCEEDED"
    assert len(page.ask("/api/jobs").json["jobs"]) == 1


def test_a_token_that_may_only_read_changes_nothing(guarded: Page) -> None:
    job = submitted(guarded, "alice", epochs=100_000)

    assert guarded.ask("/api/hello", by="reader").json["may_act"] is False
    assert guarded.ask("/api/hello", by="alice").json["may_act"] is True
    assert guarded.ask(f"/api/jobs/{job}", by="reader").status == 200
    for act in ACTS:
        answer = guarded.post(f"/api/jobs/{job}/{act}", by="reader")
        assert (answer.status, answer.reason) == (403, "ACCESS_DENIED"), act
    kinds = {event.kind for event in guarded.foreman.events("alice", job, 0)}
    assert not kinds & {"CancelAsked", "PauseAsked", "ResumeAsked", "Extended", "Rewound"}
    assert len(guarded.foreman.all("alice")) == 1
    guarded.foreman.cancel("alice", job)


def test_another_page_cannot_press_a_button(page: Page) -> None:
    job = submitted(page, "local", epochs=100_000)

    for answer in (
        page.ask(f"/api/jobs/{job}/cancel", "POST"),  # what a form elsewhere could send
        page.post(f"/api/jobs/{job}/cancel", sec_fetch_site="cross-site"),
    ):
        assert (answer.status, answer.reason) == (403, "ACCESS_DENIED")
    asked = page.ask(f"/api/jobs/{job}/cancel", "OPTIONS", origin="http://elsewhere.example")
    assert asked.status == 405 and "access-control-allow-origin" not in asked.headers
    assert page.ask(f"/api/jobs/{job}/cancel").status == 404  # a link does nothing either
    assert not page.foreman.find("local", job).has_ended
    page.foreman.cancel("local", job)


def test_without_tokens_only_names_of_this_machine_are_answered_to(page: Page, guarded: Page) -> None:
    for name in ("elsewhere.example", "127.0.0.1.elsewhere.example:80", "192.0.2.1", ""):
        assert page.ask("/api/jobs", host=name).status == 421, name
        assert page.ask("/", host=name).status == 421, name
    for name in ("localhost:50080", "127.0.0.1", "[::1]:50080"):
        assert page.ask("/api/jobs", host=name).status == 200, name
    assert guarded.ask("/api/jobs", by="alice", host="gpu-box").status == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api", 404),
        ("/api/", 404),
        ("/api/jobs/", 404),
        ("/api/nothing", 404),
        ("/../config.py", 404),
        ("/static/../__init__.py", 404),
        ("/%2e%2e/site.py", 404),
        ("/api/jobs/%ff", 400),
        ("/api/jobs?" + "&".join(f"a{i}=1" for i in range(20)), 400),
        ("/api/jobs/x?after=one", 404),
    ],
)
def test_what_is_not_there_is_said(page: Page, path: str, status: int) -> None:
    answer = page.ask(path)

    assert answer.status == status
    assert answer.json["error"]["message"]


@pytest.mark.parametrize("word", ["one", "1.5", "", "-", "9" * 30, "%D9%A1"])
def test_a_number_that_is_none_is_refused(page: Page, word: str) -> None:
    job = submitted(page, "local")

    answer = page.ask(f"/api/jobs/{job}/metrics?after_step={word}")

    assert (answer.status, answer.reason) == (400, "MALFORMED_MESSAGE")
    ended(page, "local", job)


def test_sessions_are_shown_with_their_scopes_and_bytes(page: Page) -> None:
    grant = page.worker.open_session("local", "r", 60.0)

    (told,) = page.ask("/api/sessions").json["sessions"]

    assert told["id"] == grant.session_id
    assert (told["is_job"], told["lease_seconds"], told["tensors"], told["bytes"]) == (False, 60.0, 0, 0)
    assert told["scopes"] == [{"scope": 0, "parent": 0, "tensors": 0, "bytes": 0}]


def test_the_device_tells_its_memory_and_whose_it_is(page: Page) -> None:
    (device,) = page.ask("/api/cluster").json["devices"]

    assert device["worker"] == "here" and device["backend"] == "numpy"
    assert 0 < device["used_bytes"] < device["memory_bytes"]
    assert device["own_bytes"] == device["tensor_bytes"] == 0


def test_nothing_that_nobody_foresaw_is_told(page: Page) -> None:
    class Broken:
        def list(self, tenant: str) -> list[Description]:
            raise RuntimeError("a secret of the server's")

    sources = Sources("all-in-one", "0", OneWorker(page.worker, pick_executor("numpy")), None, Broken())

    answer = Site(Gate(), sources).answer(Request("GET", "/api/datasets", {"host": "localhost"}))

    assert answer.status == 500
    assert b"secret" not in answer.body and b"report error" in answer.body


def test_a_token_is_never_told_back(guarded: Page) -> None:
    for path in LOOKS:
        body = guarded.ask(f"/api/{path}", by="alice").body.decode()
        assert not [token for token in TOKENS.values() if token in body]
