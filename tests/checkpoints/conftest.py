"""Each kind of place where checkpoints may lie, and an S3 on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from telegrad_server.checkpoints import Folders, Objects
from telegrad_server.checkpoints.depot import Depot

from tests.checkpoints import s3
from tests.checkpoints.bucket import Memory


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """An S3 in a process of its own, so that a server that is killed leaves it alone."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    with s3.serving() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty bucket, which this process's environment leads to."""
    for name, value in s3.environ(endpoint).items():
        monkeypatch.setenv(name, value)
    return s3.emptied(endpoint)


@pytest.fixture(params=["folders", "objects", pytest.param("s3", marks=pytest.mark.slow)])
def depot(request: pytest.FixtureRequest, tmp_path: Path) -> Depot:
    """An empty place for checkpoints."""
    if request.param == "folders":
        return Folders(tmp_path / "checkpoints")
    if request.param == "objects":
        return Objects(Memory())
    from telegrad_server.checkpoints.s3 import S3Bucket

    request.getfixturevalue("bucket")
    return Objects(S3Bucket(s3.URL))
