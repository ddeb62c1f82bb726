"""Cells, tables, dropouts, padding, resampling, moves and the rest against PyTorch's of the same name."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn

torch: Any = pytest.importorskip("torch")

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]
F = nn.functional
TF: Any = torch.nn.functional
Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def _session() -> Any:
    with tg.connect(backend="numpy", new=True) as session:
        yield session


def _close(a: Any, b: Any, what: str = "") -> None:
    assert a.shape == tuple(b.shape), what
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11, err_msg=what)


def _same(
    ours: Callable[..., Any], theirs: Callable[..., Any], arrays: list[Array], order: int = 2, what: str = ""
) -> None:
    """Values, gradients by random cotangents of all floating-point operands, and of those the gradients again."""
    a = [tg.asarray(x) for x in arrays]
    b = [torch.tensor(x, requires_grad=x.dtype.kind == "f") for x in arrays]
    wanted = theirs(*b)
    _close(ours(*a).numpy(), wanted.detach().numpy(), what)
    if order == 0:
        return
    rng = np.random.default_rng(7)
    cotangent = rng.normal(size=tuple(wanted.shape))
    smooth = [i for i, x in enumerate(arrays) if x.dtype.kind == "f"]

    def first(*xs: Any) -> Any:
        full = list(a)
        for i, x in zip(smooth, xs, strict=True):
            full[i] = x
        return (ours(*full) * tg.asarray(cotangent)).sum()

    at = tuple(range(len(smooth)))
    mine = tg.grad(first, argnums=at)(*[a[i] for i in smooth])
    yours = torch.autograd.grad(
        (wanted * torch.tensor(cotangent)).sum(), [b[i] for i in smooth], create_graph=order > 1
    )
    for x, y in zip(mine, yours, strict=True):
        _close(x.numpy(), y.detach().numpy(), f"{what}: gradient")
    if order < 2:
        return
    directions = [rng.normal(size=tuple(y.shape)) for y in yours]

    def second(*xs: Any) -> Any:
        found = tg.grad(first, argnums=at)(*xs)
        return sum((g * tg.asarray(d)).sum() for g, d in zip(found, directions, strict=True))

    total = sum((g * torch.tensor(d)).sum() for g, d in zip(yours, directions, strict=True))
    wanted_again = (
        torch.autograd.grad(total, [b[i] for i in smooth], allow_unused=True)
        if total.requires_grad
        else (None,) * len(at)
    )
    for x, y in zip(tg.grad(second, argnums=at)(*[a[i] for i in smooth]), wanted_again, strict=True):
        found = x.numpy()
        _close(found, np.zeros(found.shape) if y is None else y.detach().numpy(), f"{what}: second gradient")


def _pair(name: str, *args: Any, **how: Any) -> tuple[Any, Any]:
    """Our module and PyTorch's, in float64 and with the same random state under the same keys."""
    rng = np.random.default_rng(0)
    ours, theirs = getattr(nn, name)(*args, **how, dtype=tg.float64), getattr(torch.nn, name)(*args, **how).double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.tensor(rng.normal(size=tuple(parameter.shape))))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    return ours, theirs


def _same_module(ours: Any, theirs: Any, y: Any, z: Any) -> None:
    _close(y.numpy(), z.detach().numpy(), "output")
    g = np.random.default_rng(3).normal(size=tuple(z.shape))
    (y * tg.asarray(g)).sum().backward()
    (z * torch.tensor(g)).sum().backward()
    found = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        _close(found[name].grad.numpy(), parameter.grad.numpy(), name)


def _normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


# ---- recurrent cells

CELLS: list[tuple[str, dict[str, Any]]] = [
    ("RNNCell", {}),
    ("RNNCell", {"nonlinearity": "relu", "bias": False}),
    ("LSTMCell", {}),
    ("LSTMCell", {"bias": False}),
    ("GRUCell", {}),
    ("GRUCell", {"bias": False}),
]


@pytest.mark.parametrize("lead", [(3,), ()])
@pytest.mark.parametrize(("name", "how"), CELLS)
def test_a_cell_in_a_loop_over_time_is_pytorchs(name: str, how: dict[str, Any], lead: tuple[int, ...]) -> None:
    ours, theirs = _pair(name, 4, 5, **how)
    x = _normal(6, *lead, 4)
    s, t = None, None
    for row in x:
        s, t = ours(tg.asarray(row), s), theirs(torch.tensor(row), t)
    if name == "LSTMCell":
        s, t = s[0] * 2 + s[1], t[0] * 2 + t[1]
    _same_module(ours, theirs, s, t)


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
def test_a_cells_gradients_of_input_and_state(name: str) -> None:
    ours, theirs = _pair(name, 4, 5)
    if name == "LSTMCell":
        _same(
            lambda x, h, c: sum(ours(x, (h, c))),
            lambda x, h, c: sum(theirs(x, (h, c))),
            [_normal(3, 4), _normal(3, 5), _normal(3, 5, seed=1)],
        )
    else:
        _same(ours, theirs, [_normal(3, 4), _normal(3, 5)])


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
def test_a_cells_initial_values_are_uniform_within_one_over_the_root_of_its_size(name: str) -> None:
    cell = getattr(nn, name)(30, 64)
    for parameter in cell.parameters():
        values = parameter.numpy()
        assert values.dtype == np.float32
        assert 0.85 / 8 < np.abs(values).max() <= 1 / 8
        assert abs(values.mean()) < 0.03
    assert [p.shape for p in cell.parameters()] == [
        tuple(p.shape) for p in getattr(torch.nn, name)(30, 64).parameters()
    ]


# ---- tables


@pytest.mark.parametrize(
    "how", [{}, {"padding_idx": 2}, {"padding_idx": -1}, {"scale_grad_by_freq": True}, {"max_norm": 1.0},
            {"max_norm": 2.0, "norm_type": 1.0, "padding_idx": 0, "sparse": False}],
)  # fmt: skip
def test_an_embedding_is_pytorchs(how: dict[str, Any]) -> None:
    ours, theirs = _pair("Embedding", 5, 3, **how)
    x = np.array([[0, 2, 2], [4, 2, 0]])
    _same_module(ours, theirs, ours(tg.asarray(x)), theirs(torch.tensor(x)))
    _close(ours.weight.numpy(), theirs.weight.detach().numpy(), "weight, which max_norm shortens")
    assert ours.padding_idx == theirs.padding_idx


def test_an_embeddings_padding_row_is_zero_at_first_and_others_are_normal() -> None:
    for make in (nn.Embedding, nn.EmbeddingBag):
        values = make(400, 20, padding_idx=3).weight.numpy()
        assert values.dtype == np.float32
        assert not values[3].any()
        assert abs(values.mean()) < 0.05
        assert abs(values.std() - 1) < 0.05


def test_an_embedding_from_given_rows_is_frozen() -> None:
    rows = _normal(4, 3)
    table = nn.Embedding.from_pretrained(tg.asarray(rows))
    assert not table.weight.requires_grad
    _close(table(tg.asarray([1, 3])).numpy(), rows[[1, 3]])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize(
    "how", [{}, {"padding_idx": 2}, {"include_last_offset": True}, {"max_norm": 1.0}],
    ids=str,
)  # fmt: skip
def test_an_embedding_bag_is_pytorchs(mode: str, how: dict[str, Any]) -> None:
    if mode == "max" and "scale_grad_by_freq" in how:
        return
    flat, offsets = np.array([0, 2, 2, 4, 1, 2, 2, 4]), np.array([0, 3, 3, 5, 8 if "include_last_offset" in how else 7])
    ours, theirs = _pair("EmbeddingBag", 5, 3, mode=mode, **how)
    _same_module(
        ours, theirs, ours(tg.asarray(flat), tg.asarray(offsets)), theirs(torch.tensor(flat), torch.tensor(offsets))
    )
    if "include_last_offset" in how:
        return
    ours, theirs = _pair("EmbeddingBag", 5, 3, mode=mode, **how)
    x = np.array([[0, 2, 2], [4, 1, 0], [2, 2, 2]])
    _same_module(ours, theirs, ours(tg.asarray(x)), theirs(torch.tensor(x)))


def test_an_embedding_bag_weighs_its_samples() -> None:
    ours, theirs = _pair("EmbeddingBag", 5, 3, mode="sum")
    x, w = np.array([[0, 2, 2], [4, 1, 0]]), _normal(2, 3)
    y = ours(tg.asarray(x), per_sample_weights=tg.asarray(w))
    _same_module(ours, theirs, y, theirs(torch.tensor(x), per_sample_weights=torch.tensor(w)))


# ---- dropout: the bits are our own, so it is what they do that is compared


def _channels(mask: Array) -> Array:
    """Whether each channel is kept, having checked that it is kept or dropped as a whole."""
    rows = mask.reshape(*mask.shape[:2], -1)
    assert (rows == rows[..., :1]).all()
    return rows[..., 0]


@pytest.mark.parametrize(
    ("name", "shape"),
    [("Dropout1d", (300, 20, 4)), ("Dropout2d", (300, 20, 2, 3)), ("Dropout2d", (300, 20, 3)),
     ("Dropout3d", (300, 20, 2, 1, 2))],
)  # fmt: skip
def test_channels_are_dropped_as_a_whole(name: str, shape: tuple[int, ...]) -> None:
    x = 1 + np.random.default_rng(0).random(shape)
    for p in (0.2, 0.7):
        module = getattr(nn, name)(p)
        y = module(tg.asarray(x)).numpy()
        kept = y != 0
        np.testing.assert_allclose(y[kept], (x / (1 - p))[kept])
        assert abs(_channels(kept).mean() - (1 - p)) < 0.03
        assert not np.array_equal(y, module(tg.asarray(x)).numpy())
        np.testing.assert_array_equal(module.eval()(tg.asarray(x)).numpy(), x)
    assert not getattr(nn, name)(1.0)(tg.asarray(x)).numpy().any()


@pytest.mark.parametrize(("name", "shape"), [("Dropout1d", (200, 4)), ("Dropout3d", (200, 3, 1, 2))])
def test_without_a_batch_the_first_axis_is_that_of_channels(name: str, shape: tuple[int, ...]) -> None:
    kept = getattr(nn, name)(0.5)(tg.ones(shape)).numpy()[None] != 0
    assert abs(_channels(kept).mean() - 0.5) < 0.12


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_alpha_dropout_keeps_mean_and_variance(p: float) -> None:
    x = _normal(400, 100, 5)
    floor = TF.alpha_dropout(torch.zeros(1000).double(), p, True)
    dropped, kept = float(floor.min()), float(floor.max())
    for name in ("AlphaDropout", "FeatureAlphaDropout"):
        module = getattr(nn, name)(p)
        y = module(tg.asarray(x)).numpy()
        assert abs(y.mean()) < 0.02
        assert abs(y.std() - 1) < 0.02
        flat = module(tg.zeros(x.shape, dtype=tg.float64)).numpy()
        np.testing.assert_allclose(np.unique(flat), [dropped, kept], rtol=1e-12)
        assert abs((flat == flat.max()).mean() - (1 - p)) < 0.02
        if name == "FeatureAlphaDropout":
            _channels(flat)
        np.testing.assert_array_equal(module.eval()(tg.asarray(x)).numpy(), x)


def test_gumbel_softmax_draws_in_proportion() -> None:
    logits = np.log(np.array([0.1, 0.2, 0.7]))
    x = tg.asarray(np.tile(logits, (20000, 1))).requires_grad_()
    hard = F.gumbel_softmax(x, 0.5, hard=True)
    np.testing.assert_allclose(hard.numpy().mean(axis=0), [0.1, 0.2, 0.7], atol=0.015)
    assert set(np.unique(np.round(hard.numpy(), 12))) == {0.0, 1.0}
    (hard * tg.asarray([1.0, 2.0, 3.0])).sum().backward()
    assert np.abs(x.grad.numpy()).max() > 0.1  # type: ignore[union-attr]
    soft = F.gumbel_softmax(x, 2.0, dim=0).numpy()
    np.testing.assert_allclose(soft.sum(axis=0), 1)


# ---- modules without parameters

PADS = [("ConstantPad", (2.5,)), ("ZeroPad", ()), ("ReflectionPad", ()), ("ReplicationPad", ()), ("CircularPad", ())]


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(("kind", "more"), PADS)
def test_a_pad_is_pytorchs(kind: str, more: tuple[float, ...], axes: int) -> None:
    name, shape = f"{kind}{axes}d", (2, 3, 4, 5, 3)[: axes + 2]
    for padding in (1, (2, 1, 0, 1, 2, 2)[: 2 * axes]):
        ours, theirs = getattr(nn, name)(padding, *more), getattr(torch.nn, name)(padding, *more)
        _same(ours, theirs, [_normal(*shape)], what=f"{name} {padding}")
        _same(ours, theirs, [_normal(*shape[1:])], 1, f"{name} {padding} without batch")
    if kind in ("ConstantPad", "ZeroPad"):
        cut = (-1, 2, 1, -2, 0, -1)[: 2 * axes]
        _same(getattr(nn, name)(cut, *more), getattr(torch.nn, name)(cut, *more), [_normal(*shape)], 1)


PLAIN: list[tuple[str, tuple[Any, ...], dict[str, Any], list[tuple[int, ...]]]] = [
    ("Unflatten", (1, (2, -1)), {}, [(3, 6, 2)]),
    ("Unflatten", (-1, (2, 1)), {}, [(3, 6, 2)]),
    ("CosineSimilarity", (), {}, [(3, 4, 2), (3, 4, 2)]),
    ("CosineSimilarity", (), {"dim": 0, "eps": 1e-4}, [(3, 4), (3, 4)]),
    ("PairwiseDistance", (), {}, [(3, 4), (3, 4)]),
    ("PairwiseDistance", (3.0,), {"keepdim": True, "eps": 1e-3}, [(3, 4), (3, 4)]),
    ("PixelShuffle", (2,), {}, [(2, 8, 3, 2)]),
    ("PixelShuffle", (3,), {}, [(9, 3, 2)]),
    ("PixelUnshuffle", (2,), {}, [(2, 3, 4, 6)]),
    ("ChannelShuffle", (3,), {}, [(2, 6, 3, 2)]),
    ("Softmax2d", (), {}, [(2, 3, 2, 2)]),
    ("Softmax2d", (), {}, [(3, 2, 2)]),
    ("LPPool1d", (2, 3), {"stride": 2}, [(2, 3, 8)]),
    ("LPPool1d", (4, 3), {"ceil_mode": True}, [(3, 8)]),
    ("LPPool2d", (2, (3, 2)), {"ceil_mode": True}, [(2, 3, 5, 6)]),
    ("LPPool2d", (1, 2), {}, [(2, 3, 5, 6)]),
    ("LPPool3d", (2, 2), {}, [(2, 2, 4, 5, 4)]),
    ("LocalResponseNorm", (3,), {}, [(2, 6, 4)]),
    ("LocalResponseNorm", (2,), {"alpha": 0.5, "beta": 0.6, "k": 2.0}, [(2, 6, 3, 2)]),
    ("LocalResponseNorm", (9,), {"alpha": 0.3}, [(2, 4, 2, 2, 2)]),
    ("Unfold", (2,), {}, [(2, 3, 4, 5)]),
    ("Unfold", ((3, 2),), {"dilation": (1, 2), "padding": (2, 1), "stride": (2, 1)}, [(2, 3, 5, 6)]),
    ("Unfold", (2,), {"stride": 3}, [(3, 5, 6)]),
    ("Fold", ((4, 5), 2), {}, [(2, 12, 12)]),
    ("Fold", ((5, 6), (3, 2)), {"dilation": (1, 2), "padding": (2, 1), "stride": (2, 1)}, [(2, 12, 24)]),
    ("Fold", ((5, 6), 2), {"stride": 3}, [(12, 4)]),
]


@pytest.mark.parametrize(("name", "args", "how", "shapes"), PLAIN)
def test_a_module_without_parameters_is_pytorchs(
    name: str, args: tuple[Any, ...], how: dict[str, Any], shapes: list[tuple[int, ...]]
) -> None:
    ours, theirs = getattr(nn, name)(*args, **how), getattr(torch.nn, name)(*args, **how)
    _same(ours, theirs, [_normal(*shape, seed=i) for i, shape in enumerate(shapes)], what=name)
    assert repr(ours).startswith(f"{name}(")


def test_bilinear_is_pytorchs_and_drawn_as_pytorch_does() -> None:
    for bias in (True, False):
        ours, theirs = _pair("Bilinear", 3, 4, 5, bias=bias)
        x, y = _normal(2, 6, 3), _normal(2, 6, 4)
        _same_module(ours, theirs, ours(tg.asarray(x), tg.asarray(y)), theirs(torch.tensor(x), torch.tensor(y)))
        _same(ours, theirs, [_normal(6, 3), _normal(6, 4)])
        _same(ours, theirs, [_normal(3), _normal(4)], 1)
    fresh = nn.Bilinear(25, 8, 9)
    for parameter in fresh.parameters():
        assert 0.6 / 5 < np.abs(parameter.numpy()).max() <= 1 / 5


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("how", [{}, {"stride": 1}, {"stride": 3, "padding": 1, "kernel_size": 3}], ids=str)
def test_max_unpool_is_pytorchs(axes: int, how: dict[str, Any]) -> None:
    options = {"kernel_size": 2, **how}
    x = torch.tensor(_normal(2, 3, *((7, 4, 7) if how.get("stride") == 3 else (6, 6, 4))[:axes]))
    pooled, indices = getattr(TF, f"max_pool{axes}d")(x, **options, return_indices=True)
    ours, theirs = getattr(nn, f"MaxUnpool{axes}d")(**options), getattr(torch.nn, f"MaxUnpool{axes}d")(**options)
    arrays = [pooled.numpy(), indices.numpy()]
    _same(ours, theirs, arrays, 0 if how.get("stride") == 1 else 2)  # windows that overlap write equal elements twice
    if not how:
        for size in ([*x.shape], [n + 1 for n in x.shape[2:]]):
            _same(lambda a, i, s=size: ours(a, i, s), lambda a, i, s=size: theirs(a, i, s), arrays, 1)
        _same(ours, theirs, [a[0] for a in arrays], 1)


# ---- resampling

LINEAR = {1: ("linear",), 2: ("bilinear", "bicubic"), 3: ("trilinear",)}
TO: list[dict[str, Any]] = [
    {"size": (7, 3, 5)}, {"size": 4}, {"size": 1}, {"size": (4, 5, 3)}, {"scale_factor": 2.0},
    {"scale_factor": (1.7, 0.6, 2.3)}, {"scale_factor": 1.3, "recompute_scale_factor": True},
]  # fmt: skip


@pytest.mark.parametrize("to", TO, ids=str)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_interpolate_is_pytorchs(axes: int, to: dict[str, Any]) -> None:
    x = _normal(2, 2, *(4, 5, 3)[:axes])
    how = {k: v[:axes] if isinstance(v, tuple) else v for k, v in to.items()}
    for mode in ("nearest", "nearest-exact", "area", *LINEAR[axes]):
        for corners in (None, True, False) if mode in LINEAR[axes] else (None,):
            options = {**how, "mode": mode, "align_corners": corners}
            if mode == "area":
                options.pop("recompute_scale_factor", None)
            order = 2 if corners is not None or mode == "nearest" else 1
            if axes == 3 and mode.startswith("nearest") and isinstance(how.get("scale_factor"), tuple):
                order = 0  # PyTorch's gradient is there not that of its own values
            _same(
                lambda x, o=options: F.interpolate(x, **o), lambda x, o=options: TF.interpolate(x, **o), [x], order,
                str(options),
            )  # fmt: skip


@pytest.mark.slow
def test_interpolate_picks_pytorchs_elements_in_float32() -> None:
    for n in (1, 2, 3, 5, 7, 10, 33, 49):
        x = np.arange(n, dtype=np.float32)[None, None]
        for m in (*range(1, 60), 98, 147, 490):
            for mode in ("nearest", "nearest-exact"):
                wanted = TF.interpolate(torch.tensor(x), m, mode=mode).numpy()
                found = F.interpolate(tg.asarray(x), m, mode=mode).numpy()
                # at a place between two elements PyTorch's choice depends on whether its loop fuses multiply and add
                is_tie = (2 * np.arange(m) + 1) * n % (2 * m) == 0 if mode == "nearest-exact" else np.zeros(m, bool)
                np.testing.assert_array_equal(found[0, 0, ~is_tie], wanted[0, 0, ~is_tie], f"{mode} {n} {m}")


@pytest.mark.parametrize(
    ("name", "how"),
    [("Upsample", {"scale_factor": 2}), ("Upsample", {"size": (3, 7), "mode": "bicubic", "align_corners": True}),
     ("UpsamplingNearest2d", {"size": 6}), ("UpsamplingBilinear2d", {"scale_factor": 1.5})],
)  # fmt: skip
def test_upsample_is_pytorchs(name: str, how: dict[str, Any]) -> None:
    _same(getattr(nn, name)(**how), getattr(torch.nn, name)(**how), [_normal(2, 3, 4, 5)], what=name)


# ---- containers of parameters


def _values(*names: str) -> list[tuple[str, Array]]:
    return [(name, _normal(2, seed=i)) for i, name in enumerate(names)]


def test_a_parameter_list_has_pytorchs_keys() -> None:
    ours, theirs = nn.ParameterList(), torch.nn.ParameterList()
    for _, x in _values("a", "b", "c"):
        ours.append(tg.asarray(x))
        theirs.append(torch.tensor(x))
    ours += [nn.Parameter(np.ones(3))]
    theirs += [torch.nn.Parameter(torch.ones(3))]
    assert list(ours.state_dict()) == list(theirs.state_dict()) == ["0", "1", "2", "3"]
    assert len(ours) == 4
    assert all(isinstance(p, nn.Parameter) for p in ours)
    assert len(ours[1:]) == 3
    assert ours[-1] is list(ours)[3]
    ours[0] = tg.zeros(2)
    assert not ours[0].numpy().any()


@pytest.mark.parametrize("make", [dict, OrderedDict, list])
def test_a_parameter_dict_has_pytorchs_keys(make: Callable[..., Any]) -> None:
    given = _values("right", "left", "alpha")
    ours = nn.ParameterDict(make([(k, tg.asarray(v)) for k, v in given]))
    theirs = torch.nn.ParameterDict(make([(k, torch.nn.Parameter(torch.tensor(v))) for k, v in given]))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert list(ours.keys()) == list(theirs.keys())
    _close(ours["left"].numpy(), given[1][1])
    assert "left" in ours
    assert ours.pop("left") is not None
    del ours["right"]
    assert list(ours) == ["alpha"]
    assert ours.get("left") is None
    assert [p.shape for p in ours.values()] == [(2,)]


# ---- refusals


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    x, table = tg.ones((2, 3, 5, 5)), tg.ones((4, 3))
    ids = tg.asarray([0, 1])
    for make, words in (
        (lambda: nn.RNNCell(2, 3, nonlinearity="sin"), "'tanh' or 'relu'"),
        (lambda: nn.GRUCell(2, 0), "must be positive"),
        (lambda: nn.GRUCell(2, 3)(tg.ones((2, 3))), r"takes an input of \[batch, 2\]"),
        (lambda: nn.GRUCell(2, 3)(tg.ones((4, 2)), tg.ones((3, 3))), "state must have the shape"),
        (lambda: nn.LSTMCell(2, 3)(tg.ones((4, 2)), tg.ones((4, 3))), "a pair"),
        (lambda: nn.Embedding(4, 3, padding_idx=4), "within the 4 rows"),
        (lambda: nn.Embedding(4, 3, _weight=tg.ones((3, 3))), "must be"),
        (lambda: nn.Embedding.from_pretrained(tg.ones(3)), "takes"),
        (lambda: F.embedding(tg.ones(2), table), "must be integers"),
        (lambda: F.embedding(ids, table, max_norm=1.0), "must be a variable"),
        (lambda: F.embedding_bag(ids, table), "with offsets"),
        (lambda: F.embedding_bag(tg.asarray([[0, 1]]), table, ids), "has no offsets"),
        (lambda: F.embedding_bag(ids, table, ids, mode="min"), "mode is"),
        (lambda: F.embedding_bag(ids, table, ids, per_sample_weights=tg.ones(2)), "need mode 'sum'"),
        (lambda: F.embedding_bag(ids, table, ids, mode="max", scale_grad_by_freq=True), "does not go with"),
        (lambda: nn.Dropout2d(1.5), "from 0 to 1"),
        (lambda: nn.Dropout1d(0.5)(x), "of 2 or 3 axes"),
        (lambda: F.alpha_dropout(x, 2.0, True), "from 0 to 1"),
        (lambda: nn.FeatureAlphaDropout(0.5)(tg.ones(3)), "takes"),
        (lambda: F.gumbel_softmax(x, 0.0), "tau must be positive"),
        (lambda: nn.Bilinear(0, 3, 2), "must be positive"),
        (lambda: nn.Bilinear(2, 3, 2)(tg.ones((4, 2)), tg.ones((4, 2))), "do not fit the weight"),
        (lambda: nn.Bilinear(2, 3, 2)(tg.ones((4, 2)), tg.ones((3, 3))), "all axes but the last"),
        (lambda: nn.Unflatten(1, (2, 2))(x), "cannot become"),
        (lambda: nn.Unflatten("C", (2, 2)), "no names"),  # type: ignore[arg-type]
        (lambda: nn.ZeroPad2d((1, 2, 3)), "one width or 4"),
        (lambda: nn.ReflectionPad1d(1)(x), "takes 3 axes"),
        (lambda: nn.ReflectionPad2d(5)(x), "from 0 to 4"),
        (lambda: nn.PixelShuffle(2)(x), "takes"),
        (lambda: nn.PixelUnshuffle(2)(x), "divisible by 2"),
        (lambda: nn.ChannelShuffle(2)(x), "divisible into 2 groups"),
        (lambda: nn.Softmax2d()(tg.ones((2, 3))), "takes"),
        (lambda: nn.ParameterList([1.0]), "holds parameters"),  # type: ignore[list-item]
        (lambda: F.interpolate(x, 3, mode="cubic"), "not one of"),
        (lambda: F.interpolate(x, 3, mode="linear"), "takes"),
        (lambda: F.interpolate(x, 3, align_corners=True), "does not go with"),
        (lambda: F.interpolate(x), "either size or scale_factor"),
        (lambda: F.interpolate(x, 3, 2.0), "either size or scale_factor"),
        (lambda: F.interpolate(x, (3, 0)), "cannot become"),
        (lambda: F.interpolate(x, scale_factor=(1.0, 2.0, 3.0)), "positive numbers or one"),
        (lambda: F.interpolate(x, 3, mode="bilinear", antialias=True), "not offered"),
        (lambda: F.interpolate(x, 3, recompute_scale_factor=True), "needs a scale_factor"),
        (lambda: F.interpolate(x.astype(tg.int64), 3, mode="area"), "floating-point"),
        (lambda: nn.LPPool2d(0, 2)(x), "must not be 0"),
        (lambda: nn.LocalResponseNorm(0)(x), "positive size"),
        (lambda: nn.Unfold(7)(x), "5 padded elements"),
        (lambda: nn.Fold((4, 4), 2)(tg.ones((2, 8, 8))), "takes"),
        (lambda: nn.MaxUnpool2d(2)(x, x), "must be integers"),
        (lambda: nn.MaxUnpool2d(2)(x, x.astype(tg.int64), (3, 3)), "within a stride"),
        (lambda: nn.MaxUnpool1d(2)(tg.ones((1, 1, 2)), tg.asarray([[[0, 4]]])).numpy(), "4"),
    ):
        with pytest.raises(tg.TelegradError, match=words):
            make()


def test_cells_and_tables_learn_inside_a_traced_step() -> None:
    table, cell = nn.Embedding(5, 3, padding_idx=0, max_norm=2.0), nn.LSTMCell(3, 4)

    @tg.function
    def step(ids: tg.Tensor) -> tg.Tensor:
        state = None
        for i in range(3):
            state = cell(nn.functional.dropout1d(table(ids[:, i])[:, :, None], 0.5)[:, :, 0], state)
        assert state is not None
        return state[0].sum()

    first = step(tg.asarray([[0, 1, 2], [3, 4, 0]])).numpy()
    again = step(tg.asarray([[0, 1, 2], [3, 4, 0]])).numpy()
    assert math.isfinite(first)
    assert first != again
