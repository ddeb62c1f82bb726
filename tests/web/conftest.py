"""A page over a real worker and real jobs in this process, and over a server in a process of its own."""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from telegrad.wire.job_codec import encode_spec
from telegrad.wire.job_spec import DataSource
from telegrad_server.access import Gate
from telegrad_server.config import Config
from telegrad_server.datasets import Catalog
from telegrad_server.executors import pick_executor
from telegrad_server.floor import Here
from telegrad_server.foreman import Foreman
from telegrad_server.roles.hardware import OneWorker
from telegrad_server.web.endpoint import Endpoint
from telegrad_server.web.http import Limits
from telegrad_server.web.site import Site
from telegrad_server.web.sources import Sources
from telegrad_server.worker import Worker

from tests.faults import conftest as faults
from tests.faults.conftest import wait_until
from tests.jobs.specs import ROWS, small_spec

start = faults.start

TOKENS = {
    "alice": "telegrad_token_of_alice",
    "reader": "telegrad_token_to_read_alices",
    "bob": "telegrad_token_of_bob__",
}
FILE = f"{TOKENS['alice']} alice\n{TOKENS['reader']} alice read\n{TOKENS['bob']} bob 2.0\n"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        return self.json["error"]["reason"]


@dataclass
class Page:
    """A page, with what it shows beside it."""

    endpoint: Endpoint
    worker: Worker
    foreman: Foreman
    catalog: Catalog

    def ask(self, path: str, method: str = "GET", *, by: str | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.endpoint.port, timeout=30)
        if by is not None:
            headers["authorization"] = f"Bearer {TOKENS[by]}"
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        found = Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        connection.close()
        return found

    def post(self, path: str, *, by: str | None = None, **headers: str) -> Answer:
        return self.ask(path, "POST", by=by, **{"x_telegrad": "page", **headers})


@pytest.fixture
def open_page(tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Open pages; tokens are wanted if ``has_tokens``."""
    pages: list[Page] = []

    def open_page(*, has_tokens: bool = False, limits: Limits | None = None) -> Page:
        folder = tmp_path / f"page{len(pages)}"
        folder.mkdir()
        file = folder / "tokens"
        file.touch(mode=0o600)
        file.write_text(FILE)
        gate = Gate.from_file(str(file)) if has_tokens else Gate()
        executor = pick_executor("numpy")
        worker = Worker(Config(), executor)
        catalog = Catalog(folder / "datasets")
        foreman = Foreman(Here(worker), catalog, folder)
        sources = Sources("all-in-one", "0", OneWorker(worker, executor), foreman, catalog)
        endpoint = Endpoint(Site(gate, sources), host="127.0.0.1", port=0, limits=limits)
        worker.start()
        foreman.start()
        endpoint.start()
        pages.append(Page(endpoint, worker, foreman, catalog))
        return pages[-1]

    yield open_page
    for page in pages:
        page.endpoint.close()
        page.foreman.stop()
        page.worker.stop()


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    return open_page()


@pytest.fixture
def guarded(open_page: Callable[..., Page]) -> Page:
    return open_page(has_tokens=True)


def submitted(page: Page, tenant: str, name: str = "line", *, epochs: int = 2) -> str:
    """A job of the tenant's, of 4 steps an epoch; its id."""
    points = {"x": np.linspace(0, 1, ROWS, dtype=np.float32), "y": np.linspace(0, 2, ROWS, dtype=np.float32)}
    digest = page.catalog.put(tenant, "points", points).digest
    spec = small_spec(name, epochs=epochs, data=DataSource("points", digest, ROWS))
    zero = memoryview(np.zeros((), np.float32).tobytes())
    return page.foreman.submit(tenant, secrets.token_hex(8), encode_spec(spec), [("w", lambda: zero)]).id


def ended(page: Page, tenant: str, job: str) -> None:
    """Wait for a job's end."""
    wait_until(lambda: page.foreman.find(tenant, job).has_ended, seconds=60)
