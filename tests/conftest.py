"""What holds for every test: nothing is left on the embedded worker, and its machines keep their invariants."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest
from telegrad_server import functions
from telegrad_server.compiler import fuse
from telegrad_server.config import VARIABLES


def pytest_addoption(parser: pytest.Parser) -> None:
    """How sessions compute, embedded ones and those of servers alike."""
    parser.addoption(
        "--kernels",
        choices=("auto", "off", "every"),
        help="native_kernels of all sessions; every: auto, and in embedded sessions the smallest and first graphs, too",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Say so in the environment, which servers inherit. Interrupts reach what tests start.

    What a shell starts in the background ignores interrupts, and so would the processes that tests start.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    kernels: str | None = config.getoption("--kernels")
    if kernels is not None:
        os.environ[VARIABLES + "NATIVE_KERNELS"] = "off" if kernels == "off" else "auto"
    if kernels == "every":
        fuse.LEAST_ELEMENTS, functions.PLAIN_RUNS = 0, 0


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
