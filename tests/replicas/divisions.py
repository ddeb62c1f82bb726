"""Runs a data-parallel function in every division over workers: a thread each, and a communicator of shared dicts.

`Steps` listens to the embedded worker and keeps what each call was given and what came out; `check` runs the calls
again, divided, and compares bits.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import telegrad_server.functions
from telegrad.ir import Function
from telegrad_server.compiler.collective import FinishAllReduce, StartAllReduce
from telegrad_server.compiler.pipeline import compile_function
from telegrad_server.compiler.plan import Plan
from telegrad_server.compiler.replicas import Share
from telegrad_server.executors.array import ArrayExecutor
from telegrad_server.executors.array_module import NumpyModule
from telegrad_server.executors.blas import openblas
from telegrad_server.tree import Node, total

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

    def bring(self, op: StartAllReduce, token: Array) -> None:
        with self.changed:
            parts = self.brought.setdefault(op.bucket, {})
            assert not parts.keys() & set(op.nodes)
            parts.update({span: row.copy() for span, row in zip(op.nodes, token, strict=True)})
            self.workers[op.bucket] = self.workers.get(op.bucket, 0) + 1
            self.changed.notify_all()

    def fetch(self, op: FinishAllReduce) -> Array:
        with self.changed:
            done = self.changed.wait_for(lambda: self.error or self.workers.get(op.bucket) == self.size, timeout=60)
            assert done and self.error is None, "another worker failed or never came"
            return total((0, op.replicas), self.brought[op.bucket], np.add)


class Member(NumpyModule):
    """The array module of one of them. The order in which it starts and takes buckets is kept."""

    def __init__(self, group: Group) -> None:
        super().__init__()
        self.group = group
        self.order: list[tuple[str, int]] = []

    def start_all_reduce(self, op: StartAllReduce, token: Array) -> Array:
        self.order.append(("start", op.bucket))
        self.group.bring(op, token)
        return np.full_like(token, 7)  # nobody may rely on it

    def finish_all_reduce(self, op: FinishAllReduce, token: Array) -> Array:
        self.order.append(("finish", op.bucket))
        return self.group.fetch(op)


def run_divided(function: Function, inputs: Sequence[Array], blocks: Sequence[int]) -> list[Array]:
    """The results of the function with so many replicas on each worker; all workers must agree on what is the same."""
    how = function.replication
    assert how is not None and sum(blocks) == how.taking
    group = Group(len(blocks))
    found: list[list[Array]] = [[] for _ in blocks]
    modules = [Member(group) for _ in blocks]

    def work(number: int) -> None:
        try:
            first = sum(blocks[:number])
            share = Share(first, first + blocks[number])
            plan = compile_function(function, share=share)
            executor = ArrayExecutor(modules[number], name="numpy", reason="", fingerprint="", is_poisoned=True)
            start, stop = how.rows_of(*share)
            given = [np.ascontiguousarray(x[start:stop]) if i in how.split_inputs else x for i, x in enumerate(inputs)]
            found[number] = executor.run(plan, given)
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
    starts = [[number for what, number in m.order if what == "start"] for m in modules]
    assert all(order == list(range(len(order))) for order in starts) and len(set(map(len, starts))) == 1
    results: list[Array] = []
    for i, each in enumerate(zip(*found, strict=True)):
        if i in how.row_outputs:
            results.append(np.concatenate(each))
        else:
            assert all(same_bits(each[0], x) for x in each), f"the workers disagree on result {i}"
            results.append(each[0])
    return results


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

        def run_and_note(executor: ArrayExecutor, plan: Plan, inputs: Sequence[Array]) -> list[Array]:
            results = run(executor, plan, inputs)
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
