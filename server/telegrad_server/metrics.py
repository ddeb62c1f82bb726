"""The metrics of a server, all named in `METRICS`, and the address at which Prometheus reads them.

They are read from what the server counts anyway, when somebody asks, so a step pays for none of it. A label's values
come from a fixed table: no metric grows with tenants, sessions, functions or workers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from telegrad.wire.status import REASONS

from telegrad_server import __version__
from telegrad_server.cluster.members import Members, State
from telegrad_server.cluster.placement import Queue
from telegrad_server.config import Config
from telegrad_server.foreman import Foreman
from telegrad_server.jobs.job import State as JobState
from telegrad_server.tally import Durations
from telegrad_server.worker import Worker

OTHER = "OTHER"
"""The value of a label for what is not in its table."""


@dataclass(frozen=True)
class Named:
    """A metric: what kind, what it says, its label if it has one, and the values that the label can have."""

    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    label: str | None = None
    values: frozenset[str] | None = None


_REASONS = frozenset(REASONS)
_STATES = frozenset(state.value for state in State)
_JOB_STATES = frozenset(state.value for state in JobState)
METRICS: Mapping[str, Named] = {
    "telegrad_build": Named("gauge", "Always 1; the label is the server's version.", "version"),
    "telegrad_backend": Named("gauge", "Always 1; the label is what computes.", "backend"),
    "telegrad_workers": Named("gauge", "A gateway's workers, by what they may be given.", "state", _STATES),
    "telegrad_queued_sessions": Named("gauge", "Sessions that wait at a gateway for a place."),
    "telegrad_sessions": Named("gauge", "Sessions that are open."),
    "telegrad_tensors": Named("gauge", "Tensors that have names in sessions."),
    "telegrad_tensor_bytes": Named("gauge", "Bytes of tensors and of room for uploads."),
    "telegrad_queued_tasks": Named("gauge", "Tasks that wait for the device or are on it."),
    "telegrad_cached_functions": Named("gauge", "Functions that are kept, with plans."),
    "telegrad_cached_function_bytes": Named("gauge", "Bytes of these functions."),
    "telegrad_sessions_opened_total": Named("counter", "Sessions opened since the start."),
    "telegrad_sessions_expired_total": Named("counter", "Sessions freed because their lease was over."),
    "telegrad_run_seconds": Named("histogram", "Seconds that a Run kept the host: on a GPU, until all was launched."),
    "telegrad_failed_tasks_total": Named("counter", "Runs and fetches that failed, by reason.", "reason", _REASONS),
    "telegrad_refused_calls_total": Named("counter", "Calls that were refused, by reason.", "reason", _REASONS),
    "telegrad_uploaded_bytes_total": Named("counter", "Bytes of tensors that came on upload streams."),
    "telegrad_downloaded_bytes_total": Named("counter", "Bytes of tensors that went out on download streams."),
    "telegrad_jobs": Named("gauge", "Jobs that are kept, by state.", "state", _JOB_STATES),
    "telegrad_job_restarts_total": Named("counter", "How often a job lost its worker and was queued again."),
    "telegrad_job_steps_total": Named("counter", "Steps of jobs that checkpoints cover; a rewound job's count again."),
    "telegrad_job_wait_seconds": Named("histogram", "Seconds that a job was queued before a worker had it."),
    "telegrad_checkpoint_seconds": Named("histogram", "Seconds that a checkpoint took to be written."),
    "telegrad_checkpoint_bytes_total": Named("counter", "Bytes of checkpoints written."),
}

Figure = float | Durations | Mapping[str, float]
"""The value of a metric: a number, durations, or a number by the label's value."""

Source = Callable[[], Mapping[str, Figure]]
"""What knows the values of some metrics, by name. Called by another thread, whenever somebody asks."""


def worker_figures(worker: Worker) -> Mapping[str, Figure]:
    """What a worker has to tell."""
    hello, held, tally = worker.hello(), worker.statistics(), worker.tally
    loads = {f"telegrad_{name}": value for name, value in worker.loads().items()}
    return loads | {
        "telegrad_build": {hello.server_version: 1},
        "telegrad_backend": {hello.backend: 1},
        "telegrad_sessions": held["sessions"],
        "telegrad_tensors": held["tensors"],
        "telegrad_tensor_bytes": held["bytes"],
        "telegrad_sessions_opened_total": tally.opened_sessions,
        "telegrad_sessions_expired_total": tally.expired_sessions,
        "telegrad_run_seconds": tally.runs,
        "telegrad_failed_tasks_total": tally.failed.copy(),
        "telegrad_refused_calls_total": tally.refused.copy(),
        "telegrad_uploaded_bytes_total": tally.uploaded_bytes,
        "telegrad_downloaded_bytes_total": tally.downloaded_bytes,
    }


def gateway_figures(members: Members, queue: Queue, refused: Mapping[str, int]) -> Mapping[str, Figure]:
    """What a gateway has to tell."""
    states = Counter(member.state.value for member in members.all())
    return {
        "telegrad_build": {__version__: 1},
        "telegrad_workers": {state: states[state] for state in _STATES},
        "telegrad_queued_sessions": len(queue),
        "telegrad_refused_calls_total": dict(refused),
    }


def job_figures(foreman: Foreman | None) -> Mapping[str, Figure]:
    """What there is to tell of jobs; nothing where none are kept."""
    if foreman is None:
        return {}
    counts, written = foreman.counts, foreman.store.written
    return {
        "telegrad_jobs": foreman.by_state(),
        "telegrad_job_restarts_total": counts.restarts,
        "telegrad_job_steps_total": counts.steps,
        "telegrad_job_wait_seconds": counts.waits,
        "telegrad_checkpoint_seconds": written.durations,
        "telegrad_checkpoint_bytes_total": written.bytes,
    }


class Endpoint:
    """Metrics over HTTP, at ``/metrics``, on a thread of its own, until it is closed. OSError if it cannot listen."""

    def __init__(self, sources: Sequence[Source], *, host: str, port: int) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Sources(sources))
        self._server, self._thread = start_http_server(port, host, registry)
        self.port = self._server.server_port

    @classmethod
    def of(cls, config: Config, *sources: Source) -> Endpoint | None:
        """The endpoint that an operator wants, None if none."""
        if config.metrics_host is None:
            return None
        return cls(sources, host=config.metrics_host, port=config.metrics_port)

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Sources(Collector):
    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """All metrics of all sources."""
        for source in self._sources:
            for name, figure in source().items():
                yield _family(name, figure)


def _family(name: str, figure: Figure) -> Metric:
    named = METRICS[name]
    if isinstance(figure, Durations):
        bounds = (*map(str, figure.bounds), "+Inf")
        counts = accumulate(figure.counts)
        return HistogramMetricFamily(
            name, named.meaning, buckets=list(zip(bounds, counts, strict=True)), sum_value=figure.seconds
        )
    kind = CounterMetricFamily if named.kind == "counter" else GaugeMetricFamily
    if not isinstance(figure, Mapping):
        return kind(name, named.meaning, value=figure)
    family = kind(name, named.meaning, labels=[named.label or ""])
    for value, number in _bounded(figure.items(), named.values):
        family.add_metric([value], number)
    return family


def _bounded(items: Iterable[tuple[str, float]], values: frozenset[str] | None) -> Iterator[tuple[str, float]]:
    """The items of a label's table, and the sum of all others."""
    others = 0.0
    for value, number in items:
        if values is None or value in values:
            yield value, number
        else:
            others += number
    if others:
        yield OTHER, others
