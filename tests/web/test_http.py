"""The sockets: what HTTP/1.1 allows, and what a caller may take of the server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest
from telegrad_server.web.http import Limits

from tests.web.conftest import Page

QUICK = Limits(connections=4, request_seconds=0.5, idle_seconds=0.5, answer_seconds=0.5)


def connect(page: Page) -> socket.socket:
    return socket.create_connection(("127.0.0.1", page.endpoint.port), timeout=30)


def said(page: Page, data: bytes) -> bytes:
    """All that is answered to these bytes, until the server closes."""
    with connect(page) as line:
        line.sendall(data)
        line.settimeout(20)
        found = b""
        while part := line.recv(65536):
            found += part
    return found


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_one_connection_takes_many_requests_also_before_their_answers(page: Page) -> None:
    one = b"GET /api/hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

    answers = said(page, one * 20 + last)

    assert answers.count(b"HTTP/1.1 200 ") == 21
    assert answers.endswith(b"\r\n\r\n")  # a HEAD has no body


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 4_000 + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"POST /api/jobs/x/cancel HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", 413),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 413),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"DELETE /api/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405),
        (b"GET http://[bad HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
    ],
    ids=["target", "header", "headers", "tls", "no host", "two hosts", "body", "long", "chunks", "h2", "method", "url"],
)
def test_what_is_no_good_request_is_refused_and_the_connection_ends(page: Page, data: bytes, expected: int) -> None:
    answer = said(page, data)

    assert status(answer) == expected
    assert b"Content-Security-Policy" in answer
    assert page.ask("/api/hello").status == 200


@pytest.mark.parametrize("data", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
def test_who_is_slow_is_let_go(open_page: Callable[..., Page], data: bytes) -> None:
    page = open_page(limits=QUICK)
    began = time.monotonic()

    assert said(page, data) == b""

    assert time.monotonic() - began < 20


def test_who_trickles_is_let_go(open_page: Callable[..., Page]) -> None:
    page = open_page(limits=QUICK)
    began = time.monotonic()

    with connect(page) as line, pytest.raises(OSError):
        line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        while time.monotonic() - began < 20:
            line.sendall(b"X: 1\r\n")
            time.sleep(0.05)


def test_who_does_not_take_an_answer_is_let_go(open_page: Callable[..., Page]) -> None:
    page = open_page(limits=QUICK)
    line = connect(page)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    with pytest.raises(OSError):  # a reset, or a full pipe
        line.settimeout(20)
        for _ in range(10_000):
            line.sendall(b"GET /chart.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)

    line.close()
    assert page.ask("/api/hello").status == 200


def test_connections_beyond_the_limit_wait_and_are_served_when_others_go(open_page: Callable[..., Page]) -> None:
    page = open_page(limits=Limits(connections=2, idle_seconds=30))
    lines = [connect(page) for _ in range(2)]
    for line in lines:  # both are served, so both hold a place
        line.sendall(b"GET /api/hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert line.recv(65536).startswith(b"HTTP/1.1 200")
    answers: list[int] = []
    third = threading.Thread(target=lambda: answers.append(page.ask("/api/hello").status))

    third.start()
    third.join(0.5)

    assert answers == []
    lines[0].close()
    third.join(30)
    assert answers == [200]
    lines[1].close()


def test_closing_does_not_wait_for_who_is_connected(open_page: Callable[..., Page]) -> None:
    page = open_page()
    with connect(page) as line:
        line.sendall(b"GET /api/hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert line.recv(65536)
        began = time.monotonic()
        page.endpoint.close()

        assert time.monotonic() - began < 4
        assert line.recv(1) == b""
