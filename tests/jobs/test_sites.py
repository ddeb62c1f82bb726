"""Which worker gets a job."""

from __future__ import annotations

from collections import Counter

from telegrad.wire.job_spec import Demand
from telegrad_server.jobs.sites import Site, choose

ONE, TWO, OTHER = Site("w1", "same", 1), Site("w2", "same", 1), Site("w3", "other", 1)


def test_the_worker_with_the_fewest_jobs_gets_one() -> None:
    roomy = [site._replace(most=0) for site in (ONE, TWO)]

    assert choose(roomy, Counter({"w1": 2, "w2": 1}), fingerprint="") == roomy[1]
    assert choose(roomy, Counter(), fingerprint="") == roomy[0]


def test_a_job_waits_while_all_workers_are_taken_and_says_so() -> None:
    assert choose([], Counter(), fingerprint="") == "no worker is there that takes jobs"
    assert choose([ONE], Counter({"w1": 1}), fingerprint="") == "the one worker has another job"
    assert choose([ONE, TWO], Counter({"w1": 1, "w2": 1}), fingerprint="") == "all 2 workers have other jobs"


def test_a_job_that_has_begun_waits_for_a_worker_with_the_same_bits() -> None:
    found = choose([ONE, OTHER], Counter({"w1": 1}), fingerprint="same")

    assert found == "all workers that compute the bits it began with have other jobs: 1 of 2"
    assert choose([ONE, OTHER], Counter({"w1": 1}), fingerprint="") == OTHER


def test_a_job_goes_to_other_bits_when_nobody_has_its_own_any_more() -> None:
    assert choose([OTHER], Counter(), fingerprint="same") == OTHER


def test_a_job_gets_what_it_wishes_for_or_says_for_what_it_waits() -> None:
    sites = [Site("w1", "a", backend="numpy", free_bytes=10), Site("w2", "b", backend="cupy", free_bytes=1000)]

    assert choose(sites, Counter(), fingerprint="", demand=Demand(backend="cupy")) == sites[1]
    assert choose(sites, Counter({"w1": 5}), fingerprint="b", demand=Demand(worker="w1")) == sites[0]
    assert choose(sites, Counter(), fingerprint="", demand=Demand(memory_bytes=11)) == sites[1]
    assert (
        choose(sites, Counter(), fingerprint="", demand=Demand("cupy", "w1"))
        == "none of the 2 workers that are there is named w1 and one that computes with cupy"
    )


def test_a_worker_that_is_full_is_passed_over_and_named_if_there_is_no_other() -> None:
    full = {"w1": "w1 is full"}

    assert choose([ONE, TWO], Counter(), fingerprint="", full=full) == TWO
    assert choose([ONE, TWO], Counter({"w2": 1}), fingerprint="", full=full) == "w1 is full"
    assert choose([ONE, OTHER], Counter(), fingerprint="same", full=full) == "w1 is full"
