"""Small curves: what is left of many values, and how much is read for them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from telegrad.wire.jobs import JobInfo, MetricRow
from telegrad_server.web import views
from telegrad_server.web.sparks import POINTS, ROWS, Spark, Sparks

INFO = JobInfo(
    id="j1", name="one", state="RUNNING", reason="STARTED", message="", line="", step=0, last_step=10**6,
    steps_per_epoch=100, position=0, restarts=0, worker="here", submitted_at=0.0, changed_at=0.0, live_step=0,
    steps_per_second=1.0,
)  # fmt: skip


def rows(first: int, last: int, name: str = "loss") -> list[MetricRow]:
    return [MetricRow(step, 0, name, float(step), 0.0) for step in range(first, last + 1)]


class Book:
    """A journal with a metric at every step, that counts what is read."""

    def __init__(self, last: int) -> None:
        self.last, self.read, self.at = last, 0, 0.0

    def metrics(self, tenant: str, key: str, after_step: int) -> list[MetricRow]:
        found = rows(max(1, after_step + 1), min(self.last, max(1, after_step + 1) + 9_999))
        found = [row._replace(at=self.at, value=row.value + self.at) for row in found]
        self.read += len(found)
        return found


def test_few_values_are_all_there_and_many_are_means_of_equally_many() -> None:
    few, many = Spark(), Spark()

    few.add(rows(1, 10))
    many.add(rows(0, 16 * POINTS - 1))

    assert few.points == [float(step) for step in range(1, 11)]
    assert POINTS // 2 <= len(many.points) <= POINTS
    each = many.points[1] - many.points[0]
    assert all(math.isclose(b - a, each) for a, b in zip(many.points, many.points[1:], strict=False))


def test_the_loss_is_shown_if_there_is_one_and_what_is_no_number_is_not() -> None:
    spark = Spark()

    spark.add([*rows(1, 3, "accuracy"), *rows(4, 6), MetricRow(7, 0, "loss", math.nan, 0.0), *rows(8, 9, "other")])

    assert (spark.name, spark.points, spark.step) == ("loss", [4.0, 5.0, 6.0], 9)


def test_of_a_long_job_a_list_reads_a_part_and_goes_on_in_the_next() -> None:
    book: Any = Book(last=20_000)
    sparks = Sparks(book)
    jobs = [replace(INFO, id=f"j{i}", step=20_000) for i in range(10)]

    sparks.of("alice", jobs)

    assert book.read <= 2 * ROWS
    for _ in range(20):
        sparks.of("alice", jobs)
    assert 10 * 20_000 <= book.read < 10 * 20_100  # what was read last is looked at again
    assert sparks.of("alice", jobs)["j9"].step == 20_000


def test_a_rewound_jobs_curve_begins_anew() -> None:
    book: Any = Book(last=50)
    sparks = Sparks(book)
    assert len(sparks.of("alice", [replace(INFO, step=50)])["j1"].points) == 50

    book.last = 20

    assert len(sparks.of("alice", [replace(INFO, step=20)])["j1"].points) == 20


def test_a_curve_begins_anew_for_a_job_that_was_rewound_and_has_come_further_since_the_last_look() -> None:
    book: Any = Book(last=20)
    sparks = Sparks(book)
    assert len(sparks.of("alice", [replace(INFO, step=20)])["j1"].points) == 20

    book.last, book.at = 30, 7.0

    assert sparks.of("alice", [replace(INFO, step=30)])["j1"].points == [step + 7.0 for step in range(1, 31)]


def test_tenants_do_not_share_curves() -> None:
    book: Any = Book(last=5)
    sparks = Sparks(book)

    first = sparks.of("alice", [replace(INFO, step=5)])["j1"]

    assert sparks.of("bob", [replace(INFO, step=5)])["j1"] is not first


@pytest.mark.parametrize(("value", "word"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")])
def test_what_json_has_no_number_for_is_a_word(value: float, word: str) -> None:
    told = json.loads(views.encoded(views.series([MetricRow(1, 0, "loss", value, 0.0)])))

    assert told["loss"]["value"] == [word]
