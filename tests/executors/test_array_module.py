"""The array module: complete, and decided where NumPy is not."""

from __future__ import annotations

import inspect
import math
import sys
from typing import Any

import numpy as np
import pytest
import scipy.special
from telegrad.errors import IndexRange
from telegrad.ir import types as t
from telegrad.ir.xp import ArrayModule, ScalarModule
from telegrad.wire.arrays import numpy_dtype
from telegrad_server.executors import array_module, philox, special
from telegrad_server.executors.array_module import LibraryModule, NumpyModule

XP = NumpyModule()
PROTOCOL = sorted(name for cls in (ArrayModule, ScalarModule) for name in vars(cls) if not name.startswith("_"))


@pytest.mark.parametrize("name", PROTOCOL)
def test_the_module_has_every_name_of_the_protocol(name: str) -> None:
    assert callable(getattr(XP, name))
    method = getattr(LibraryModule, name, None)
    if method is not None:  # a function of our own, not one of the library
        wanted = inspect.signature(vars(ArrayModule).get(name) or vars(ScalarModule)[name]).parameters
        assert list(inspect.signature(method).parameters)[: len(wanted)] == list(wanted)


@pytest.mark.parametrize("dtype", [t.float16, t.bfloat16, t.float32, t.float64], ids=str)
@pytest.mark.parametrize("name", ["erf", "erfinv", "lgamma", "digamma", "sqrt", "exp", "floor", "round", "sign"])
def test_functions_keep_the_dtype(name: str, dtype: t.DType) -> None:
    x = np.array([0.25, 0.5], numpy_dtype(dtype))

    found = getattr(XP, name)(x)

    assert found.dtype == x.dtype
    assert found.shape == x.shape


@pytest.mark.parametrize("dtype", [t.float16, t.bfloat16], ids=str)
def test_16_bit_floats_are_combined_in_float32(dtype: t.DType) -> None:
    x = XP.full((3, 4096), 1, dtype)

    assert XP.sum(x, axis=(1,)).tolist() == [4096] * 3
    assert XP.matmul(x, XP.transpose(x, (1, 0)))[0, 0] == 4096
    assert XP.scatter_add(x[0], np.zeros(4096, np.int64), 1)[0] == 4096
    assert XP.cumsum(x, axis=1)[0, -1] == 4096
    assert XP.sum(x, axis=(1,)).dtype == x.dtype


def test_integers_keep_their_dtype_and_wrap() -> None:
    x = np.array([100, 100], np.int8)

    assert XP.sum(x, axis=(0,)).dtype == np.int8
    assert XP.sum(x, axis=(0,)) == -56
    assert XP.floor(x) is x


def test_sorting_is_stable_in_both_directions_and_puts_nan_last() -> None:
    for dtype in (t.float32, t.bfloat16):
        x = np.array([1, math.nan, 3, 3, -math.inf, 0], numpy_dtype(dtype))
        assert XP.argsort(x, axis=0).tolist() == [4, 5, 0, 2, 3, 1]
        assert XP.argsort(x, axis=0, descending=True).tolist() == [2, 3, 0, 5, 4, 1]
    small = np.array([-128, 127, -128, 0], np.int8)
    assert XP.argsort(small, axis=0, descending=True).tolist() == [1, 3, 0, 2]
    assert XP.argsort(np.array([0, 255, 0], np.uint8), axis=0, descending=True).tolist() == [1, 0, 2]
    assert XP.argsort(np.array([False, True]), axis=0, descending=True).tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8, np.uint64])
def test_an_index_is_checked_in_every_integer_dtype(dtype: Any) -> None:
    x = np.arange(3.0)
    limit = np.iinfo(dtype).max

    assert XP.take(x, np.array([2, 0], dtype)).tolist() == [2, 0]
    for call in (
        lambda i: XP.take(x, i),
        lambda i: XP.take_along_axis(x, i, 0),
        lambda i: XP.scatter_add(np.ones(1), i, 3),
        lambda i: XP.scatter_set(x, i, np.ones(1)),
        lambda i: XP.add_along(np.ones(1), i, 0, 3),
    ):
        with pytest.raises(IndexRange) as caught:
            call(np.array([limit], dtype))
        assert caught.value.details == {"index": limit, "size": 3}


def test_negative_indices_count_from_the_end_once() -> None:
    x = np.arange(3.0)

    assert XP.take(x, np.array([-1, -3])).tolist() == [2, 0]
    assert XP.scatter_add(np.array([1.0, 2.0]), np.array([-1, 2]), 3).tolist() == [0, 0, 3]
    with pytest.raises(IndexRange):
        XP.take(x, np.array([-4]))


def test_repeated_indices_take_effect_in_their_order() -> None:
    index = np.array([1, 0, 1, 1])
    big = np.array([1e8, 1.0, -1e8, 1.0], np.float32)

    assert XP.scatter_set(np.zeros(2), index, np.arange(4.0)).tolist() == [1, 3]
    assert XP.scatter_add(big, index, 2).tolist() == [1.0, 1.0]
    assert XP.add_along(big, index, 0, 2).tolist() == [1.0, 1.0]


def test_adding_along_an_axis_that_is_hit_once_gives_no_minus_zero() -> None:
    found = XP.add_along(np.array([[-0.0], [2.0]]), np.array([[1], [0]]), 1, 3)

    assert found.tolist() == [[0, 0, 0], [2, 0, 0]]
    assert not np.signbit(found).any()


def test_scatters_of_rows_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    for lead, rest in [((7,), (3,)), ((2, 3), (2, 2)), ((0,), (3,)), ((), (4,)), ((5,), (0,))]:
        x = rng.normal(size=lead + rest).astype(np.float32)
        index = rng.integers(-4, 4, lead)
        want = np.zeros((4, *rest), np.float32)
        for at in np.ndindex(*lead):
            want[index[at]] += x[at]
        np.testing.assert_array_equal(XP.scatter_add(x, index, 4), want)


def test_a_reshape_is_a_view_where_a_plan_says_so() -> None:
    x = np.arange(12.0).reshape(3, 4)

    assert np.shares_memory(XP.reshape(x, (4, 3)), x)
    assert np.shares_memory(XP.reshape(x.T, (4, 1, 3)), x)
    assert not np.shares_memory(XP.reshape(x[:, :2], (6,)), x)
    assert not np.shares_memory(XP.reshape(x[::2], (2, 2, 2)), x), "strides could say it, but a plan does not ask"


# ---- special functions without SciPy


@pytest.mark.parametrize("name", ["erf", "erfinv", "lgamma", "digamma"])
def test_our_own_special_functions_agree_with_scipy(name: str) -> None:
    wanted = getattr(scipy.special, {"lgamma": "gammaln", "digamma": "psi"}.get(name, name))
    x = np.concatenate([np.linspace(-9.97, 9.97, 1201), [1e-300, -1e-20, 30.0, 171.3, 1e10, 0.0, -0.0, np.inf, np.nan]])
    if name == "erfinv":
        edge = 1 - np.logspace(-16, -1, 100)
        x = np.concatenate([np.linspace(-1, 1, 1201), edge, -edge, [1e-300, -1e-20, 0.0, -0.0, 1.5, np.nan]])

    with np.errstate(all="ignore"):
        found = getattr(special, name)(x)
        want = wanted(x)

    np.testing.assert_allclose(found, want, rtol=2e-14, atol=2e-15)
    if name != "erfinv":  # SciPy's gives 0 for -0
        np.testing.assert_array_equal(np.signbit(found[want == 0]), np.signbit(want[want == 0]))


def test_special_functions_at_their_poles() -> None:
    with np.errstate(all="ignore"):
        assert special.lgamma(np.array([0.0, -1.0, -np.inf])).tolist() == [np.inf] * 3
        assert special.digamma(np.array([0.0, -0.0])).tolist() == [-np.inf, np.inf]
        assert np.isnan(special.digamma(np.array([-1.0, -np.inf]))).all()
        assert special.erfinv(np.array([-1.0, 1.0])).tolist() == [-np.inf, np.inf]


def test_without_scipy_our_own_functions_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.special", None)  # as if it were not installed

    xp = array_module.NumpyModule()

    assert xp.erf(np.array([0.5], np.float32)).dtype == np.float32
    np.testing.assert_allclose(xp.erf(np.array([0.5])), math.erf(0.5))


# ---- random numbers


@pytest.mark.parametrize(
    ("counter", "key", "wanted"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers(
    counter: tuple[int, ...], key: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    """The vectors are kat_vectors of Random123 1.14."""
    assert philox.block(counter, key) == wanted
    arrays = philox.block([np.array([c], np.uint64) for c in counter], [np.array([k], np.uint64) for k in key])
    assert tuple(int(word[0]) for word in arrays) == wanted


@pytest.mark.parametrize("dtype", [t.uint32, t.uint64], ids=str)
def test_random_bits_depend_on_their_place_alone(dtype: t.DType) -> None:
    key = np.array([1, 2, 3, 4], np.uint32)
    whole = XP.random_bits(key, 5, 0, (100,), dtype)

    for offset, n in [(0, 1), (1, 7), (3, 50), (97, 3)]:
        assert XP.random_bits(key, 5, offset, (n,), dtype).tolist() == whole[offset : offset + n].tolist()
    assert XP.random_bits(key, 5, 0, (4, 25), dtype).reshape(-1).tolist() == whole.tolist()
    assert XP.random_bits(key, 5, 0, (0,), dtype).shape == (0,)


def test_the_words_do_not_depend_on_how_many_are_made_at_once() -> None:
    class Small(NumpyModule):
        philox_chunk = 3

    key = np.array([9, 8, 7, 6], np.uint32)

    assert (
        Small().random_bits(key, 0, 5, (101,), t.uint32).tolist()
        == XP.random_bits(key, 0, 5, (101,), t.uint32).tolist()
    )


def test_streams_and_calls_differ() -> None:
    drawn = {
        tuple(XP.random_bits(np.array([1, 0, call, 0], np.uint32), stream, 0, (4,), t.uint32).tolist())
        for call in range(3)
        for stream in range(3)
    }

    assert len(drawn) == 9


@pytest.mark.parametrize("dtype", [t.float32, t.float64], ids=str)
def test_uniform_and_normal_numbers_have_their_moments(dtype: t.DType) -> None:
    key = np.array([1, 2, 3, 4], np.uint32)
    u = XP.random_uniform(key, 0, 0, (100_000,), dtype)
    z = XP.random_normal(key, 1, 0, (100_000,), dtype)

    assert u.dtype == z.dtype == numpy_dtype(dtype)
    assert u.min() >= 0
    assert u.max() < 1
    np.testing.assert_allclose([u.mean(), u.var()], [1 / 2, 1 / 12], atol=3e-3)
    np.testing.assert_allclose([z.mean(), z.var(), (z**3).mean(), (z**4).mean()], [0, 1, 0, 3], atol=5e-2)
    assert np.isfinite(z).all()
