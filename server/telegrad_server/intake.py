"""Takes jobs in: what a new job needs is held and its first checkpoint written before the ledger hears of it.

So whatever happens on the way, a job that the journal knows has its data and a checkpoint to begin from; and of one
that it does not know nothing stays.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from telegrad.errors import GraphError, NotFound, QuotaExceeded
from telegrad.ir.types import Type
from telegrad.wire.codec import decode_function
from telegrad.wire.job_codec import decode_spec, encode_spec, spec_digest
from telegrad.wire.job_spec import DataSource, JobSpec

from telegrad_server.checkpoints import CheckpointStore, Draft, Named, write_order
from telegrad_server.datasets import Catalog
from telegrad_server.jobs import events as e
from telegrad_server.jobs.spec import check_spec
from telegrad_server.keeper import Keeper
from telegrad_server.ledger import Ledger

Tensors = Sequence[tuple[str, Callable[[], memoryview]]]
"""Of checkpoint 0: names, and what gives the bytes when their turn has come."""


class Intake:
    """Takes in what users submit, and the forks of what is here."""

    def __init__(self, ledger: Ledger, store: CheckpointStore, catalog: Catalog, keeper: Keeper) -> None:
        self._ledger, self._store, self._catalog, self._keeper = ledger, store, catalog, keeper

    def submit(self, tenant: str, request_id: str, data: bytes, tensors: Tensors) -> str:
        """The id of a job with this spec and checkpoint 0, or of that which the same request has made before.

        GraphError (JOB_INVALID) for a spec that does not fit, NotFound for data that is not there, and as `take`.
        """
        asked = spec_digest(data)
        known = self._ledger.earlier(tenant, request_id, asked)
        if known is not None:
            return known.id
        spec = decode_spec(data)
        check_spec(spec, decode=decode_function, columns=lambda source: self._columns(tenant, source))
        if spec.parent is not None:
            raise GraphError("forks are made by the server, from a checkpoint of its own", reason="JOB_INVALID")
        draft = _first_draft(spec)
        return self.take(tenant, spec, draft, _given(draft, tensors), request_id=request_id, asked=asked)

    def take(
        self, tenant: str, spec: JobSpec, draft: Draft, tensors: Iterable[Named], *, request_id: str, asked: str
    ) -> str:
        """The id of a new job that begins with what is drafted, or of that which the same request has made meanwhile.

        ``asked`` is the digest of what was asked for. JobError (JOB_NAME_TAKEN), QuotaExceeded, StorageFull.
        """
        data, job = encode_spec(spec), secrets.token_hex(16)
        digest = spec_digest(data)
        submitted = replace(e.Submitted.of(job, tenant, spec, data, request_id=request_id), request_digest=asked)
        try:
            with self._keeper.arriving(job, tenant, spec, request_id=request_id):
                if self._write(submitted, data, replace(draft, job=job, spec_digest=digest), tensors, spec):
                    return job
        except QuotaExceeded:
            if self._ledger.earlier(tenant, request_id, asked) is None:
                raise
        earlier = self._ledger.earlier(tenant, request_id, asked)  # it was faster on another thread
        assert earlier is not None
        return earlier.id

    def _write(
        self, submitted: e.Submitted, data: bytes, draft: Draft, tensors: Iterable[Named], spec: JobSpec
    ) -> bool:
        """Let the job be there, or nothing of it. Whether it is: False if its request has made another one."""
        job, tenant = submitted.job, submitted.tenant
        is_told = False
        try:
            for source in spec.sources:
                self._catalog.hold(tenant, source.digest, by=_holder(job))
            self._store.write(draft, tensors)
            is_told = bool(self._ledger.tell(submitted, specs={draft.spec_digest: data}))
        finally:
            if not is_told:
                self.forget(e.Forget(job, tenant))
        return is_told

    def forget(self, command: e.Forget) -> None:
        """Take away all that is kept for a job."""
        self._store.remove(command.job)
        with suppress(NotFound):
            self._catalog.let_go(command.tenant, by=_holder(command.job))

    def _columns(self, tenant: str, source: DataSource) -> dict[str, Type]:
        dataset = self._catalog.open_digest(tenant, source.digest)
        if source.first + source.rows > dataset.rows:
            raise GraphError(
                f"the job wants {source.rows} rows from {source.first} on; dataset {source.name} has {dataset.rows}",
                reason="JOB_INVALID",
            )
        return dict(dataset.columns)


def _holder(job: str) -> str:
    """Who holds a job's data, as the catalog and the keeper know it."""
    return f"job-{job}"


def _first_draft(spec: JobSpec) -> Draft:
    """What checkpoint 0 of a submitted job says, but for the job."""
    return Draft(
        job="",
        step=spec.first_step,
        epoch=0,
        cursor=0,
        calls=0,
        seed=spec.seed,
        spec_digest="",
        fingerprint="",  # no worker has computed it
        metrics={},
        tensors={slot.name: slot.type for slot in (*spec.state, *spec.constants)},
    )


def _given(draft: Draft, tensors: Tensors) -> Iterator[Named]:
    """The tensors of checkpoint 0, in the order to write them. GraphError (JOB_INVALID) for others than are drafted."""
    given = dict(tensors)
    if wrong := given.keys() ^ draft.tensors.keys():
        raise _unlike(min(wrong))
    for name in write_order(draft.tensors):
        view = given[name]()
        if len(view) != draft.tensors[name].nbytes:
            raise _unlike(name)
        yield name, draft.tensors[name], view


def _unlike(tensor: str) -> GraphError:
    return GraphError(f"checkpoint 0: the tensor {tensor!r} is not what the job's spec says", reason="JOB_INVALID")
