"""The methods of tensors against PyTorch's, or NumPy's where the two differ: one expression for both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import AxisError, DTypeError, GraphError, IndexRange, ShapeError, TraceError

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(3)
X = RNG.uniform(0.25, 0.75, (2, 3, 4))
M = RNG.normal(size=(3, 3))
V = RNG.normal(size=3)
I = np.array([[[0, 1, 0, 1], [1, 1, 0, 0]]])
POSITIVE = X + 1.0
BINARY = "add sub mul div remainder maximum minimum atan2 eq ne lt le gt ge pow"

Method = Callable[[Any], Any]

ELEMENTWISE = (
    "abs acos asin asinh atan atanh ceil cos cosh erf exp expm1 floor isfinite isinf isnan log log10 log1p log2 neg"
    " reciprocal relu round rsqrt sigmoid sign sin sinh sqrt square tan tanh trunc"
)

LIKE_TORCH: dict[str, tuple[Method, Any]] = {
    **{name: (lambda x, name=name: getattr(x, name)(), X) for name in ELEMENTWISE.split()},
    **{name: (lambda x, name=name: getattr(x, name)(x.flip(0)), X) for name in BINARY.split()},
    **{
        name: (lambda x, name=name: getattr(x > 0.4, name)(x > 0.6), X)
        for name in ("logical_and", "logical_or", "logical_xor")
    },
    "acosh": (lambda x: x.acosh(), POSITIVE),
    "logical_not": (lambda x: (x > 0.5).logical_not(), X),
    "clamp": (lambda x: x.clamp(0.3, 0.6), X),
    "clamp min": (lambda x: x.clamp(min=0.3), X),
    "clip": (lambda x: x.clip(0.3, 0.6), X),
    "pow number": (lambda x: x.pow(3), X),
    # shapes
    "view": (lambda x: x.view(6, -1), X),
    "view tuple": (lambda x: x.view((6, 4)), X),
    "view_as": (lambda x: x.view_as(x.flatten()), X),
    "reshape": (lambda x: x.reshape(-1), X),
    "reshape_as": (lambda x: x.reshape_as(x.view(4, 6)), X),
    "flatten": (lambda x: x.flatten(1), X),
    "ravel": (lambda x: x.ravel(), X),
    "unflatten": (lambda x: x.unflatten(2, (2, -1)), X),
    "squeeze": (lambda x: x.unsqueeze(1).squeeze(), X),
    "squeeze dim": (lambda x: x.unsqueeze(1).squeeze(1), X),
    "unsqueeze": (lambda x: x.unsqueeze(-1), X),
    "permute": (lambda x: x.permute(2, 0, 1), X),
    "permute tuple": (lambda x: x.permute((2, 0, 1)), X),
    "transpose": (lambda x: x.transpose(0, 2), X),
    "transpose negative": (lambda x: x.transpose(-1, -2), X),
    "transpose of a matrix": (lambda x: x.transpose(0, 1), M),
    "swapaxes": (lambda x: x.swapaxes(0, 1), X),
    "movedim": (lambda x: x.movedim(0, 2), X),
    "moveaxis": (lambda x: x.moveaxis((0, 1), (1, 2)), X),
    "t": (lambda x: x.t(), M),
    "t of a vector": (lambda x: x.t(), V),
    "T": (lambda x: x.T, M),
    "mT": (lambda x: x.mT, X),
    "expand": (lambda x: x.expand(2, -1), V),
    "expand_as": (lambda x: x.expand_as(x.unsqueeze(0).tile(4, 1)), V),
    "contiguous": (lambda x: x.transpose(1, 2).contiguous().view(2, 12), X),
    "flip": (lambda x: x.flip(0, 2), X),
    "flip tuple": (lambda x: x.flip((1,)), X),
    "roll": (lambda x: x.roll(2), X),
    "roll dims": (lambda x: x.roll((1, -1), (0, 2)), X),
    "tile": (lambda x: x.tile(2, 1), M),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), X),
    "split": (lambda x: list(x.split(2, 1)), X),
    "split sizes": (lambda x: list(x.split([1, 3], -1)), X),
    "split of nothing": (lambda x: list(x[:0].split(2)), X),
    "chunk": (lambda x: list(x.chunk(3, 2)), X),
    "chunk few": (lambda x: list(x.chunk(5, 2)), X),
    "unbind": (lambda x: list(x.unbind(1)), X),
    "narrow": (lambda x: x.narrow(2, 1, 2), X),
    "select": (lambda x: x.select(1, -1), X),
    # elements by index
    "index_select": (lambda x: x.index_select(1, index(x, [2, 0])), X),
    "take flat": (lambda x: x.take(index(x, [7, 0])), X),
    "gather": (lambda x: x.gather(0, index(x, I)), X),
    "scatter": (lambda x: x.scatter(0, index(x, I[:, :1]), x * 2), X),
    "scatter number": (lambda x: x.scatter(2, index(x, I), 5.0), X),
    "scatter_add": (lambda x: x.scatter_add(0, index(x, I), x), X),
    "scatter of few": (lambda x: x.scatter(0, index(x, I[:, :1]), x[:1, :1] * 2), X),
    "scatter_add of few": (lambda x: x.scatter_add(0, index(x, I), x[:1, :2] * x[1:, 1:]), X),
    "masked_fill": (lambda x: x.masked_fill(x > 0.5, -1.0), X),
    "masked_select": (lambda x: x.masked_select(x > 0.5), X),
    "where": (lambda x: x.where(x > 0.5, 0.0), X),
    # reductions
    "sum": (lambda x: x.sum(1), X),
    "sum over several": (lambda x: x.sum((0, 2), keepdims=True), X),
    "mean": (lambda x: x.mean((0, 2)), X),
    "prod": (lambda x: x.prod(1), X),
    "amax": (lambda x: x.amax(1, True), X),
    "amin": (lambda x: x.amin((0, 1)), X),
    "argmax": (lambda x: x.argmax(1), X),
    "argmin": (lambda x: x.argmin(), X),
    "any": (lambda x: (x > 0.7).any(1), X),
    "all": (lambda x: (x > 0.3).all(1), X),
    "count_nonzero": (lambda x: (x > 0.5).count_nonzero(1), X),
    "logsumexp": (lambda x: x.logsumexp(1, True), X),
    "norm": (lambda x: x.norm(), X),
    "norm fro": (lambda x: x.norm("fro", (0, 1)), X),
    "norm 1": (lambda x: x.norm(1, -1, True), X),
    "norm inf": (lambda x: x.norm(float("inf")), X),
    "norm nuc": (lambda x: x.norm("nuc", (0, 2)), X),
    "cumsum": (lambda x: x.cumsum(1), X),
    "cumprod": (lambda x: x.cumprod(-1), X),
    "diff": (lambda x: x.diff(2), X),
    "softmax": (lambda x: x.softmax(1), X),
    "log_softmax": (lambda x: x.log_softmax(-1), X),
    # order
    "argsort": (lambda x: x.argsort(1, True), X),
    "topk": (lambda x: list(x.topk(2, 1)), X),
    "topk smallest": (lambda x: list(x.topk(2, largest=False)), X),
    # matrices
    "dot": (lambda x: x.dot(x), V),
    "mv": (lambda x: x.mv(x[0]), M),
    "mm": (lambda x: x.mm(x), M),
    "bmm": (lambda x: x.bmm(x.mT), X),
    "matmul": (lambda x: x.matmul(x.mT), X),
    "outer": (lambda x: x.outer(x), V),
    "diag": (lambda x: x.diag(1), M),
    "diagonal": (lambda x: x.diagonal(1), X),
    "trace": (lambda x: x.trace(), M),
    "tril": (lambda x: x.tril(-1), X),
    "triu": (lambda x: x.triu(1), X),
    # dtypes and new tensors
    **{
        name: (lambda x, name=name: getattr(x * 3, name)(), X)
        for name in ("double", "float", "half", "long", "int", "bool")
    },
    "type_as": (lambda x: x.type_as(x.long()), X),
    "new_zeros": (lambda x: x.new_zeros(2, 3), X),
    "new_ones": (lambda x: x.new_ones((2, 3)), X),
    "new_full": (lambda x: x.new_full((2,), 3.0), X),
    "clone": (lambda x: x.clone(), X),
    "detach": (lambda x: x.detach(), X),
    "cpu": (lambda x: x.cpu(), X),
}

LIKE_NUMPY: dict[str, tuple[Method, Any]] = {
    "max": (lambda x: x.max(1), X),
    "min": (lambda x: x.min((0, 1)), X),
    "var": (lambda x: x.var(1), X),
    "std": (lambda x: x.std((0, 1)), X),
    "transpose": (lambda x: x.transpose(), X),
    "transpose order": (lambda x: x.transpose((1, 0, 2)), X),
    "transpose several": (lambda x: x.transpose(1, 2, 0), X),
    "repeat": (lambda x: x.repeat(2, axis=1), X),
    "repeat flat": (lambda x: x.repeat(2), X),
    "cumsum": (lambda x: x.cumsum(), X),
    "cumprod": (lambda x: x.cumprod(), X),
    "take": (lambda x: x.take(np.array([1, 0]) if isinstance(x, np.ndarray) else tg.asarray([1, 0]), 1), X),
    "nonzero": (lambda x: list((x > 0.5).nonzero()), X),
    "astype": (lambda x: x.astype(np.float32 if isinstance(x, np.ndarray) else tg.float32), X),
    "diagonal": (lambda x: x.diagonal(0, 1, 2), X),
    "trace": (lambda x: x.trace(0, 1, 2), X),
    "swapaxes": (lambda x: x.swapaxes(0, 1), X),
    "flatten": (lambda x: x.flatten(), X),
}


DIFFERENTIATED = (
    "gather", "scatter number", "scatter of few", "scatter_add of few", "norm", "norm nuc", "split", "unflatten",
)  # fmt: skip


def index(x: Any, numbers: Any) -> Any:
    return torch.as_tensor(numbers) if isinstance(x, torch.Tensor) else tg.asarray(numbers)


@pytest.fixture(autouse=True)
def embedded() -> Any:
    with tg.connect(backend="numpy", new=True) as session:
        yield session


@pytest.mark.parametrize("name", LIKE_TORCH)
def test_a_method_does_what_it_does_in_pytorch(name: str) -> None:
    method, operand = LIKE_TORCH[name]

    found, wanted = method(tg.asarray(operand)), method(torch.from_numpy(operand))

    for ours, theirs in zip(*([x] if not isinstance(x, list) else x for x in (found, wanted)), strict=True):
        assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch."), name
        assert ours.shape == tuple(theirs.shape)
        tolerance = 2e-3 if ours.dtype is tg.float16 else 1e-6 if ours.dtype is tg.float32 else 1e-12
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", LIKE_NUMPY)
def test_a_method_does_what_it_does_in_numpy(name: str) -> None:
    method, operand = LIKE_NUMPY[name]

    found, wanted = method(tg.asarray(operand)), method(operand)

    for ours, theirs in zip(*([x] if not isinstance(x, list) else x for x in (found, wanted)), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-6)


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_gradients_of_methods_are_pytorchs(name: str) -> None:
    method, operand = LIKE_TORCH[name]
    ours, theirs = tg.asarray(operand).requires_grad_(), torch.from_numpy(operand).requires_grad_()

    for x in (ours, theirs):
        found = method(x)
        total = sum((y * y).sum() for y in found) if isinstance(found, list) else (found * found).sum()
        if total.requires_grad:
            total.backward()

    assert ours.grad is not None
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-10, atol=1e-12)


def test_facts_about_a_tensor_have_pytorchs_names() -> None:
    x = tg.asarray(X)

    assert (x.numel(), x.dim(), x.element_size(), x.is_floating_point(), x.size) == (24, 3, 8, True, 24)
    assert x.bfloat16().dtype is tg.bfloat16 and not x.long().is_floating_point()


def test_to_takes_a_dtype_a_tensor_or_the_sessions_device() -> None:
    x = tg.asarray(X)

    assert x.to(tg.float32).dtype is tg.float32 and x.to(x.long()).dtype is tg.int64
    assert x.to(x.device) is x and x.to(x.device, tg.float16).dtype is tg.float16
    assert x.to(dtype=tg.int8, device=x.device).dtype is tg.int8
    with pytest.raises(GraphError, match="this session's device is"):
        x.to("abacus")


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        (lambda x: x.narrow(2, 3, 2), ShapeError, "axis 2 has no 2 elements from 3 on"),
        (lambda x: x.split([1, 1], 2), ShapeError, "do not add up to the 4 elements of axis 2"),
        (lambda x: x.split(0), ShapeError, "at least 1"),
        (lambda x: x.chunk(0), ShapeError, "at least 1"),
        (lambda x: x.t(), ShapeError, "at most two axes"),
        (lambda x: x.expand(-1, 2, 3, 4), AxisError, "no sizes to keep"),
        (lambda x: x.mm(x), ShapeError, "takes 2 and 2 axes"),
        (lambda x: x.dot(x), ShapeError, "takes 1 and 1 axes"),
        (lambda x: x.bmm(x[:1]), ShapeError, "stacks of one length"),
        (lambda x: x.gather(0, tg.asarray(np.zeros((2, 4, 4), np.int64))), ShapeError, "must lie within x"),
        (lambda x: x.scatter(0, tg.asarray(I), x[0]), ShapeError, "must lie within the values"),
        (lambda x: x.gather(0, tg.asarray(I - 1)).numpy(), IndexRange, "-1"),
        (lambda x: x.scatter(2, tg.asarray(I + 3), x).numpy(), IndexRange, "4"),
        (lambda x: x.long().masked_fill(x > 0.5, 0.5), DTypeError, "does not fit"),
        (lambda x: x.unsqueeze(5), AxisError, "axis 5"),
    ],
)
def test_methods_refuse_with_a_sentence(method: Method, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        method(tg.asarray(X))


def test_methods_work_in_a_trace_and_a_method_that_reads_says_so() -> None:
    @tg.function
    def step(x: tg.Tensor) -> Any:
        return x.softmax(-1).topk(2)[0].sum(), x.scatter(0, tg.asarray(I), 0.0)

    assert step(tg.asarray(X))[1].shape == X.shape
    with pytest.raises(TraceError, match="where"):
        tg.function(lambda x: x.masked_select(x > 0.5))(tg.asarray(X))
