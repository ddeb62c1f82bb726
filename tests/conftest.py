"""What holds for every test: nothing is left on the embedded worker, and its machines keep their invariants."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest


def pytest_configure() -> None:
    """What a shell starts in the background ignores interrupts, and so would the processes that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts servers in processes of their own, by the fixture ``start``, is slow."""
    for item in items:
        if "start" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """After a test the embedded worker holds no session, no tensor and no byte."""
    yield
    embedded = sys.modules.get("telegrad_server.embedded")
    if embedded is None:
        return
    for backend in ("numpy", "auto"):
        if (worker := embedded.known_worker(backend)) is not None:
            worker.validate()
            left = worker.statistics()
            worker.end_all()  # so that one test's leak is not the next one's
            assert left == {"sessions": 0, "tensors": 0, "bytes": 0}, f"left on the {backend} worker: {left}"
