"""Linear algebra: what the table of ops and the comparison with PyTorch do not say."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import telegrad as tg
from telegrad import linalg, ops
from telegrad.autodiff import gradient
from telegrad.errors import AxisError, DTypeError, ExecutionError, GraphError, ShapeError
from telegrad.ir import Value, new_input
from telegrad.ir import types as t
from telegrad.ir.types import Type

from tests.ops.checks import XP, Array, call, check_gradients, evaluate, generator, inputs_for
from tests.ops.operands import definite, regular

RNG = np.random.default_rng(7)
F = t.float32


def ty(*sizes: int, dtype: t.DType = F) -> Value:
    return new_input(Type(sizes, dtype))


def gradients(f: Callable[..., Value], *arrays: Array) -> list[Array]:
    """The gradients of f's sum."""
    xs = inputs_for(arrays)
    y = f(*xs)
    return evaluate(gradient([y], [ops.ones_like(y)], xs), dict(zip(xs, arrays, strict=True)))


# ---- what is read, what comes back


@pytest.mark.parametrize("read", [linalg.cholesky, linalg.eigvalsh, lambda x: linalg.eigh(x)[0]])
def test_only_the_lower_triangle_is_read(read: Callable[[Value], Value]) -> None:
    x = definite(3, 3)(RNG)
    dirty = np.tril(x) + np.triu(np.full((3, 3), np.nan), 1)
    clean = np.tril(x) + np.tril(x, -1).T

    np.testing.assert_array_equal(call(read, dirty), call(read, clean))


def test_cholesky_reads_the_upper_triangle_for_the_upper_factor() -> None:
    x = definite(2, 3, 3)(RNG)
    clean = np.tril(x) + np.swapaxes(np.tril(x, -1), -1, -2)

    u = call(lambda x: linalg.cholesky(x, upper=True), np.triu(clean))

    np.testing.assert_allclose(np.swapaxes(u, -1, -2) @ u, clean)
    assert not np.tril(u, -1).any()


@pytest.mark.parametrize(
    "f",
    [
        linalg.cholesky,
        lambda x: linalg.cholesky(x, upper=True),
        linalg.eigvalsh,
        lambda x: linalg.eigh(x)[0],
        lambda x: ops.abs(linalg.eigh(x)[1]),
    ],
)
def test_gradients_of_symmetric_matrices_are_right_along_symmetric_directions(f: Callable[[Value], Value]) -> None:
    """x is given by free parameters through p + p^T, for which finite differences are right, to second order."""
    p = definite(3, 3)(generator("symmetric directions")) + np.diag([0.0, 1.0, 3.0])

    check_gradients(lambda p: f((p + ops.matrix_transpose(p)) * 0.5), [p], name="symmetric", tolerance=1e-5)

    (found,) = gradients(lambda x: f(x) * np.pi, p)
    np.testing.assert_allclose(found, found.T)


def test_results_have_the_names_of_the_standard() -> None:
    x = ty(2, 4, 3)
    square = ty(2, 3, 3)

    assert linalg.qr(x)._fields == ("Q", "R")
    assert linalg.svd(x)._fields == ("U", "S", "Vh")
    assert linalg.eigh(square)._fields == ("eigenvalues", "eigenvectors")
    assert linalg.slogdet(square)._fields == ("sign", "logabsdet")
    assert [y.shape for y in linalg.svd(x)] == [(2, 4, 4), (2, 3), (2, 3, 3)]
    assert [y.shape for y in linalg.svd(x, full_matrices=False)] == [(2, 4, 3), (2, 3), (2, 3, 3)]
    assert [y.shape for y in linalg.qr(x, mode="complete")] == [(2, 4, 4), (2, 4, 3)]


@pytest.mark.parametrize("shape", [(4, 2), (2, 4), (2, 3, 2), (0, 3), (3, 0)])
def test_full_vectors_make_up_the_matrix_and_are_orthonormal(shape: tuple[int, ...]) -> None:
    x = RNG.normal(size=shape)
    m, n = shape[-2:]
    k = min(m, n)

    u, s, vh = call(lambda x: linalg.svd(x), x)
    q, r = call(lambda x: linalg.qr(x, mode="complete"), x)

    np.testing.assert_allclose((u[..., :k] * s[..., None, :]) @ vh[..., :k, :], x, atol=1e-12)
    np.testing.assert_allclose(u @ np.swapaxes(u, -1, -2), np.broadcast_to(np.eye(m), u.shape), atol=1e-12)
    np.testing.assert_allclose(vh @ np.swapaxes(vh, -1, -2), np.broadcast_to(np.eye(n), vh.shape), atol=1e-12)
    np.testing.assert_allclose(q @ r, x, atol=1e-12)


def test_the_singular_values_of_full_matrices_have_a_gradient_to_second_order() -> None:
    x = regular(4, 2)(RNG)

    check_gradients(lambda x: linalg.svd(x).S, [x], name="full", tolerance=1e-5)


def test_vectors_that_the_matrix_does_not_determine_have_no_gradient() -> None:
    x = ty(4, 2)
    for y in (linalg.svd(x).U, linalg.svd(ty(2, 4)).Vh, linalg.qr(x, mode="complete").Q):
        with pytest.raises(GraphError, match=r"no(thing)? gradient") as caught:
            gradient([y], [ops.ones_like(y)], [y.node.inputs[0]])
        assert caught.value.reason == "GRADIENT_MISSING"


def test_equal_eigenvalues_do_what_the_formula_says() -> None:
    x = np.eye(3) * 2.0

    (of_values,) = gradients(linalg.eigvalsh, x)
    (of_vectors,) = gradients(lambda x: linalg.eigh(x)[1] * 3.0, x)
    (of_singular_values,) = gradients(linalg.svdvals, x)

    np.testing.assert_allclose(of_values, np.eye(3))
    np.testing.assert_allclose(of_singular_values, np.eye(3), atol=1e-15)
    assert not np.isfinite(of_vectors).all()


def test_det_of_singular_matrices_differentiates_twice() -> None:
    for x in (np.zeros((2, 2)), np.diag([1.0, 0.0, 0.0]), np.ones((3, 3)), np.eye(3)):
        check_gradients(linalg.det, [x], name="singular")


def test_logdet_does_not_overflow_where_det_does() -> None:
    x = np.eye(400) * 10.0

    assert call(linalg.logdet, x) == pytest.approx(400 * math.log(10.0))
    assert call(linalg.det, np.eye(2) * -3.0) == pytest.approx(9.0)
    assert math.isnan(call(linalg.logdet, np.diag([1.0, -1.0])))
    assert call(linalg.logdet, np.zeros((2, 2))) == -math.inf


def test_pinv_of_a_matrix_without_full_rank() -> None:
    x = np.array([[1.0, 2.0], [2.0, 4.0], [0.0, 0.0]])

    np.testing.assert_allclose(call(linalg.pinv, x), np.linalg.pinv(x), atol=1e-15)
    np.testing.assert_array_equal(call(linalg.pinv, np.zeros((2, 3))), np.zeros((3, 2)))


def test_lstsq_is_numpys() -> None:
    for shape in ((5, 3), (3, 5), (4, 4)):
        x, y = RNG.normal(size=shape), RNG.normal(size=(shape[0], 2))
        np.testing.assert_allclose(call(linalg.lstsq, x, y), np.linalg.lstsq(x, y)[0], rtol=1e-9)
        np.testing.assert_allclose(call(linalg.lstsq, x, y[:, 0]), np.linalg.lstsq(x, y[:, 0])[0], rtol=1e-9)
        check_gradients(linalg.lstsq, [x, y], name="lstsq", tolerance=1e-5)


def test_matrix_rank_is_numpys() -> None:
    for x in (
        np.ones((3, 4)),
        np.eye(3),
        np.zeros((2, 2)),
        np.diag([1.0, 1e-14, 1e-17]),
        np.ones((2, 0)),
        np.ones((2, 3, 2)),
    ):
        found = call(linalg.matrix_rank, x)
        np.testing.assert_array_equal(found, np.linalg.matrix_rank(x) if x.size else 0)
        assert found.dtype == np.int64
    assert call(lambda x: linalg.matrix_rank(x, rtol=0.5), np.diag([1.0, 0.4])) == 1


def test_the_norm_of_zero_has_gradient_zero_to_second_order() -> None:
    x = np.zeros((2, 3))

    for f in (linalg.vector_norm, linalg.matrix_norm, lambda x: linalg.vector_norm(x, ord=3, axis=1)):
        (first,) = gradients(f, x)
        xs = inputs_for([x])
        (g,) = gradient([ops.sum(f(*xs))], [xs[0].literal(1, t.float64)], xs)
        (second,) = evaluate(gradient([g], [ops.ones_like(g)], xs), {xs[0]: x})
        assert not first.any() and not second.any()


@pytest.mark.parametrize("ord", [0, 1, 2, 3.5, math.inf, -math.inf, -2])
def test_norms_of_16_bit_floats_are_computed_in_float32(ord: float) -> None:
    x = np.array([300.0, 400.0], np.float16)  # the squares do not fit float16

    found = call(lambda x: linalg.vector_norm(x, ord=ord), x)

    assert found.dtype == np.float16
    np.testing.assert_allclose(found, np.linalg.norm(x.astype(float), ord), rtol=1e-3)


def test_nan_goes_through_norms() -> None:
    for ord in (1, 2, 3, math.inf):
        assert math.isnan(call(lambda x, p=ord: linalg.vector_norm(x, ord=p), np.array([1.0, np.nan])))


def test_norms_without_elements() -> None:
    for ord in (0, 1, 2, 3, math.inf):
        np.testing.assert_array_equal(call(lambda x, p=ord: linalg.vector_norm(x, ord=p, axis=1), np.ones((2, 0))), 0)
    for ord in ("fro", "nuc", 1, 2, math.inf):
        assert call(lambda x, p=ord: linalg.matrix_norm(x, ord=p), np.ones((0, 0))) == 0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_matrix_exp_is_scipys_at_every_scale(scale: float, dtype: type[np.floating[Any]]) -> None:
    x = (RNG.normal(size=(3, 4, 4)) * scale / 4 - 2 * scale * np.eye(4)).astype(dtype)

    found = call(linalg.matrix_exp, x)

    wanted = scipy.linalg.expm(x.astype(np.float64))
    size = np.abs(wanted).max(axis=(-2, -1), keepdims=True)
    assert found.dtype == dtype
    np.testing.assert_allclose(found / size, wanted / size, atol=2000 * scale * np.finfo(dtype).eps + 1e-14)


def test_matrix_exp_of_what_is_not_finite_is_nan() -> None:
    found = call(linalg.matrix_exp, np.stack([np.eye(2), np.full((2, 2), np.inf), np.full((2, 2), np.nan)]))

    assert np.isfinite(found[0]).all() and np.isnan(found[1:]).all()


def test_solve_takes_vectors_as_the_standard_says() -> None:
    x, y = regular(2, 3, 3)(RNG), RNG.normal(size=3)

    for f in (linalg.solve, lambda x, y: linalg.solve_triangular(x, y, upper=True)):
        found = call(f, x, y)
        triangle = x if f is linalg.solve else np.triu(x)
        np.testing.assert_allclose(triangle @ found[..., None], np.broadcast_to(y[:, None], (2, 3, 1)))
    # a matrix, although its shape is that of a stack of vectors
    np.testing.assert_allclose(call(linalg.solve, x[0], np.eye(3)), np.linalg.inv(x[0]))
    row = call(lambda x, y: linalg.solve_triangular(x, y, upper=True, left=False), x[0], y)
    np.testing.assert_allclose(row @ np.triu(x[0]), y)


def test_numbers_and_other_dtypes_are_promoted_together() -> None:
    found = linalg.solve(ty(2, 2), ty(2, dtype=t.float64))

    assert found.type == Type((2,), t.float64)


ZERO_SIZES: list[tuple[Callable[..., Any], tuple[int, ...]]] = [
    (f, shape)
    for shape in ((0, 0), (0, 2, 2), (2, 0, 0))
    for f in (
        linalg.cholesky, linalg.inv, linalg.det, linalg.logdet, linalg.slogdet, linalg.eigh, linalg.eigvalsh,
        linalg.svd, linalg.svdvals, linalg.qr, linalg.pinv, linalg.matrix_exp, linalg.matrix_norm, linalg.trace,
        linalg.diagonal,
        lambda x: linalg.matrix_power(x, 3), lambda x: linalg.matrix_power(x, -1), lambda x: linalg.matrix_power(x, 0),
        lambda x: linalg.solve(x, x), lambda x: linalg.cholesky_solve(x, x), lambda x: linalg.lstsq(x, x),
        lambda x: linalg.solve_triangular(x, x, upper=True),
    )
] + [
    (f, shape)
    for shape in ((0, 3), (3, 0), (2, 3, 0), (0, 2, 3))
    for f in (
        lambda x: linalg.svd(x, full_matrices=False), linalg.svdvals, linalg.qr, linalg.pinv, linalg.matrix_norm,
        lambda x: linalg.lstsq(x, x), linalg.trace, lambda x: linalg.vector_norm(x, axis=-1),
        lambda x: ops.einsum("...ij,...kj->...ik", x, x), lambda x: ops.kron(x, x),
    )
]  # fmt: skip


@pytest.mark.parametrize(("f", "shape"), ZERO_SIZES)
def test_zero_sizes_go_forward_and_backward(f: Callable[..., Any], shape: tuple[int, ...]) -> None:
    x = np.ones(shape)

    check_gradients(f, [x], name="zero sizes")


# ---- einsum


def test_einsum_multiplies_the_pair_with_the_smallest_result_first() -> None:
    a, b, c = ty(1000, 2), ty(2, 1000), ty(1000, 1)

    y = ops.einsum("ij,jk,kl->il", a, b, c)

    nodes = [y.node]
    sizes: list[int] = []
    while nodes:
        node = nodes.pop()
        sizes += [v.size for v in node.inputs]
        nodes += [v.node for v in node.inputs]
    assert max(sizes) == 2000


@pytest.mark.parametrize("seed", range(30))
def test_einsum_is_numpys_on_random_subscripts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = dict(zip("abcde", rng.integers(1, 4, 5), strict=True))
    groups = ["".join(rng.choice(list("abcde"), rng.integers(0, 4))) for _ in range(rng.integers(1, 5))]
    letters = sorted(set("".join(groups)))
    output = "".join(rng.permutation(letters)[: rng.integers(0, len(letters) + 1)])
    arrays = [rng.normal(size=[sizes[letter] for letter in group]) for group in groups]
    text = ",".join(groups)

    for subscripts in (text, f"{text}->{output}"):
        found = call(lambda *xs, s=subscripts: ops.einsum(s, *xs), *arrays)
        np.testing.assert_allclose(found, np.einsum(subscripts, *arrays), rtol=1e-10, atol=1e-12)
    check_gradients(lambda *xs: ops.einsum(f"{text}->{output}", *xs), arrays, name=text)


# ---- refusals

X, S = ty(2, 3), ty(3, 3)
I = ty(3, 3, dtype=t.int64)
H = ty(3, 3, dtype=t.float16)

REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    *[
        (lambda f=f, x=x: f(x), DTypeError, "takes float32 or float64; use astype")
        for f in (
            linalg.cholesky, linalg.inv, linalg.det, linalg.slogdet, linalg.logdet, linalg.eigh, linalg.eigvalsh,
            linalg.svd, linalg.svdvals, linalg.qr, linalg.pinv, linalg.matrix_exp, linalg.cond, linalg.matrix_rank,
            lambda x: linalg.solve(x, x), lambda x: linalg.solve_triangular(x, x, upper=False),
            lambda x: linalg.cholesky_solve(x, x), lambda x: linalg.lstsq(x, x), lambda x: linalg.matrix_power(x, -1),
        )
        for x in (I, H, ty(3, 3, dtype=t.bfloat16))
    ],
    *[
        (lambda f=f: f(X), ShapeError, "takes square matrices")
        for f in (
            linalg.cholesky, linalg.inv, linalg.det, linalg.slogdet, linalg.eigh, linalg.eigvalsh, linalg.matrix_exp,
            lambda x: linalg.solve(x, x), lambda x: linalg.matrix_power(x, 2),
        )
    ],
    *[
        (lambda f=f: f(ty(3)), ShapeError, "takes a matrix or a stack of them")
        for f in (
            linalg.cholesky, lambda x: linalg.cholesky(x, upper=True), linalg.inv, linalg.svd, linalg.qr, linalg.pinv,
            linalg.matrix_norm, linalg.matrix_rank, linalg.trace, lambda x: linalg.solve(x, x),
        )
    ],
    (lambda: linalg.solve(S, ty(2, 1)), ShapeError, "3 rows and a right-hand side with 2"),
    (lambda: linalg.solve(S, ty()), ShapeError, "must be a vector or a matrix"),
    (lambda: linalg.solve(ty(2, 3, 3), ty(4, 3, 1)), ShapeError, r"axis -1 has sizes \(2, 4\)"),
    (lambda: linalg.lstsq(X, S), ShapeError, "as many rows"),
    (lambda: linalg.qr(X, mode="r"), GraphError, "must be 'reduced' or 'complete'"),
    (lambda: linalg.matrix_power(S, 1.5), TypeError, "integer"),
    (lambda: linalg.matrix_power(ty(2, 2, dtype=t.bool_), 2), DTypeError, "takes numbers"),
    (lambda: linalg.matrix_power(S, 2**40), GraphError, "beyond"),
    (lambda: linalg.matrix_norm(S, ord=3), GraphError, "ord must be 'fro'"),
    (lambda: linalg.matrix_norm(S, ord="two"), GraphError, "ord must be 'fro'"),
    (lambda: linalg.matrix_norm(ty(2, 0), ord=-1), ShapeError, "no elements to find the smallest of"),
    (lambda: linalg.matrix_norm(I), DTypeError, "takes a floating-point dtype"),
    (lambda: linalg.vector_norm(I), DTypeError, "takes a floating-point dtype"),
    (lambda: linalg.vector_norm(S, ord="fro"), GraphError, "ord must be a number"),
    (lambda: linalg.vector_norm(S, ord=math.nan), GraphError, "ord must be a number"),
    (lambda: linalg.vector_norm(S, axis=2), AxisError, "vector_norm: axis 2"),
    (lambda: linalg.vector_norm(ty(0), ord=-math.inf), ShapeError, "no elements"),
    (lambda: linalg.cond(ty(0, 0)), ShapeError, "without elements"),
    (lambda: linalg.pinv(S, rtol=math.nan), GraphError, "rtol must be a finite number not below 0"),
    (lambda: ops.diag(ty(2, 2, 2)), ShapeError, "takes a vector or a matrix"),
    (lambda: ops.diag_embed(ty()), ShapeError, "takes a vector"),
    (lambda: ops.cross(X, ty(2)), ShapeError, "must have size 3"),
    (lambda: ops.cross(X, ty(3), axis=1), ShapeError, "must be negative"),
    (lambda: ops.cross(X, X, axis=2), AxisError, "cross: axis 2"),
    (lambda: ops.einsum("ij,jk", X), GraphError, "2 groups of letters for 1 operands"),
    (lambda: ops.einsum("ij"), GraphError, "at least one operand"),
    (lambda: ops.einsum(X, X), GraphError, "must be a string"),
    (lambda: ops.einsum("i", X), ShapeError, r"'i' names 1 axes of a float32\[2,3\]"),
    (lambda: ops.einsum("ijk", X), ShapeError, "names 3 axes"),
    (lambda: ops.einsum("...ijk", X), ShapeError, "names 3 axes"),
    (lambda: ops.einsum("ij,ij", X, S), ShapeError, "axes 'i' have sizes 2 and 3"),
    (lambda: ops.einsum("...j,...j", X, S), ShapeError, r"axes '\.\.\.' have sizes 2 and 3"),
    (lambda: ops.einsum("ij->ik", X), GraphError, "the output has 'k', which no operand has"),
    (lambda: ops.einsum("ij->ii", X), GraphError, "stands twice in the output"),
    (lambda: ops.einsum("i1", X), GraphError, "'1' is neither a letter"),
    (lambda: ops.einsum("......", X), GraphError, "neither a letter"),
    (lambda: ops.einsum("ij->i->j", X), GraphError, "neither a letter"),
    (lambda: ops.einsum("ij->ji", ty(2, 3, dtype=t.bool_)), DTypeError, "takes numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("f", "error", "message"), REFUSED)
def test_what_does_not_fit_is_refused_with_a_sentence(
    f: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        f()

    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


# ---- on the service


FAILING: list[tuple[Callable[[Any], Any], Array, str]] = [
    (linalg.inv, np.ones((2, 2)), r"inv\(float64\[2,2\]\): a matrix is singular"),
    (lambda x: linalg.solve(x, x), np.zeros((2, 2)), r"solve\(float64\[2,2\], float64\[2,2\]\): a matrix is singular"),
    (lambda x: linalg.solve_triangular(x, x, upper=True), np.diag([1.0, 0.0]), r"triangular_solve\(.*\): a matrix is"),
    (linalg.cholesky, -np.eye(2), r"cholesky\(float64\[2,2\]\): a matrix is not positive definite"),
    (linalg.svdvals, np.full((2, 2), np.nan), r"svdvals\(float64\[2,2\]\): the iteration did not end; are all"),
    (tg.grad(lambda x: linalg.slogdet(x)[1]), np.ones((2, 2)), r"inv\(float64\[2,2\]\): a matrix is singular"),
]  # fmt: skip


@pytest.mark.parametrize(("f", "x", "message"), FAILING)
def test_a_matrix_without_a_result_fails_the_run_with_a_sentence(
    f: Callable[[Any], Any], x: Array, message: str
) -> None:
    with tg.connect(backend="numpy"):
        with pytest.raises(ExecutionError, match=message):
            f(tg.asarray(x)).numpy()
        assert tg.linalg.det(tg.asarray(np.eye(2))).item() == 1.0, "the session goes on"


def test_named_results_pass_through_functions_and_transforms() -> None:
    with tg.connect(backend="numpy"):
        x = tg.asarray(regular(4, 3)(RNG))
        traced = tg.function(lambda x: tg.linalg.svd(x, full_matrices=False))(x)
        q, pullback = tg.vjp(tg.linalg.qr, x)

        assert isinstance(traced, linalg.SvdResult) and isinstance(q, linalg.QrResult)
        np.testing.assert_allclose(traced.S.numpy(), np.linalg.svdvals(x.numpy()))
        assert pullback(q)[0].shape == (4, 3)


def test_a_step_of_gaussian_likelihood_runs_on_the_service() -> None:
    """Cholesky, triangular solves and einsum, forward and backward, in float32."""
    x = definite(2, 4, 4)(RNG)
    covariance = (np.tril(x) + np.swapaxes(np.tril(x, -1), -1, -2)).astype(np.float32)
    data = RNG.normal(size=(2, 4)).astype(np.float32)

    def loss(c: Any, y: Any) -> Any:
        factor = tg.linalg.cholesky(c)
        z = tg.linalg.solve_triangular(factor, y[..., None], upper=False)
        return tg.einsum("bij,bij->", z, z) + 2 * tg.log(tg.linalg.diagonal(factor)).sum()

    with tg.connect(backend="numpy"):
        value, slope = tg.value_and_grad(loss)(tg.asarray(covariance), tg.asarray(data))
        found, slope = value.item(), slope.numpy()

    inverse = np.linalg.inv(covariance.astype(np.float64))
    solved = np.einsum("bij,bj->bi", inverse, data)
    assert found == pytest.approx(np.einsum("bi,bi->", data, solved) + np.linalg.slogdet(covariance)[1].sum(), rel=1e-5)
    np.testing.assert_allclose(slope, inverse - solved[:, :, None] * solved[:, None, :], rtol=1e-3, atol=1e-4)


# ---- the array module


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("n", [1, 4, 33, 100])
def test_substitution_solves_triangles(dtype: Any, lower: bool, transposed: bool, unit: bool, n: int) -> None:
    x = (RNG.normal(size=(3, 1, n, n)) / n + np.eye(n)).astype(dtype)
    y = RNG.normal(size=(2, n, 3)).astype(dtype)

    found = XP.triangular_solve(x, y, lower=lower, transposed=transposed, unit=unit)

    for i in range(3):
        for j in range(2):
            wanted = scipy.linalg.solve_triangular(
                x[i, 0], y[j], lower=lower, trans=int(transposed), unit_diagonal=unit
            )
            np.testing.assert_allclose(found[i, j], wanted, rtol=1e-4 if dtype is np.float32 else 1e-11, atol=1e-5)
    assert found.dtype == dtype and found.shape == (3, 2, n, 3)


@pytest.mark.parametrize("n", [20, 60])
def test_substitution_is_exact_where_elimination_with_pivots_would_not_be(n: int) -> None:
    x = np.eye(n) - np.tril(np.ones((n, n)), -1)  # the solution grows as 2 ** n

    found = XP.triangular_solve(x, np.eye(n)[:, :1], lower=True, transposed=False, unit=False)

    np.testing.assert_array_equal(found[:, 0], 2.0 ** np.maximum(np.arange(n) - 1, 0))


def test_the_operands_of_a_triangular_system_are_not_written() -> None:
    x, y = regular(3, 3)(RNG), RNG.normal(size=(3, 2))
    before = x.copy(), y.copy()

    XP.triangular_solve(x, y, lower=True, transposed=False, unit=False)

    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])
