"""What is read ahead, several batches in a turn, is each step's own batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telegrad.wire.job_calls import Column, Metric, Scheduled, State
from telegrad.wire.job_spec import DataSource, JobSpec, Loop
from telegrad_server.datasets.dataset import Mapped
from telegrad_server.loops.batches import reading, rows_of_step

from tests.jobs.specs import call, small_spec, step_function

DIGEST = "0" * 64


def spec_of(loop: Loop, rows: int, first: int = 0) -> JobSpec:
    inputs = [State("w"), Column("x"), Column("y"), Scheduled("rate")]
    made = [call(step_function(n), n, inputs, [Metric("loss"), None]) for n in loop.sizes(rows)]
    return replace(
        small_spec(),
        loop=loop,
        data=DataSource("d", DIGEST, rows, first),
        functions=tuple([data for _, data in made]),
        steps=tuple([c for c, _ in made]),
    )


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 40), batch=st.integers(1, 17), first=st.integers(0, 3), width=st.sampled_from([1, 700, 90_000]),
    epochs=st.integers(1, 3), more=st.integers(0, 2), begin=st.integers(0, 30), shuffle=st.booleans(),
    drop_last=st.booleans(),
)  # fmt: skip
def test_every_step_gets_its_own_batch(
    rows: int, batch: int, first: int, width: int, epochs: int, more: int, begin: int, shuffle: bool, drop_last: bool
) -> None:
    batch = min(batch, rows)
    x = np.broadcast_to(np.arange(rows + first, dtype=np.float32)[:, None], (rows + first, width))
    loop = Loop(batch, epochs=epochs, shuffle=shuffle, shuffle_seed=7, drop_last=drop_last)
    spec = spec_of(loop, rows, first)
    longer = replace(spec, loop=replace(loop, epochs=epochs + more))  # extended as it comes to its end

    data = Mapped(DIGEST, {"x": x})
    with reading(data) as batches:
        for step in range(begin + 1, longer.last_step + 1):
            given = batches.of(spec if step < spec.last_step else longer, step)["x"]

            assert given.flags.c_contiguous
            assert given[:, 0].tolist() == rows_of_step(data, longer, step).tolist()


def test_an_error_of_reading_comes_at_its_step() -> None:
    spec = spec_of(Loop(10, epochs=1, shuffle=False), 100)

    with reading(Mapped(DIGEST, {"x": np.zeros((95, 60_000), np.float32)})) as batches:
        for step in range(1, 10):
            assert len(batches.of(spec, step)["x"]) == 10
        with pytest.raises(IndexError):
            batches.of(spec, 10)
