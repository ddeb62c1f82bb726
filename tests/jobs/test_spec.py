"""A job as data: what fits together is encoded the same everywhere, what does not is refused in one sentence."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from telegrad.errors import GraphError, TelegradError
from telegrad.ir import types as t
from telegrad.ir.types import Type
from telegrad.wire.codec import decode_function
from telegrad.wire.job_calls import Becomes, Call, Column, Literal, Metric, RandomKey, Slot
from telegrad.wire.job_codec import decode_spec, encode_spec, spec_digest
from telegrad.wire.job_spec import Batch, DataSource, EarlyStopping, Every, JobSpec, Loop, Parent, Schedule, Validation
from telegrad_server.jobs.spec import check_spec

from tests.jobs.specs import COLUMNS, full_spec, small_spec


def check(spec: JobSpec) -> None:
    check_spec(spec, decode=decode_function, columns=lambda data: COLUMNS)


def later_spec() -> JobSpec:
    """With what came after the first specs were written."""
    spec = full_spec()
    closing = spec.after_validation[0]
    outputs = (Metric("seen", "sum", over="count"), Metric("count", "sum"))
    named = replace(closing, inputs=(*closing.inputs[:3], Literal(b"\x00\x00\x00\x3f", "lr")), outputs=outputs)
    return replace(spec, early_stopping=EarlyStopping("val/loss", "min", 3, since=4), after_validation=(named,))


@pytest.mark.parametrize(
    "spec", [small_spec(), full_spec(), later_spec(), small_spec(loop=Loop(32, steps=9, shuffle=False))]
)
def test_a_spec_comes_back_from_its_bytes(spec: JobSpec) -> None:
    data = encode_spec(spec)

    assert decode_spec(data) == spec
    assert encode_spec(decode_spec(data)) == data
    check(spec)


def test_the_digest_of_a_spec_never_changes() -> None:
    assert spec_digest(encode_spec(full_spec())) == "879313643543e4976fd85fae5b75cfec55c4615cd233e1299d0785886201e9c1"


def test_the_order_of_functions_says_nothing() -> None:
    spec = full_spec()

    assert encode_spec(replace(spec, functions=spec.functions[::-1])) == encode_spec(spec)


@pytest.mark.parametrize(
    ("rows", "loop", "last", "sizes"),
    [
        (100, Loop(32, epochs=2), 8, (32, 4)),
        (96, Loop(32, epochs=2), 6, (32,)),
        (100, Loop(32, epochs=2, drop_last=True), 6, (32,)),
        (20, Loop(32, epochs=3), 3, (20,)),
        (100, Loop(32, steps=3), 3, (32,)),
        (100, Loop(32, steps=4), 4, (32, 4)),
    ],
)
def test_a_loop_says_which_batches_it_meets(rows: int, loop: Loop, last: int, sizes: tuple[int, ...]) -> None:
    met = {loop.batch(step, rows).rows for step in range(1, last + 1)}

    assert loop.last_step(rows) == last
    assert loop.sizes(rows) == sizes
    assert met == set(sizes)


def test_an_epoch_has_each_row_once() -> None:
    loop = Loop(32, epochs=2)

    batches = [loop.batch(step, 100) for step in range(1, 9)]

    assert batches[0] == Batch(0, 0, 32)
    assert batches[4] == Batch(1, 0, 32)
    assert [loop.ends_epoch(step, 100) for step in range(9)] == [s in (4, 8) for s in range(9)]
    assert sum(b.rows for b in batches) == 200


def test_a_schedule_holds_its_last_number() -> None:
    schedule = Schedule("rate", "steps", (0.1, 0.05))

    assert [schedule.at(step, 0) for step in (1, 2, 3, 1000)] == [0.1, 0.05, 0.05, 0.05]
    assert Schedule("rate", "epochs", (1.0, 2.0)).at(99, 1) == 2.0


def _step(change: Callable[[Call], Call]) -> JobSpec:
    spec = small_spec()
    return replace(spec, steps=tuple([change(c) for c in spec.steps]))


def _by_size(**changes: Any) -> JobSpec:
    """A spec whose calls differ by the size of the batch."""
    first, second = small_spec().steps
    return replace(small_spec(), steps=(first, replace(second, **changes)))


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "name": (lambda: small_spec("../x"), "cannot be a job's name"),
    "name too long": (lambda: small_spec("x" * 129), "at most 128"),
    "name with a newline": (lambda: small_spec("x\n"), "cannot be a job's name"),
    "epochs and steps": (lambda: Loop(32, epochs=1, steps=1), "either epochs or steps"),
    "neither": (lambda: Loop(32), "either epochs or steps"),
    "batch": (lambda: Loop(0, epochs=1), "batch_size must be an integer from 1"),
    "bool": (lambda: Loop(True, epochs=1), "batch_size must be an integer"),
    "no batch": (lambda: small_spec(loop=Loop(101, epochs=1, drop_last=True)), "make no batch"),
    "no batch by steps": (lambda: small_spec(loop=Loop(101, steps=1, drop_last=True)), "make no batch"),
    "missing size": (lambda: small_spec(loop=Loop(33, epochs=1)), "meets batches of 33 rows"),
    "digest": (lambda: DataSource("points", "AB" * 32, 1), "64 hexadecimal digits"),
    "unknown variable": (lambda: small_spec(state=()), "'w' is not among the job's state"),
    "unknown schedule": (lambda: small_spec(schedules=()), "'rate' is not among the job's schedules"),
    "two slots": (lambda: small_spec(constants=(Slot("w", Type((), t.float32)),)), "is there twice: 'w'"),
    "unknown metric": (lambda: small_spec(early_stopping=EarlyStopping("acc", "max", 1)), "nothing records"),
    "mode": (lambda: EarlyStopping("acc", "best", 1), "must be one of 'min', 'max'"),  # type: ignore[arg-type]
    "patience": (lambda: EarlyStopping("acc", "max", -1), "patience must be"),
    "not a number": (lambda: EarlyStopping("acc", "max", 1, float("nan")), "finite"),
    "schedule": (lambda: Schedule("rate", "steps", (1.0, float("inf"))), "not finite"),
    "empty schedule": (lambda: Schedule("rate", "steps", ()), "no values"),
    "missing function": (lambda: small_spec(functions=small_spec().functions[:1]), "are missing"),
    "idle function": (lambda: small_spec(functions=full_spec().functions), "never called"),
    "function twice": (lambda: small_spec(functions=small_spec().functions * 2), "there twice"),
    "seed": (lambda: small_spec(seed=-1), "seed must be"),
    "fork at the end": (lambda: small_spec(parent=Parent("j", 8)), "must have a step left"),
    "id": (lambda: Call(b"", 1, (), ()), "32 bytes"),
    "metric name": (lambda: Metric("a b"), "must be letters, digits"),
    "metric twice": (lambda: Call(bytes(32), 1, (), (Metric("a"), Metric("a"))), "there twice"),
    "mean over": (lambda: Metric("a", over="b"), "is a quotient of sums"),
    "over nothing": (lambda: Call(bytes(32), 1, (), (Metric("a", "sum", "b"),)), "is over b, which is no sum"),
    "column without rows": (lambda: Call(bytes(32), 0, (Column("x"),), ()), "needs rows"),
    "every": (lambda: Every(1, "days"), "'steps', 'epochs'"),  # type: ignore[arg-type]
    "validation": (
        lambda: Validation(DataSource("v", "ab" * 32, 5), 2, Every(1, "epochs"), (Call(bytes(32), 2, (), ()),)),
        "meets batches of 1 rows",
    ),
    "metrics by size": (lambda: _by_size(outputs=(None, None)), "same metrics"),
    "arity": (lambda: check(_step(lambda c: replace(c, inputs=c.inputs[:3]))), "has 3 inputs; its function takes 4"),
    "results": (lambda: check(_step(lambda c: replace(c, outputs=c.outputs[:1]))), "has 1 results; its function"),
    "no such column": (
        lambda: check(_step(lambda c: replace(c, inputs=(c.inputs[0], Column("z"), *c.inputs[2:])))),
        "column 'z', which the data has not",
    ),
    "type": (
        lambda: check(small_spec(state=(Slot("w", Type((2,), t.float32)),))),
        r"is float32\[\]; the variable 'w' is float32\[2\]",
    ),
    "literal": (
        lambda: check(_step(lambda c: replace(c, inputs=(*c.inputs[:3], Literal(b"1234"))))),
        "the literal has 4 bytes",
    ),
    "key": (
        lambda: check(_step(lambda c: replace(c, inputs=(*c.inputs[:3], RandomKey())))),
        "the key of random numbers is uint32",
    ),
    "updates no variable": (
        lambda: check(_step(lambda c: replace(c, inputs=(Literal(b"1234"), *c.inputs[1:])))),
        "updates a literal, which is no variable",
    ),
    "two next values": (
        lambda: check(_step(lambda c: replace(c, outputs=(Metric("loss"), Becomes("w"))))),
        "two next values",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_in_one_sentence(name: str) -> None:
    make, words = WRONG[name]

    with pytest.raises(GraphError, match=words) as caught:
        make()

    assert caught.value.reason == "JOB_INVALID"
    assert "\n" not in str(caught.value)


def test_no_bytes_do_more_than_be_refused() -> None:
    rng = random.Random(5)
    data = encode_spec(full_spec())
    for _ in range(3000):
        broken = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        if rng.random() < 0.3:
            del broken[rng.randrange(len(broken)) :]
        try:
            spec = decode_spec(bytes(broken))
        except TelegradError:
            continue
        assert encode_spec(spec) == bytes(broken)


def test_what_is_not_known_here_is_refused() -> None:
    data = encode_spec(small_spec())

    for more in (b"\xfa\x3f\x01x", b"\x08\x02"):
        with pytest.raises(GraphError, match=re.compile("not known here")):
            decode_spec(data + more)
