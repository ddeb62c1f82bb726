"""Rows for `test_against_torch` over all options: windows, norms of channels, attention, losses, activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from telegrad.ops import activation, attention, convolution, distance, loss, norm, pooling

from tests.ops.operands import Operand, integers, number, positive, real, values

Made = tuple[str, Callable[..., Any], Callable[..., Any], tuple[Operand, ...], int]

SPATIAL = {1: (7,), 2: (6, 5), 3: (4, 5, 3)}
ROOMY = {1: (9,), 2: (9, 8), 3: (7, 6, 7)}


def _convolutions(F: Any) -> Iterator[Made]:
    options: list[dict[str, Any]] = [
        {},
        {"stride": 2},
        {"padding": 1, "dilation": 2},
        {"groups": 2},
        {"padding": "same", "dilation": 3},
        {"padding": "same", "groups": 4},
        {"padding": "valid"},
        {"stride": 3, "padding": 2, "groups": 2},
    ]
    for axes in (1, 2, 3):
        ours, theirs = getattr(convolution, f"conv{axes}d"), getattr(F, f"conv{axes}d")
        kernel = (2, 3, 2)[:axes]
        for how in options:
            operands = (real(2, 4, *ROOMY[axes]), real(4, 4 // how.get("groups", 1), *kernel), real(4))
            name = f"conv{axes}d {how}"
            yield name, lambda *xs, f=ours, k=how: f(*xs, **k), lambda *xs, f=theirs, k=how: f(*xs, **k), operands, 2
        yield f"conv{axes}d without batch", ours, theirs, (real(3, *ROOMY[axes]), real(2, 3, *kernel)), 2
    several = {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)}
    yield (
        "conv2d several", lambda *xs: convolution.conv2d(*xs, **several), lambda *xs: F.conv2d(*xs, **several),
        (real(2, 3, 7, 6), real(2, 3, 3, 2), real(2)), 2,
    )  # fmt: skip


def _transposed(F: Any) -> Iterator[Made]:
    options: list[dict[str, Any]] = [
        {},
        {"stride": 2},
        {"stride": 2, "padding": 1, "output_padding": 1},
        {"groups": 2, "dilation": 2},
        {"stride": 3, "padding": 1, "output_padding": 2, "groups": 2},
        {"dilation": 3, "output_padding": 2, "stride": 1},
    ]
    for axes in (1, 2, 3):
        ours, theirs = getattr(convolution, f"conv_transpose{axes}d"), getattr(F, f"conv_transpose{axes}d")
        kernel = (3, 2, 3)[:axes]
        for how in options:
            outputs = 6 // how.get("groups", 1)
            operands = (real(2, 4, *SPATIAL[axes]), real(4, outputs, *kernel), real(6))
            name = f"conv_transpose{axes}d {how}"
            yield name, lambda *xs, f=ours, k=how: f(*xs, **k), lambda *xs, f=theirs, k=how: f(*xs, **k), operands, 2


def _pools(F: Any) -> Iterator[Made]:
    largest: list[dict[str, Any]] = [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 1, "padding": 1},
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
        {"kernel_size": 2, "stride": 2, "ceil_mode": True},
        {"kernel_size": 2, "stride": 1, "dilation": 2, "padding": 1},
    ]
    means: list[dict[str, Any]] = [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
        {"kernel_size": 2, "stride": 2, "ceil_mode": True, "count_include_pad": False},
    ]
    for axes in (1, 2, 3):
        for kind, options in (("max", largest), ("avg", means)):
            ours, theirs = getattr(pooling, f"{kind}_pool{axes}d"), getattr(F, f"{kind}_pool{axes}d")
            for how in options:
                name = f"{kind}_pool{axes}d {how}"
                f, g = (lambda x, f=ours, k=how: f(x, **k)), (lambda x, f=theirs, k=how: f(x, **k))
                yield name, f, g, (real(2, 3, *ROOMY[axes]),), 1 if kind == "max" and axes == 3 else 2
            yield (
                f"{kind}_pool{axes}d without batch",
                lambda x, f=ours: f(x, 2),
                lambda x, f=theirs: f(x, 2),
                (real(3, *ROOMY[axes]),),
                1,
            )
        f, g = getattr(pooling, f"max_pool{axes}d"), getattr(F, f"max_pool{axes}d")
        yield (
            f"max_pool{axes}d of equals",
            lambda x, f=f: f(x, 3, 2, 1),
            lambda x, f=g: f(x.double(), 3, 2, 1),
            (integers(2, 3, *ROOMY[axes], low=0, high=3),),
            0,
        )
        yield (
            f"max_pool{axes}d indices",
            lambda x, f=f: f(x, 3, 2, 1, return_indices=True)[1],
            lambda x, f=g: f(x, 3, 2, 1, return_indices=True)[1],
            (real(2, 3, *ROOMY[axes]),),
            0,
        )
        for size in ((1, 1, 1), (3, 2, 3), (4, 3, 5), (9, 8, 7)):
            for kind in ("avg", "max"):
                name = f"adaptive_{kind}_pool{axes}d"
                ours, theirs = getattr(pooling, name), getattr(F, name)
                to = size[:axes]
                f, g = (lambda x, f=ours, n=to: f(x, n)), (lambda x, f=theirs, n=to: f(x, n))
                yield f"{name} {to}", f, g, (real(2, 3, *ROOMY[axes]),), 1
    how = {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0), "divisor_override": 5}
    yield (
        "avg_pool2d divisor", lambda x: pooling.avg_pool2d(x, **how), lambda x: F.avg_pool2d(x, **how),
        (real(2, 2, 5, 6),), 2,
    )  # fmt: skip


def _norms(F: Any) -> Iterator[Made]:
    for shape in ((3, 4), (3, 4, 5), (2, 4, 3, 2), (2, 4, 2, 3, 2)):
        x, w, b = real(*shape), real(4), real(4)
        for groups in (1, 2, 4) if len(shape) > 2 else (1, 2):
            yield (
                f"group_norm {groups} {shape}", lambda x, w, b, n=groups: norm.group_norm(x, n, w, b),
                lambda x, w, b, n=groups: F.group_norm(x, n, w, b), (x, w, b), 2,
            )  # fmt: skip
        yield (
            f"batch_norm {shape}",
            lambda x, w, b: norm.scaled(x, norm.batch_standardized(x, 1e-5)[0], w, b, "batch_norm"),
            lambda x, w, b: F.batch_norm(x, None, None, w, b, True), (x, w, b), 2,
        )  # fmt: skip
        if len(shape) > 2:
            yield (
                f"instance_norm {shape}", norm.instance_norm,
                lambda x, w, b: F.instance_norm(x, weight=w, bias=b), (x, w, b), 2,
            )  # fmt: skip


def _attentions(F: Any) -> Iterator[Made]:
    ours, theirs = attention.scaled_dot_product_attention, F.scaled_dot_product_attention
    q, k, v = real(2, 4, 5, 3), real(2, 4, 6, 3), real(2, 4, 6, 2)
    yield "attention", ours, theirs, (q, k, v), 2
    yield "attention scaled", lambda *x: ours(*x, scale=0.3), lambda *x: theirs(*x, scale=0.3), (q, k, v), 2
    yield "attention causal", lambda *x: ours(*x, is_causal=True), lambda *x: theirs(*x, is_causal=True), (q, k, v), 2
    yield "attention added mask", ours, theirs, (q, k, v, real(5, 6)), 2
    yield "attention mask of its own", ours, theirs, (q, k, v, real(2, 4, 5, 6)), 2
    yield "attention may look", ours, theirs, (q, k, v, may_look), 1
    gqa = (q, real(2, 2, 6, 3), real(2, 2, 6, 2))
    yield ("attention gqa", lambda *x: ours(*x, enable_gqa=True), lambda *x: theirs(*x, enable_gqa=True), gqa, 2)
    yield "attention without batch", ours, theirs, (real(5, 3), real(6, 3), real(6, 2)), 2


def may_look(rng: Any) -> Any:
    """A boolean mask, one row of which sees nothing."""
    mask = rng.integers(0, 2, (5, 6)) == 1
    mask[:, 0], mask[2] = True, False
    return mask


def signs(*shape: int) -> Operand:
    """1 and -1, as floating-point numbers that are not differentiated."""
    return lambda rng: rng.integers(0, 2, shape) * 2 - 1


def _losses(F: Any) -> Iterator[Made]:
    pair = (real(4, 3), real(4, 3))
    given: list[tuple[str, tuple[Operand, ...], dict[str, Any], int]] = [
        ("margin_ranking_loss", (real(5), real(5), signs(5)), {"margin": 0.3}, 2),
        ("hinge_embedding_loss", (real(5), signs(5)), {"margin": 0.7}, 2),
        ("soft_margin_loss", (real(5), signs(5)), {}, 2),
        ("multilabel_soft_margin_loss", (real(4, 3), integers(4, 3, low=0, high=2)), {}, 2),
        ("multilabel_soft_margin_loss", (real(4, 3), integers(4, 3, low=0, high=2), positive(3)), {}, 1),
        ("multi_margin_loss", (real(5, 4), integers(5, low=0, high=4)), {}, 1),
        ("multi_margin_loss", (real(5, 4), integers(5, low=0, high=4)), {"p": 2, "margin": 0.5}, 1),
        ("multi_margin_loss", (real(4), integers(low=0, high=4)), {}, 1),
        ("multilabel_margin_loss", (real(3, 4), number([[3, 0, -1, 1], [-1, 2, 1, 0], [0, 1, 2, 3]])), {}, 1),
        ("multilabel_margin_loss", (real(4), number([2, -1, 0, 0])), {}, 1),
        ("cosine_embedding_loss", (*pair, signs(4)), {"margin": 0.2}, 2),
        ("triplet_margin_loss", (*pair, real(4, 3)), {}, 2),
        ("triplet_margin_loss", (*pair, real(4, 3)), {"margin": 2.0, "p": 1.5, "swap": True}, 2),
        ("triplet_margin_with_distance_loss", (*pair, real(4, 3)), {"swap": True}, 2),
        ("poisson_nll_loss", (real(5), positive(5)), {}, 2),
        ("poisson_nll_loss", (positive(5), real(5, low=0.1, high=4.0)), {"log_input": False, "full": True}, 1),
        ("gaussian_nll_loss", (*pair, positive(4, 3)), {"full": True}, 2),
        ("gaussian_nll_loss", (*pair, positive(4)), {}, 2),
        ("gaussian_nll_loss", (*pair, positive(4, 1)), {"eps": 1.0}, 1),
    ]
    for i, (name, operands, how, order) in enumerate(given):
        for reduction in ("none", "mean", "sum"):
            options = {**how, "reduction": reduction}
            ours, theirs = getattr(loss, name), getattr(F, name)
            yield (
                f"{name} {i} {options}",
                lambda *xs, f=ours, k=options: f(*xs, **k),
                lambda *xs, f=theirs, k=options: f(*xs, **k),
                operands,
                order,
            )


def _vectors(F: Any) -> Iterator[Made]:
    x, y = real(3, 4, 2), real(3, 4, 2)
    for name, operands, how in (
        ("cosine_similarity", (x, y), {}),
        ("cosine_similarity", (x, y), {"dim": -1}),
        ("pairwise_distance", (x, y), {}),
        ("pairwise_distance", (x, y), {"p": 1.0, "keepdim": True}),
        ("pairwise_distance", (real(3, 2), real(2)), {"p": 3.0}),
        ("normalize", (x,), {}),
        ("normalize", (x,), {"p": 1.0, "dim": 2, "eps": 2.5}),
    ):
        f, g = getattr(distance, name), getattr(F, name)
        yield f"{name} {how}", lambda *a, f=f, k=how: f(*a, **k), lambda *a, f=g, k=how: f(*a, **k), operands, 2


KINKS = (-1.0, -0.5, -0.2, 0.0, 0.2, 0.5, 1.0, 3.0)


def _activations(F: Any) -> Iterator[Made]:
    for name, args in (
        ("hardshrink", ()),
        ("hardshrink", (0.2,)),
        ("softshrink", ()),
        ("tanhshrink", ()),
        ("threshold", (0.2, -3.0)),
        ("softmin", (0,)),
        ("glu", ()),
    ):
        order = 1 if name in ("hardshrink", "softshrink", "threshold") else 2
        f, g = getattr(activation, name), getattr(F, name)
        yield (
            f"{name} {args}",
            lambda x, f=f, a=args: f(x, *a),
            lambda x, f=g, a=args: f(x, *a),
            (values(*KINKS),),
            order,
        )
    yield "glu along 1", lambda x: activation.glu(x, 1), lambda x: F.glu(x, 1), (real(2, 4, 3),), 2
    yield "prelu", activation.prelu, F.prelu, (real(3, 4, 2), real(4)), 2
    yield "prelu of one", activation.prelu, F.prelu, (values(*KINKS), real(1)), 1


def rows(F: Any) -> Iterator[Made]:
    """Name, our expression, PyTorch's, operands, and the order of gradients to compare."""
    yield from _convolutions(F)
    yield from _transposed(F)
    yield from _pools(F)
    yield from _norms(F)
    yield from _attentions(F)
    yield from _losses(F)
    yield from _vectors(F)
    yield from _activations(F)
