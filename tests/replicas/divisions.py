"""Runs a data-parallel function in every division over workers: a thread each, and a communicator of shared dicts.

`Steps` listens to the embedded worker and keeps what each call was given and what came out; `check` runs the calls
again, divided, and compares bits.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import telegrad_server.functions
from telegrad.ir import Function
from telegrad_server.compiler.pipeline import Place, compile_function
from telegrad_server.compiler.plan import Plan
from telegrad_server.compiler.replicas import Share
from telegrad_server.config import embedded_config
from telegrad_server.executors.array import ArrayExecutor, numpy_executor
from telegrad_server.executors.blas import openblas
from telegrad_server.executors.company import Company
from telegrad_server.tree import Division, Node, spans, total

from tests.compiler.graphs import same_bits

Array = npt.NDArray[Any]


class Group:
    """Workers that share what they bring."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.brought: dict[int, dict[Node, Array]] = {}
        self.workers: dict[int, int] = {}
        self.changed = threading.Condition()
        self.error: BaseException | None = None

    def bring(self, bucket: int, parts: dict[Node, Array]) -> None:
        with self.changed:
            known = self.brought.setdefault(bucket, {})
            assert not known.keys() & parts.keys()
            known.update({node: part.copy() for node, part in parts.items()})
            self.workers[bucket] = self.workers.get(bucket, 0) + 1
            self.changed.notify_all()

    def sums(self, bucket: int, replicas: int) -> Array:
        return total((0, replicas), self._whole(bucket), np.add)

    def all(self, bucket: int) -> Array:
        return np.concatenate([part for _, part in sorted(self._whole(bucket).items())])

    def _whole(self, bucket: int) -> dict[Node, Array]:
        with self.changed:
            done = self.changed.wait_for(lambda: self.error or self.workers.get(bucket) == self.size, timeout=60)
            assert done and self.error is None, "another worker failed or never came"
            return self.brought[bucket]


class Member:
    """The communicator of one of them. The order in which it starts and takes buckets is kept."""

    def __init__(self, group: Group, rank: int) -> None:
        self.group = group
        self.rank = rank
        self.order: list[tuple[str, int]] = []

    def start_all_reduce(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> Under:
        self.order.append(("start", tag))
        self.group.bring(tag, dict(zip(division.nodes(self.rank), parts, strict=True)))
        out.fill(7)  # nobody may rely on it
        return Under(self, out, tag, lambda: self.group.sums(tag, division.replicas))

    def start_reduce_scatter(self, parts: Sequence[Array], out: Array, *, division: Division, tag: int) -> Under:
        self.order.append(("start", tag))
        self.group.bring(tag, dict(zip(division.nodes(self.rank), parts, strict=True)))
        for part in parts:
            part.fill(7)
        first, last = spans(parts[0].size, self.group.size)[self.rank]
        return Under(self, out, tag, lambda: self.group.sums(tag, division.replicas)[first:last])

    def start_all_gather(self, x: Array, out: Array, *, tag: int) -> Under:
        self.order.append(("start", tag))
        self.group.bring(tag, {(self.rank, self.rank + 1): x})
        out.fill(7)
        return Under(self, out, tag, lambda: self.group.all(tag))

    def abort(self, reason: str) -> None:
        """The group hears of the error itself."""


class Under(NamedTuple):
    """A sum under way."""

    member: Member
    out: Array
    tag: int
    result: Callable[[], Array]
    is_done = False

    def wait(self, *, timeout_seconds: float | None) -> None:
        self.member.order.append(("finish", self.tag))
        self.out[...] = self.result()


def run_divided(function: Function, inputs: Sequence[Array], blocks: Sequence[int]) -> list[Array]:
    """The results of the function with so many replicas on each worker; all workers must agree on what is the same."""
    how = function.replication
    assert how is not None and sum(blocks) == how.taking
    group = Group(len(blocks))
    found: list[list[Array]] = [[] for _ in blocks]
    members = [Member(group, rank) for rank in range(len(blocks))]
    bounds = [0, *accumulate(blocks)]
    division = Division(how.taking, tuple(pairwise(bounds)))

    def work(number: int) -> None:
        try:
            share = Share(*division.blocks[number])
            place = Place(number, len(blocks)) if how.shards and len(blocks) > 1 else None
            executor = numpy_executor(kernels=embedded_config("numpy", os.environ).native_kernels, is_poisoned=True)
            plan = compile_function(function, share=share, place=place, kernels=executor.kernels)
            start, stop = how.rows_of(*share)
            given = [
                np.ascontiguousarray(x[start:stop]) if i in how.split_inputs else held(x, plan, i, number, len(blocks))
                for i, x in enumerate(inputs)
            ]
            company = Company(members[number], division, step=0)  # type: ignore[arg-type]
            found[number] = executor.run(plan, given, company=company.present())
        except BaseException as error:
            with group.changed:
                group.error = error
                group.changed.notify_all()
            raise

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(blocks))]
    blas = openblas()
    before = blas.threads if blas is not None else 1
    if blas is not None:
        blas.use_threads(1)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if blas is not None:
        blas.use_threads(before)
    if group.error is not None:
        raise group.error
    starts = [[number for what, number in m.order if what == "start"] for m in members]
    assert all(order == starts[0] for order in starts) and sorted(starts[0]) == list(range(len(starts[0])))
    results: list[Array] = []
    for i, each in enumerate(zip(*found, strict=True)):
        if i in how.row_outputs:
            results.append(np.concatenate(each))
        elif each[0].shape != function.output_types[i].shape:  # state that is divided
            results.append(np.concatenate(each).reshape(function.output_types[i].shape))
        else:
            assert all(same_bits(each[0], x) for x in each), f"the workers disagree on result {i}"
            results.append(each[0])
    return results


def held(x: Array, plan: Plan, number: int, rank: int, size: int) -> Array:
    """What a worker holds of an input that is the same on all: its span, if it is divided state."""
    if plan.input_types[number].shape == x.shape:
        return x
    first, last = spans(x.size, size)[rank]
    return x.reshape(-1)[first:last].copy()


class Steps:
    """The calls of data-parallel functions on the embedded worker, while it is listened to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Function, list[Array], list[Array]]] = []
        self._functions: dict[int, Function] = {}
        self._plans: list[Plan] = []
        compiled, run = compile_function, ArrayExecutor.run

        def compile_and_note(function: Function, **options: Any) -> Plan:
            plan = compiled(function, **options)
            if function.replication is not None:
                self._functions[id(plan)] = function
                self._plans.append(plan)
            return plan

        def run_and_note(
            executor: ArrayExecutor,
            plan: Plan,
            inputs: Sequence[Array],
            *,
            company: AbstractContextManager[None] | None = None,
        ) -> list[Array]:
            results = run(executor, plan, inputs, company=company)
            if id(plan) in self._functions:
                self.calls.append((self._functions[id(plan)], [x.copy() for x in inputs], [x.copy() for x in results]))
            return results

        monkeypatch.setattr(telegrad_server.functions, "compile_function", compile_and_note)
        monkeypatch.setattr(ArrayExecutor, "run", run_and_note)

    def check(self, *divisions: Sequence[int]) -> None:
        """Every call has the same bits in each of these divisions of its replicas."""
        assert self.calls
        for function, inputs, results in list(self.calls):
            for blocks in divisions:
                again = run_divided(function, inputs, blocks)
                for i, (x, y) in enumerate(zip(results, again, strict=True)):
                    assert same_bits(x, y), f"{blocks}: result {i} differs by {np.abs(x - y).max()}"
