"""The page in Debian's Chromium, over a server in a process of its own that trains a real job."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import telegrad as tg

from tests.faults.conftest import Server
from tests.web.chromium import PROGRAM, Chromium
from tests.web.conftest import FILE, TOKENS
from tests.web.training import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(PROGRAM is None, reason="Chromium is not here: apt-get install chromium"),
]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def browser() -> Iterator[Chromium]:
    browser = Chromium()
    yield browser
    browser.close()


@pytest.fixture
def serve(start: Callable[..., Server], tmp_path: Path) -> Callable[..., tuple[Server, str]]:
    """Start a server with a page: it, and the page's address."""

    def serve(*options: str) -> tuple[Server, str]:
        port = free_port()
        data = ("--data-dir", str(tmp_path / "data"))
        return start(*data, "--web-host", "127.0.0.1", "--web-port", str(port), *options), f"http://127.0.0.1:{port}/"

    return serve


CURVE = 'path.curve[data-metric="loss"]:not(.raw):not(.tail)'


def points(browser: Chromium) -> int:
    """How many places the loss curve goes through on the screen."""
    path = browser.run(f"document.querySelector('{CURVE}')?.getAttribute('d') ?? ''")
    return len(re.findall(r"[ML]", path))


def test_a_running_jobs_curve_is_seen_and_grows(serve: Callable[..., tuple[Server, str]], browser: Chromium) -> None:
    server, address = serve()
    with tg.connect(server.address) as session:
        browser.open(address)
        browser.wait_for("document.querySelector('.empty:not([hidden]) h2')?.textContent === 'No job yet'")
        job = train(session, "first", epochs=100_000)

        browser.wait_for("document.querySelector('.job-row .name')?.textContent === 'first'")
        browser.wait_for("document.querySelector('.job-row .spark-line').getAttribute('d')?.length > 20")
        browser.run("document.querySelector('.job-row .name').click()")
        browser.wait_for(f"document.querySelector('{CURVE}')?.dataset.points > 20")
        assert points(browser) > 20
        before = browser.run(f"Number(document.querySelector('{CURVE}').dataset.points)")
        browser.wait_for(f"Number(document.querySelector('{CURVE}').dataset.points) > {before}")
        box = browser.run(f"(b => [b.width, b.height])(document.querySelector('{CURVE}').getBoundingClientRect())")
        assert box[0] > 500 and box[1] > 20
        browser.run("document.querySelector('.plot').focus()")
        browser.press("ArrowLeft")
        assert re.match(r"loss at step \d+: ", browser.run("document.querySelector('.chart .unseen').textContent"))
        assert "checkpoints of steps 10 to" in browser.run("document.querySelector('.events').textContent")

        press(browser, "Pause")
        browser.wait_for("document.querySelector('.titled .state').textContent === 'paused'")
        assert job.refresh().state == "PAUSED"
        press(browser, "Cancel…")
        browser.wait_for("document.querySelector('dialog[open] .danger')")
        browser.run("document.querySelector('dialog .danger').click()")
        browser.wait_for("document.querySelector('.titled .state').textContent === 'cancelled'")
    assert browser.complaints() == []


def press(browser: Chromium, text: str) -> None:
    """The button that says so."""
    browser.run(f"[...document.querySelectorAll('button')].find(b => b.textContent === '{text}').click()")


def enter(browser: Chromium, **fields: str) -> None:
    """Fill in the question that is open, once it is."""
    browser.wait_for("document.querySelector('dialog[open]')")
    for name, text in fields.items():
        browser.run(f"document.getElementById('ask-{name.replace('__', '.')}').value = '{text}'")


def test_a_job_is_forked_at_a_step_and_rewound_to_one(
    serve: Callable[..., tuple[Server, str]], browser: Chromium
) -> None:
    server, address = serve()
    with tg.connect(server.address) as session:
        job = train(session, "trunk", epochs=3)
        job.wait(timeout_seconds=60)
        browser.look(width=390, height=800, scheme="light")
        browser.open(f"{address}#/jobs/{job.id}")
        browser.wait_for("document.querySelector('.titled .state')?.textContent === 'succeeded'")

        press(browser, "Fork…")
        enter(browser, name="a branch")
        assert browser.run("document.getElementById('ask-set.lr').placeholder") == "0.01"
        assert browser.run("document.querySelector('dialog').scrollWidth") <= 390
        press(browser, "Fork")
        browser.wait_for("document.querySelector('.notice[role=alert]:not([hidden])')")
        assert "no name of a job" in browser.run("document.querySelector('.notice[role=alert]').textContent")
        press(browser, "Fork…")
        enter(browser, name="branch", step="20", epochs="4", set__lr="0.001")
        press(browser, "Fork")
        browser.wait_for("document.querySelector('h1')?.textContent === 'branch'")
        browser.wait_for("document.querySelector('.titled .state')?.textContent === 'succeeded'")
        branch = session.jobs["branch"]
        assert (branch.info.step, branch.checkpoints[0]) == (40, 20)

        browser.open(f"{address}#/jobs/{job.id}")
        browser.wait_for("document.querySelector('h1')?.textContent === 'trunk'")
        press(browser, "Rewind…")
        enter(browser, step="20")
        press(browser, "Rewind the job")
        browser.wait_for("document.querySelector('.events').textContent.includes('to step 20')")
        browser.wait_for("document.querySelector('.titled .state').textContent === 'succeeded'")
        assert job.refresh().step == 30
        browser.wait_for(f"document.querySelector('{CURVE}')?.dataset.points == 30")
    complaints = [found for found in browser.complaints() if "status of 400" not in found]
    assert complaints == []


def test_a_token_is_asked_for_and_one_that_may_only_read_has_no_buttons(
    serve: Callable[..., tuple[Server, str]], browser: Chromium, tmp_path: Path
) -> None:
    file = tmp_path / "tokens"
    file.touch(mode=0o600)
    file.write_text(FILE)
    server, address = serve("--token-file", str(file))
    with tg.connect(server.address, token=TOKENS["alice"]) as session:
        job = train(session, "alices", epochs=2)
        job.wait(timeout_seconds=60)

    def show(token: str) -> None:
        browser.wait_for("document.querySelector('form.sign input')")
        browser.run(f"document.querySelector('form.sign input').value = '{token}'")
        browser.run("document.querySelector('form.sign button').click()")

    browser.open(address)
    show("telegrad_token_of_nobody")
    browser.wait_for("document.querySelector('.wrong')?.textContent.includes('not known')")
    show(TOKENS["bob"])
    browser.wait_for("document.querySelector('.empty:not([hidden]) h2')?.textContent === 'No job yet'")
    browser.run("document.querySelector('.who button').click()")
    show(TOKENS["reader"])
    browser.wait_for("document.querySelector('.job-row .name')?.textContent === 'alices'")
    browser.run("document.querySelector('.job-row .name').click()")
    browser.wait_for(f"document.querySelector('{CURVE}')")
    assert browser.run("document.querySelector('.head .actions').hidden")
    assert browser.run("document.cookie + localStorage.length") == "0"
    with urllib.request.urlopen(address) as answer:
        assert TOKENS["reader"].encode() not in answer.read()


def test_who_looks_is_told_when_the_server_is_gone_and_when_it_is_back(
    serve: Callable[..., tuple[Server, str]], start: Callable[..., Server], browser: Chromium, tmp_path: Path
) -> None:
    server, address = serve()
    browser.open(address)
    browser.wait_for("document.querySelector('.empty:not([hidden])')")

    server.kill()

    browser.wait_for("!document.getElementById('banner').hidden")
    port = address.rsplit(":", 1)[1].strip("/")
    start("--data-dir", str(tmp_path / "data"), "--web-host", "127.0.0.1", "--web-port", port)
    browser.wait_for("document.getElementById('banner').hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_is_wider_than_the_window_and_words_stand_out(
    serve: Callable[..., tuple[Server, str]], browser: Chromium, scheme: str, width: int
) -> None:
    server, address = serve()
    with tg.connect(server.address) as session:
        job = train(session, "a-job-whose-name-is-quite-a-bit-longer-than-others-are", epochs=3)
        job.wait(timeout_seconds=60)
        browser.look(width=width, height=800, scheme=scheme)
        for place in ("jobs", f"jobs/{job.id}", "cluster", "sessions", "datasets"):
            browser.open("about:blank")
            browser.open(f"{address}#/{place}")
            browser.wait_for("document.querySelector('h1')?.textContent")
            browser.wait_for(
                "document.querySelector('.rows:not([hidden]), .device, .panel, tbody tr, .empty:not([hidden])')"
            )
            assert browser.run("document.documentElement.scrollWidth") <= width, place
            assert browser.run(CONTRAST) == [], place
    assert browser.complaints() == []


CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (color) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
                           return canvas.getImageData(0, 0, 1, 1).data; };
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
    const v = c[i] / 255; return sum + weight * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); }, 0);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c[3] > 250) return c; } return rgb("white"); };
  const weak = [];
  for (const e of document.querySelectorAll("main *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.checkVisibility()) continue;
    if (e.closest("svg, .unseen")) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) weak.push(`${e.className || e.tagName} ${e.textContent.slice(0, 20)} ${ratio.toFixed(2)}`);
  }
  return weak.slice(0, 8);
})()"""
"""What stands out by less than 4.5 to 1 from what is behind it, which WCAG 2 asks of text."""

SHOWN = ".rows:not([hidden]), .device, .panel, tbody tr, .empty:not([hidden])"
"""What a part of the page has once it knows what to show."""
