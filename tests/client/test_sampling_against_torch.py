"""Sampling at given places, pooling at random ones, and other late-comers, against PyTorch's of the same name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn

from tests.client.test_more_modules_against_torch import _close, _normal, _same

torch: Any = pytest.importorskip("torch")

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::UserWarning")]
F = nn.functional
TF: Any = torch.nn.functional


@pytest.fixture(autouse=True)
def _session() -> Any:
    with tg.connect(backend="numpy", new=True) as session:
        yield session


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grid_sample_is_pytorchs(mode: str, padding_mode: str, align_corners: bool) -> None:
    how = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    image, places = _normal(2, 3, 4, 5), 1.5 * _normal(2, 3, 6, 2, seed=1)

    _same(lambda x, g: F.grid_sample(x, g, **how), lambda x, g: TF.grid_sample(x, g, **how), [image, places], order=1)
    if mode != "bicubic":
        volume, places = _normal(2, 3, 4, 5, 3), 1.5 * _normal(2, 2, 1, 6, 3, seed=1)
        _same(
            lambda x, g: F.grid_sample(x, g, **how), lambda x, g: TF.grid_sample(x, g, **how), [volume, places], order=1
        )


@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
def test_grid_sample_far_outside_and_at_no_number_stays_in_the_input(padding_mode: str) -> None:
    x = np.arange(6.0).reshape(1, 1, 2, 3)
    grid = np.array([[[[1e30, 0.0], [-1e30, 1e30], [np.nan, 0.0], [0.0, np.inf]]]])

    found = F.grid_sample(tg.asarray(x), tg.asarray(grid), padding_mode=padding_mode).numpy()

    assert found.shape == (1, 1, 1, 4)
    wanted = TF.grid_sample(torch.tensor(x), torch.tensor(grid), padding_mode=padding_mode, align_corners=False)
    if padding_mode != "reflection":
        np.testing.assert_allclose(found[..., :2], wanted[..., :2].numpy())


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 1, 1, 3), (2, 3, 3, 4, 2)])
def test_affine_grid_is_pytorchs(size: tuple[int, ...], align_corners: bool) -> None:
    k = len(size) - 2

    _same(
        lambda theta: F.affine_grid(theta, size, align_corners),
        lambda theta: TF.affine_grid(theta, size, align_corners),
        [_normal(2, k, k + 1)],
    )


def test_a_turned_image_is_learnt_back() -> None:
    """The grid's gradient is good for something: a spatial transformer finds an angle."""
    rng = np.random.default_rng(0)
    image = tg.asarray(np.cumsum(np.cumsum(rng.normal(size=(1, 1, 12, 12)), 2), 3))

    def turned(angle: tg.Tensor) -> tg.Tensor:
        c, s, o = tg.cos(angle), tg.sin(angle), tg.zeros_like(angle)
        theta = tg.reshape(tg.stack([c, -s, o, s, c, o]), (1, 2, 3))
        return F.grid_sample(image, F.affine_grid(theta, (1, 1, 12, 12)), padding_mode="border")

    wanted = turned(tg.asarray(np.float64(0.3)))
    step = tg.function(tg.value_and_grad(lambda angle: ((turned(angle) - wanted) ** 2).mean()))
    angle = 0.0
    for _ in range(60):
        loss, slope = step(np.float64(angle))
        angle -= 0.02 * np.clip(slope.item(), -1, 1)
    assert abs(angle - 0.3) < 0.03, (angle, loss.item())


@pytest.mark.parametrize("p", [2.0, 1.0, 3.0])
def test_pdist_is_pytorchs(p: float) -> None:
    _same(lambda x: F.pdist(x, p), lambda x: TF.pdist(x, p), [_normal(5, 3)], order=1)


@pytest.mark.parametrize(
    ("axes", "kernel", "how", "shape"),
    [
        (2, 2, {"output_size": (3, 2)}, (2, 3, 7, 6)),
        (2, (3, 2), {"output_ratio": (0.5, 0.7)}, (3, 8, 6)),
        (2, 2, {"output_size": 1}, (2, 3, 4, 5)),
        (3, (2, 3, 1), {"output_size": (3, 2, 4)}, (2, 3, 5, 6, 7)),
        (3, 2, {"output_ratio": 0.6}, (3, 5, 6, 7)),
    ],
)
def test_fractional_pools_are_pytorchs(axes: int, kernel: Any, how: dict[str, Any], shape: tuple[int, ...]) -> None:
    lead = (1, shape[0]) if len(shape) == axes + 1 else shape[:2]
    samples = np.random.default_rng(2).uniform(size=(*lead, axes))
    name = f"FractionalMaxPool{axes}d"
    for return_indices in (False, True):
        ours = getattr(nn, name)(kernel, **how, return_indices=return_indices, _random_samples=tg.asarray(samples))
        theirs = getattr(torch.nn, name)(
            kernel, **how, return_indices=return_indices, _random_samples=torch.tensor(samples)
        )
        if return_indices:
            x = _normal(*shape)
            for a, b in zip(ours(tg.asarray(x)), theirs(torch.tensor(x)), strict=True):
                _close(a.numpy(), b)
        else:
            _same(ours, theirs, [_normal(*shape)])


def test_fractional_pools_draw_their_windows_anew() -> None:
    pool = nn.FractionalMaxPool2d(2, output_size=5)
    x = tg.asarray(np.arange(64.0).reshape(1, 1, 8, 8))

    drawn = {pool(x).numpy().tobytes() for _ in range(20)}

    assert len(drawn) > 3
    assert repr(pool) == "FractionalMaxPool2d(kernel_size=2, output_size=5)"


@pytest.mark.parametrize("dtype", [tg.float64, tg.float32])
def test_rrelu_has_slopes_between_its_bounds(dtype: tg.DType) -> None:
    module = nn.RReLU(0.1, 0.5)
    x = np.linspace(-2, 2, 2000)
    given = tg.asarray(x, dtype=dtype).requires_grad_()

    y = module(given)
    y.sum().backward()

    slopes = y.numpy() / given.numpy()
    np.testing.assert_allclose(given.grad.numpy(), slopes, rtol=1e-6)  # type: ignore[union-attr]
    assert (slopes[x > 0] == 1).all()
    assert slopes[x < 0].min() >= 0.1
    assert slopes[x < 0].max() < 0.5 + 1e-6
    assert abs(slopes[x < 0].mean() - 0.3) < 0.02
    module.eval()
    _close(module(tg.asarray(x)).numpy(), TF.rrelu(torch.tensor(x), 0.1, 0.5))


@pytest.mark.parametrize("head_bias", [False, True])
def test_adaptive_softmax_is_pytorchs(head_bias: bool) -> None:
    rng = np.random.default_rng(0)
    ours = nn.AdaptiveLogSoftmaxWithLoss(8, 12, [3, 7], 2.0, head_bias, dtype=tg.float64)
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(8, 12, [3, 7], 2.0, head_bias).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x, target = rng.normal(size=(9, 8)), np.array([0, 2, 3, 6, 7, 11, 1, 5, 9])

    a, b = ours(tg.asarray(x), tg.asarray(target)), theirs(torch.tensor(x), torch.tensor(target))
    _close(a.output.numpy(), b.output.detach())
    a.loss.backward()
    b.loss.backward()

    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        _close(p.grad.numpy(), q.grad, name)  # type: ignore[union-attr]
    _close(ours.log_prob(tg.asarray(x)).numpy(), theirs.log_prob(torch.tensor(x)).detach())
    np.testing.assert_array_equal(ours.predict(tg.asarray(x)).numpy(), theirs.predict(torch.tensor(x)).numpy())
    alone = ours(tg.asarray(x[4]), tg.asarray(target[4]))
    assert alone.output.shape == ()
    np.testing.assert_allclose(alone.output.numpy(), a.output.numpy()[4])


@pytest.mark.parametrize(
    ("how", "shape", "target"),
    [
        ({}, (4, 3), (0, 2, 4, 1)),
        ({"bias": True, "label_smoothing": 0.1, "reduction": "sum"}, (4, 3), (0, 2, 4, 1)),
        ({"ignore_index": 2, "reduction": "none"}, (4, 3), (0, 2, 4, 1)),
        ({"out_features": (2,), "bias": True}, (2, 3), ((0, 2), (4, 1))),
        ({}, (3,), 2),
    ],
)
def test_linear_cross_entropy_is_pytorchs(how: dict[str, Any], shape: tuple[int, ...], target: Any) -> None:
    if not hasattr(torch.nn, "LinearCrossEntropyLoss"):
        pytest.skip("this PyTorch has none")
    weights = np.array([1.0, 0.5, 2.0, 1.0, 3.0])
    ours = nn.LinearCrossEntropyLoss(3, 5, weight=tg.asarray(weights), dtype=tg.float64, **how)
    theirs = torch.nn.LinearCrossEntropyLoss(3, 5, weight=torch.tensor(weights), **how).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    classes = np.array(target)

    _same(lambda x: ours(x, tg.asarray(classes)), lambda x: theirs(x, torch.tensor(classes)), [_normal(*shape)])


def test_a_way_back_to_the_parent_does_not_rename_what_is_below() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 3)))
    inner = model[0]

    inner.parent = model

    assert [v.name for v in model.parameters()] == ["0.0.weight", "0.0.bias"]


def test_buffers_that_are_not_saved() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", tg.ones(2))
            self.register_buffer("mask", tg.ones(3), persistent=False)
            self.places = nn.Buffer(tg.arange(4), persistent=False)
            self.kept = nn.Buffer(tg.arange(4))

    module = Masked()

    assert list(module.state_dict()) == ["scale", "kept"]
    assert [name for name, _ in module.named_buffers()] == ["scale", "mask", "places", "kept"]
    module.mask = tg.Variable(tg.zeros(3))
    assert list(module.state_dict()) == ["scale", "kept"], "a buffer stays what it was declared to be"
    module.load_state_dict({"scale": np.zeros(2, np.float32), "kept": np.zeros(4, np.int64)})
    assert module.scale.numpy().sum() == 0


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    x, softmax = tg.ones((2, 3, 4, 5)), nn.AdaptiveLogSoftmaxWithLoss(8, 12, [3])
    for make, words in (
        (lambda: F.grid_sample(x, tg.ones((2, 3, 3, 3))), "takes"),
        (lambda: F.grid_sample(x, tg.ones((2, 3, 3, 2)), "cubic"), "mode is"),
        (lambda: F.grid_sample(x, tg.ones((2, 3, 3, 2)), padding_mode="wrap"), "padding_mode is"),
        (lambda: F.affine_grid(tg.ones((2, 3, 4)), (2, 3, 4, 5)), "theta must be"),
        (lambda: F.affine_grid(tg.ones((2, 3, 4)), (2, 3)), "4 or 5 axes"),
        (lambda: F.pdist(x), "takes"),
        (lambda: F.rrelu(x, 0.5, 0.1), "must not be above"),
        (lambda: F.fractional_max_pool2d(x, 2), "either output_size or output_ratio"),
        (lambda: nn.FractionalMaxPool2d(2, 3, 0.5), "either output_size or output_ratio"),
        (lambda: F.fractional_max_pool2d(x, 2, 4), "do not fit"),
        (lambda: F.fractional_max_pool2d(x, 2, output_ratio=1.5), "between 0 and 1"),
        (lambda: F.fractional_max_pool3d(tg.ones((2, 3)), 2, 4), "takes an input of 5 axes"),
        (lambda: F.linear_cross_entropy(x, x, tg.zeros(3)), "takes an input of"),
        (lambda: F.linear_cross_entropy(tg.ones((2, 3)), tg.ones((5, 3)), tg.zeros(2), linear_bias=x), "bias must be"),
        (lambda: nn.LinearCrossEntropyLoss(3, 5, weight=tg.ones(3)), "weight must be"),
        (lambda: nn.AdaptiveLogSoftmaxWithLoss(8, 12, [7, 3]), "must grow"),
        (lambda: nn.AdaptiveLogSoftmaxWithLoss(8, 12, [12]), "must grow"),
        (lambda: softmax(tg.ones((2, 7)), tg.asarray([1, 2])), "takes an input of"),
        (lambda: softmax(tg.ones((2, 8)), tg.asarray([1, 12])).loss.item(), "index"),
    ):
        with pytest.raises(tg.TelegradError, match=words):
            make()
