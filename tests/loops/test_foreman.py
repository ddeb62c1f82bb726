"""The foreman's own thread, on which everything that jobs wait for is done."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from telegrad.wire.job_codec import encode_spec
from telegrad.wire.job_spec import DataSource
from telegrad_server.config import Config
from telegrad_server.datasets import Catalog
from telegrad_server.executors import pick_executor
from telegrad_server.floor import Here
from telegrad_server.foreman import Foreman
from telegrad_server.jobs.job import State
from telegrad_server.jobs.sites import Site
from telegrad_server.keeper import Rules
from telegrad_server.metrics import job_figures
from telegrad_server.worker import Worker

from tests.faults.conftest import wait_until
from tests.jobs.specs import ROWS, small_spec


class Stumbling(Here):
    """A floor with a mistake, which shows the first time."""

    has_stumbled = False

    def sites(self) -> Sequence[Site]:
        if not self.has_stumbled:
            self.has_stumbled = True
            raise RuntimeError("a mistake of ours")
        return super().sites()


def test_neither_a_mistake_nor_a_backup_that_cannot_be_written_stops_the_jobs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    worker, catalog = Worker(Config(), pick_executor("numpy")), Catalog(tmp_path / "datasets")
    floor = Stumbling(worker)
    rules = Rules(backup=tmp_path / "file" / "copy.db", backup_seconds=0.0)
    foreman = Foreman(floor, catalog, tmp_path / "jobs", rules=rules)
    worker.start()
    foreman.start()
    try:
        digest = catalog.put("t", "points", {name: np.ones(ROWS, np.float32) for name in "xy"}).digest
        zero = memoryview(np.zeros((), np.float32).tobytes())
        for name in ("one", "two"):
            spec = small_spec(name, data=DataSource("points", digest, ROWS))
            job = foreman.submit("t", secrets.token_hex(8), encode_spec(spec), [("w", lambda: zero)]).id
            wait_until(lambda job=job: foreman.find("t", job).has_ended, seconds=30)
    finally:
        foreman.stop()
        worker.stop()

    assert floor.has_stumbled
    assert [info.state for info in foreman.all("t")] == ["SUCCEEDED", "SUCCEEDED"]
    figures = job_figures(foreman)
    assert figures["telegrad_jobs"] == dict.fromkeys((state.value for state in State), 0) | {"SUCCEEDED": 2}
    assert figures["telegrad_job_steps_total"] == 2 * foreman.all("t")[0].last_step
    assert sum(foreman.counts.waits.counts) == 2
    assert sum(foreman.store.written.durations.counts) >= 4, "a first and a last one each"
    assert foreman.store.written.bytes > 0
