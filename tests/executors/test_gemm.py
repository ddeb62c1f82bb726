"""The library's products of matrices: right to rounding in any layout, and the same bits however they are cut."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

Array = Any


STRIDES = ("a_row", "a_inner", "b_inner", "b_column", "c_row")


class Product(ctypes.Structure):
    """struct tg_gemm."""

    _fields_ = (
        *[(name, ctypes.c_void_p) for name in ("a", "b", "c")],
        *[(name, ctypes.c_long) for name in ("m", "n", "k", *STRIDES, "accumulate")],
    )


class Matmul(ctypes.Structure):
    """struct tg_matmul."""

    _fields_ = (
        ("one", Product),
        ("batch", ctypes.c_long),
        *[(name, ctypes.c_void_p) for name in ("a_offset", "b_offset", "c_offset")],
    )


@pytest.fixture(scope="module")
def library(loaded: ctypes.CDLL) -> ctypes.CDLL:
    loaded.tg_matmul.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_long]
    loaded.tg_matmul.restype = None
    loaded.tg_matmul_units.argtypes, loaded.tg_matmul_units.restype = [ctypes.c_long] * 3, ctypes.c_long
    return loaded


def matrix(rows: int, columns: int, seed: int, *, is_transposed: bool = False, apart: int = 0) -> Array:
    """Normal numbers; ``apart`` more columns lie between the rows."""
    shape = (columns, rows) if is_transposed else (rows, columns)
    wide = np.random.default_rng(seed).standard_normal((shape[0], shape[1] + apart)).astype(np.float32)[:, : shape[1]]
    return wide.T if is_transposed else wide


def product(
    library: ctypes.CDLL, a: Array, b: Array, out: Array, *, threads: int = 1, accumulate: bool = False
) -> Array:
    """out (+)= a @ b for [batch, m, k] and [batch, k, n], cut as a pool of ``threads`` cuts it."""
    batch, m, k = a.shape
    n = b.shape[2]
    offsets = [(ctypes.c_long * batch)(*[i * x.strides[0] // 4 for i in range(batch)]) for x in (a, b, out)]
    steps = [stride // 4 for x in (a, b) for stride in x.strides[1:]]
    one = Product(a.ctypes.data, b.ctypes.data, out.ctypes.data, m, n, k, *steps, out.strides[1] // 4, accumulate)
    given = Matmul(one, batch, *[ctypes.addressof(x) for x in offsets])
    units = library.tg_matmul_units(m, n, batch)
    for t in range(threads):
        library.tg_matmul(ctypes.addressof(given), units * t // threads, units * (t + 1) // threads)
    return out


def one_product(library: ctypes.CDLL, a: Array, b: Array, **how: Any) -> Array:
    out = np.full((1, a.shape[0], b.shape[1]), np.nan, np.float32)
    return product(library, a[None], b[None], out, **how)[0]


SHAPES = [
    (1, 1, 1), (6, 16, 8), (7, 17, 9), (5, 15, 257), (1, 33, 300), (48, 128, 64), (73, 129, 31), (25, 1, 70),
    (3, 600, 40), (30, 1100, 20), (128, 10, 256), (145, 47, 513), (24, 128, 0), (130, 1059, 1003), (30, 37, 30_000),
]  # fmt: skip


@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
@pytest.mark.parametrize("layout", ["NN", "TN", "NT", "TT"])
def test_products_are_those_of_float64_to_rounding(library: ctypes.CDLL, m: int, n: int, k: int, layout: str) -> None:
    a = matrix(m, k, 1, is_transposed=layout[0] == "T", apart=3)
    b = matrix(k, n, 2, is_transposed=layout[1] == "T", apart=5)
    exact = a.astype(np.float64) @ b.astype(np.float64)

    found = one_product(library, a, b)

    bound = (abs(a).astype(np.float64) @ abs(b).astype(np.float64)) * 2.0**-24 * (min(k, 256) + 3)
    assert (abs(found - exact) <= bound).all()


def test_a_product_adds_to_what_is_there(library: ctypes.CDLL) -> None:
    a, b = matrix(31, 300, 1), matrix(300, 37, 2)
    start = matrix(31, 37, 3)
    out = start.copy()[None]

    product(library, a[None], b[None], out, accumulate=True)

    np.testing.assert_allclose(out[0], start + a.astype(np.float64) @ b, rtol=0, atol=1e-4)


@pytest.mark.parametrize("layout", ["NN", "TN", "NT"])
def test_bits_depend_neither_on_threads_nor_on_the_number_of_rows(library: ctypes.CDLL, layout: str) -> None:
    a = matrix(151, 301, 1, is_transposed=layout[0] == "T")
    b = matrix(301, 643, 2, is_transposed=layout[1] == "T")

    whole = one_product(library, a, b)

    for threads in (2, 3, 7):
        np.testing.assert_array_equal(one_product(library, a, b, threads=threads), whole)
    for first, last in ((0, 1), (1, 30), (30, 151)):
        np.testing.assert_array_equal(one_product(library, a[first:last], b), whole[first:last])
    for first, last in ((0, 5), (5, 120), (120, 643)):
        np.testing.assert_array_equal(one_product(library, a, b[:, first:last]), whole[:, first:last])


@pytest.mark.parametrize("layout", ["NN", "NT", "TN"])
def test_bits_of_a_large_product_are_those_of_its_parts(library: ctypes.CDLL, layout: str) -> None:
    a = matrix(103, 1030, 1, is_transposed=layout[0] == "T")
    b = matrix(1030, 1100, 2, is_transposed=layout[1] == "T")

    whole = one_product(library, a, b, threads=2)

    for first, last in ((0, 500), (500, 1100)):
        np.testing.assert_array_equal(one_product(library, a, b[:, first:last]), whole[:, first:last])
    np.testing.assert_array_equal(one_product(library, a[:24], b), whole[:24])


def test_each_product_of_a_batch_is_that_of_its_own_operands(library: ctypes.CDLL) -> None:
    a, b = np.stack([matrix(50, 20, i) for i in range(5)]), np.stack([matrix(20, 130, 9 + i) for i in range(5)])
    wanted = np.stack([one_product(library, x, y) for x, y in zip(a, b, strict=True)])

    for threads in (1, 2, 3):
        out = np.full((5, 50, 130), np.nan, np.float32)
        np.testing.assert_array_equal(product(library, a, b, out, threads=threads), wanted)


def test_nothing_beside_the_result_is_written(library: ctypes.CDLL) -> None:
    a, b = matrix(13, 40, 1), matrix(40, 21, 2)
    wide = np.full((1, 15, 30), 7, np.float32)

    product(library, a[None], b[None], wide[:, 1:14, 4:25])

    around = wide[0].copy()
    around[1:14, 4:25] = 7
    assert (around == 7).all()


def test_nan_and_infinity_reach_their_rows_and_columns_only(library: ctypes.CDLL) -> None:
    a, b = matrix(20, 40, 1).copy(), matrix(40, 21, 2).copy()
    a[3, 7], b[5, 20] = np.nan, np.inf

    found = one_product(library, a, b)

    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(a @ b))


@pytest.mark.parametrize(("m", "n"), [(256, 784), (1000, 1000), (128, 256), (2048, 784)])
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_have_about_equally_much_to_do(library: ctypes.CDLL, m: int, n: int, threads: int) -> None:
    a, b = matrix(m, 8, 1), matrix(8, n, 2)
    units, done = library.tg_matmul_units(m, n, 1), []
    for t in range(threads):
        out = np.full((m, n), np.nan, np.float32)
        one = Product(a.ctypes.data, b.ctypes.data, out.ctypes.data, m, n, 8, 8, 1, n, 1, n, False)
        given = Matmul(one, 1, None, None, None)
        library.tg_matmul(ctypes.addressof(given), units * t // threads, units * (t + 1) // threads)
        done.append(np.count_nonzero(~np.isnan(out)))

    assert sum(done) == m * n
    assert max(done) < 1.06 * m * n / threads
