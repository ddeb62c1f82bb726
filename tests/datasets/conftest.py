"""Sessions that have datasets: in process, and over gRPC to a server with a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import telegrad as tg

from tests.faults import conftest as faults
from tests.faults.conftest import Server

start = faults.start


@pytest.fixture
def server(start: Callable[..., Server], tmp_path: Path) -> Server:
    return start("--data-dir", str(tmp_path / "served"))


@pytest.fixture(params=["embedded", pytest.param("served", marks=pytest.mark.slow)])
def session(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tg.Session]:
    monkeypatch.setenv("TELEGRAD_DATA_DIR", str(tmp_path / "embedded"))
    address = request.getfixturevalue("server").address if request.param == "served" else None
    with tg.connect(address, backend="numpy", new=True) as session:
        yield session
