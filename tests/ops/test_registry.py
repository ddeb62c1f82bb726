"""What is generated from the facts of every op: values, gradients, bits, dtypes, costs, refusals.

The quick tier takes one sample of each op; all samples are marked slow. Numbers are random from seeds that a failure
prints.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import GraphError
from telegrad.ir import types as t
from telegrad.ops import registry
from telegrad_server.compiler.pipeline import PASSES

from tests.client.conftest import Server
from tests.compiler.graphs import same_bits
from tests.ops.checks import Array, call
from tests.ops.registry import ELSEWHERE, FACTS, Facts, Sample, slopes
from tests.ops.registry import checks as c
from tests.ops.registry.facts import ANY, Refusal
from tests.ops.registry.tiers import Keep, rows

INTEGERS_OF = 5
"""In dtypes that are not floating-point, only so many samples of each op are run: they differ in shape alone."""


def rows_in(dtypes: Sequence[t.DType], keep: Keep) -> list[Any]:
    """The same for each of these dtypes that the op takes."""
    found: list[Any] = []
    for name, facts in FACTS.items():
        for dtype in dtypes:
            kept = [(i, s) for i, s in enumerate(facts.samples) if c.can_be(facts, s, dtype)]
            kept = [(i, s) for i, s in kept if keep(facts, s)][: None if dtype.is_float else INTEGERS_OF]
            for place, (i, sample) in enumerate(kept):
                slow = (pytest.mark.slow,) if place or not dtype.is_float else ()
                found.append(pytest.param(facts, sample, dtype, id=f"{name}-{i}-{dtype}", marks=slow))
    return found


def is_strided(facts: Facts, sample: Sample) -> bool:
    return any(a.size > 1 for a in sample.arrays)


ONE_OF_EACH = [pytest.param(facts, id=name) for name, facts in FACTS.items()]
NARROW = (t.float32, t.float16, t.bfloat16)


# ---- completeness


def test_every_op_has_facts() -> None:
    missing = sorted(set(registry()) - set(FACTS) - set(ELSEWHERE))
    unknown = sorted((set(FACTS) | set(ELSEWHERE)) - set(registry()))

    assert (missing, unknown) == ([], [])


@pytest.mark.parametrize("facts", ONE_OF_EACH)
def test_facts_are_complete(facts: Facts) -> None:
    assert c.missing_parts(facts) == []


@pytest.mark.parametrize("name", sorted(registry()))
def test_every_op_says_what_it_is(name: str) -> None:
    cls = registry()[name]
    text = cls.__doc__

    assert text and not text.startswith(cls.__name__ + "("), "dataclass writes a docstring if there is none"
    assert text.rstrip().endswith((".", ")")), text


@pytest.mark.parametrize("facts", ONE_OF_EACH)
def test_a_reference_calls_none_of_our_code(facts: Facts) -> None:
    called: set[str] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            called.add(frame.f_globals.get("__name__", ""))

    sample = facts.samples[0]
    wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in sample.arrays]
    results = call(sample.results, *wide)
    sys.setprofile(note)
    try:
        if facts.laws is not None:
            facts.laws(sample.op, results, *wide)
        else:
            assert facts.reference is not None
            facts.reference(sample.op, *wide)
    finally:
        sys.setprofile(None)

    assert [name for name in called if name.startswith(("telegrad.ops", "telegrad_server", "telegrad.autodiff"))] == []


# ---- values


@pytest.mark.parametrize(("facts", "sample"), rows())
def test_results_are_those_of_the_reference(facts: Facts, sample: Sample) -> None:
    c.check_forward(facts, sample)


@pytest.mark.parametrize(("facts", "sample", "dtype"), rows_in(ANY, lambda facts, sample: True))
def test_results_in_every_dtype_are_within_the_tolerance(facts: Facts, sample: Sample, dtype: t.DType) -> None:
    c.check_forward(facts, sample, dtype)


@pytest.mark.parametrize(("facts", "sample"), rows(is_strided))
def test_results_on_views_are_those_of_the_reference(facts: Facts, sample: Sample) -> None:
    c.check_layouts(facts, sample)


@pytest.mark.parametrize("facts", [row for row in ONE_OF_EACH if row.values[0].dtypes])
def test_dtypes_are_those_that_the_op_takes(facts: Facts) -> None:
    c.check_dtypes(facts, facts.samples[0])


# ---- gradients


@pytest.mark.parametrize(("facts", "sample"), rows(slopes.has_slopes))
def test_first_and_second_gradients_are_those_of_differences(facts: Facts, sample: Sample) -> None:
    slopes.check_slopes(facts, sample)


@pytest.mark.parametrize(("facts", "sample", "dtype"), rows_in(NARROW, slopes.has_slopes))
def test_gradients_in_narrow_dtypes_are_near_those_in_float64(facts: Facts, sample: Sample, dtype: t.DType) -> None:
    slopes.check_narrow_slopes(facts, sample, dtype)


@pytest.mark.parametrize(("facts", "sample"), rows())
def test_operands_without_a_gradient_get_none(facts: Facts, sample: Sample) -> None:
    slopes.check_undefined(facts, sample)


@pytest.mark.parametrize(("facts", "sample"), rows(slopes.is_reusable))
def test_a_value_may_be_several_operands(facts: Facts, sample: Sample) -> None:
    slopes.check_reuse(facts, sample)


# ---- bits


@pytest.mark.parametrize(("facts", "sample"), rows())
def test_every_run_has_the_same_bits(facts: Facts, sample: Sample) -> None:
    c.check_repeats(facts, sample)


@pytest.mark.parametrize(("facts", "sample"), rows())
def test_passes_change_no_more_than_they_may(facts: Facts, sample: Sample) -> None:
    for step in PASSES:
        c.check_pass(step, facts, sample)


@pytest.fixture(scope="module")
def remote() -> Iterator[tg.Session]:
    """A session on a server of its own, over gRPC."""
    server = Server()
    with tg.connect(server.address, new=True) as session:
        yield session
    assert server.stop() == 0


def as_a_client(session: tg.Session, facts: Facts, sample: Sample) -> list[Array]:
    """The results and first gradients, as the client gets them in this session, which is the current one."""
    assert tg.asarray(0.0).session is session
    xs: list[Any] = [tg.asarray(a) for a in sample.arrays]
    ys = sample.results(*xs) if sample.through is not None else (xs or [tg.asarray(0.0)])[0].bind(sample.op, xs)
    return [y.numpy() for y in c.with_gradients(facts, sample, xs, ys)]


@pytest.mark.parametrize(("facts", "sample"), rows())
def test_a_remote_run_has_the_bits_of_a_local_one(remote: tg.Session, facts: Facts, sample: Sample) -> None:
    far = as_a_client(remote, facts, sample)
    with tg.connect(backend="numpy", new=True) as local:
        near = as_a_client(local, facts, sample)

    assert len(far) == len(near) and all(map(same_bits, far, near))


@pytest.mark.parametrize(
    "name", sorted(n for n, cls in registry().items() if hasattr(cls, "in_primitives") and n in FACTS)
)
def test_a_joint_kernel_agrees_with_its_reference_form(name: str) -> None:
    for sample in FACTS[name].samples:
        joint = call(sample.results, *sample.arrays)
        plain = call(sample.op.in_primitives, *sample.arrays)  # type: ignore[attr-defined]

        for a, b in zip(joint, plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


# ---- costs, attributes, refusals


@pytest.mark.parametrize(("facts", "sample"), rows())
def test_cost_follows_the_formula(facts: Facts, sample: Sample) -> None:
    c.check_cost(facts, sample)


@pytest.mark.parametrize(("facts", "sample"), rows())
def test_attributes_survive_the_wire(facts: Facts, sample: Sample) -> None:
    c.check_wire(facts, sample)


VARIADIC = {"attention", "attention_gradient", "barrier", "concat"}


@pytest.mark.parametrize("facts", [row for row in ONE_OF_EACH if row.values[0].name not in VARIADIC])
def test_another_number_of_operands_is_refused(facts: Facts) -> None:
    types = tuple(map(c.type_of, facts.samples[0].arrays))

    for wrong in ((*types, t.Type((), t.float64)), *([types[:-1]] if types else [])):
        with pytest.raises(GraphError):
            c.result_types(facts.samples[0].op, wrong, ())


REFUSALS = [
    pytest.param(refusal, id=f"{name}-{i}", marks=(pytest.mark.slow,) if i else ())
    for name, facts in FACTS.items()
    for i, refusal in enumerate(facts.refusals)
]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_operands_that_do_not_fit_are_refused_with_a_sentence(refusal: Refusal) -> None:
    with pytest.raises(refusal.error, match=refusal.message) as caught:
        c.refused(refusal)

    text = str(caught.value)
    assert "\n" not in text and len(text) < 300
    assert getattr(caught.value, "reason", None) != "INTERNAL"
