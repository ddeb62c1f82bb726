"""Parameters computed from others, against PyTorch's: state keys, values, gradients, and the way back."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn, optim
from telegrad.nn import utils
from telegrad.nn.utils import parametrize

torch: Any = pytest.importorskip("torch")

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning")]
LAYERS: list[tuple[str, tuple[Any, ...], tuple[int, ...]]] = [
    ("Linear", (3, 4), (5, 3)),
    ("Conv2d", (3, 4, 2), (2, 3, 4, 5)),
    ("ConvTranspose2d", (3, 4, 2), (2, 3, 4, 5)),
]


@pytest.fixture(autouse=True)
def _session() -> Any:
    with tg.connect(backend="numpy", new=True) as session:
        yield session


def _close(a: Any, b: Any, what: str = "") -> None:
    assert a.shape == tuple(b.shape), what
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11, err_msg=what)


def _pair(name: str, args: tuple[Any, ...], apply: str, *how: Any, **named: Any) -> tuple[Any, Any]:
    """Our layer and PyTorch's under the same normalisation, with the same state."""
    ours, theirs = getattr(nn, name)(*args, dtype=tg.float64), getattr(torch.nn, name)(*args).double()
    where, function = apply.rsplit(".", 1) if "." in apply else ("", apply)
    mine = getattr(utils, where) if where else utils
    yours = getattr(torch.nn.utils, where) if where else torch.nn.utils
    ours, theirs = getattr(mine, function)(ours, *how, **named), getattr(yours, function)(theirs, *how, **named)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    return ours, theirs


def _same_step(ours: Any, theirs: Any, x: Any) -> None:
    y, z = ours(tg.asarray(x)), theirs(torch.tensor(x))
    _close(y.numpy(), z.detach().numpy(), "output")
    g = np.random.default_rng(3).normal(size=tuple(z.shape))
    (y * tg.asarray(g)).sum().backward()
    (z * torch.tensor(g)).sum().backward()
    found = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        _close(found[name].grad.numpy(), parameter.grad.numpy(), name)
    for name, value in theirs.state_dict().items():
        _close(ours.state_dict()[name], value.numpy(), name)


@pytest.mark.parametrize("dim", [0, 1, None, -1])
@pytest.mark.parametrize("apply", ["weight_norm", "parametrizations.weight_norm"])
@pytest.mark.parametrize(("name", "args", "shape"), LAYERS)
def test_weight_norm_is_pytorchs(
    name: str, args: tuple[Any, ...], shape: tuple[int, ...], apply: str, dim: int | None
) -> None:
    ours, theirs = _pair(name, args, apply, "weight", dim)

    _same_step(ours, theirs, np.random.default_rng(0).normal(size=shape))


@pytest.mark.parametrize("apply", ["spectral_norm", "parametrizations.spectral_norm"])
@pytest.mark.parametrize(("name", "args", "shape"), LAYERS)
def test_spectral_norm_is_pytorchs(name: str, args: tuple[Any, ...], shape: tuple[int, ...], apply: str) -> None:
    ours, theirs = _pair(name, args, apply, n_power_iterations=2)

    for _ in range(2):
        _same_step(ours, theirs, np.random.default_rng(0).normal(size=shape))
        ours.zero_grad()
        theirs.zero_grad()
    ours.eval()
    theirs.eval()
    _same_step(ours, theirs, np.random.default_rng(1).normal(size=shape))


def test_spectral_norm_of_a_vector_is_its_direction() -> None:
    norm = utils.parametrizations.spectral_norm(nn.LayerNorm(4, dtype=tg.float64))

    np.testing.assert_allclose(norm.weight.numpy(), np.full(4, 0.5))


@pytest.mark.parametrize("apply", [utils.spectral_norm, utils.parametrizations.spectral_norm])
def test_spectral_norm_serves_two_batches_before_one_backward(apply: Any) -> None:
    layer = apply(nn.Linear(3, 4, dtype=tg.float64))
    original = "weight_orig" if apply is utils.spectral_norm else "parametrizations.weight.original"

    first, second = layer(tg.ones((2, 3), dtype=tg.float64)), layer(tg.zeros((2, 3), dtype=tg.float64))
    first.numpy()  # sent, and its gradient wanted later
    (first.sum() - (second**2).sum()).backward()

    assert np.abs(dict(layer.named_parameters())[original].grad.numpy()).sum() > 0  # type: ignore[union-attr]


@pytest.mark.parametrize("apply", [utils.spectral_norm, utils.parametrizations.spectral_norm])
def test_spectral_norm_differentiates_in_a_transform_as_in_a_trace(apply: Any) -> None:
    layer = apply(nn.Linear(3, 4, dtype=tg.float64))
    state = layer.state_dict()
    x = tg.asarray(np.random.default_rng(0).normal(size=(2, 3)))

    def loss(x: tg.Tensor) -> tg.Tensor:
        return (layer(x) ** 2).sum() + layer(x).sum()

    found = tg.grad(loss)(x).numpy()
    layer.load_state_dict(state)
    traced = tg.function(tg.grad(loss))(x).numpy()

    np.testing.assert_allclose(found, traced, rtol=1e-12)


@pytest.mark.parametrize("apply", [utils.weight_norm, utils.parametrizations.weight_norm])
def test_a_normed_layer_learns_in_a_traced_step_as_pytorchs(apply: Any) -> None:
    name = "weight_norm" if apply is utils.weight_norm else "parametrizations.weight_norm"
    ours, theirs = _pair("Linear", (3, 4), name)
    optimizer = optim.SGD(ours.parameters(), lr=0.1)
    yours = torch.optim.SGD(theirs.parameters(), lr=0.1)
    x = np.random.default_rng(0).normal(size=(5, 3))

    @tg.function
    def step(x: tg.Tensor) -> tg.Tensor:
        loss = (ours(x) ** 2).mean()
        optimizer.minimize(loss)
        return loss

    for _ in range(3):
        found = step(x)
        yours.zero_grad()
        wanted = (theirs(torch.tensor(x)) ** 2).mean()
        wanted.backward()
        yours.step()
        _close(found.numpy(), wanted.detach().numpy())


@pytest.mark.parametrize(
    ("apply", "remove"),
    [
        (utils.weight_norm, utils.remove_weight_norm),
        (utils.spectral_norm, utils.remove_spectral_norm),
        (utils.parametrizations.weight_norm, lambda m: parametrize.remove_parametrizations(m, "weight")),
        (utils.parametrizations.spectral_norm, lambda m: parametrize.remove_parametrizations(m, "weight")),
    ],
)
def test_removing_leaves_a_parameter_with_the_value(apply: Any, remove: Any) -> None:
    layer = apply(nn.Linear(3, 4)).eval()
    before = layer.weight.numpy()

    assert remove(layer) is layer

    assert sorted(layer.state_dict()) == ["bias", "weight"]
    assert isinstance(layer.weight, nn.Parameter)
    np.testing.assert_array_equal(layer.weight.numpy(), before)
    with pytest.raises(tg.TelegradError, match=r"is not computed so|has none"):
        remove(layer)


class Symmetric(nn.Module):
    """The upper triangle, and its mirror image."""

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        return tg.triu(x) + tg.triu(x, k=1).mT


class Doubled(nn.Module):
    """Twice the original."""

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        return x * 2

    def right_inverse(self, x: tg.Tensor) -> tg.Tensor:
        return x / 2


def test_parametrizations_of_ones_own_are_applied_one_after_the_other() -> None:
    layer = nn.Linear(3, 3)
    original = layer.weight
    parametrize.register_parametrization(layer, "weight", Symmetric())
    before = layer.weight.numpy()
    np.testing.assert_array_equal(before, before.T)

    parametrize.register_parametrization(layer, "weight", Doubled())

    np.testing.assert_array_equal(layer.weight.numpy(), before)
    assert list(layer.state_dict()) == ["bias", "parametrizations.weight.original"]
    assert layer.parametrizations["weight"].original is original
    assert parametrize.is_parametrized(layer, "weight")
    assert not parametrize.is_parametrized(layer, "bias")
    copied = copy.deepcopy(layer)
    copied.parametrizations["weight"].original.assign(np.zeros((3, 3)))
    assert copied.weight.numpy().sum() == 0
    np.testing.assert_array_equal(layer.weight.numpy(), before)
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    assert layer.weight is original
    assert not parametrize.is_parametrized(layer)


def test_what_cannot_be_parametrized_is_refused_in_a_sentence() -> None:
    normed = utils.parametrizations.weight_norm(nn.Linear(3, 4))

    def assign() -> None:
        normed.weight = nn.Parameter(tg.zeros((4, 3)))

    for make, words in (
        (assign, "computed from other parameters"),
        (lambda: parametrize.register_parametrization(nn.ReLU(), "weight", Doubled()), "no parameter 'weight'"),
        (lambda: parametrize.register_parametrization(nn.Linear(2, 3), "weight", nn.Flatten(0)), "in place of"),
        (lambda: parametrize.remove_parametrizations(normed, "weight", leave_parametrized=False), "several originals"),
        (lambda: utils.weight_norm(nn.Linear(3, 4, bias=False), "bias"), "no parameter 'bias'"),
        (lambda: utils.weight_norm(nn.Linear(3, 4), dim=2), "out of range"),
        (lambda: utils.spectral_norm(nn.Linear(3, 4), n_power_iterations=0), "must be positive"),
        (lambda: utils.parametrizations.spectral_norm(nn.Linear(3, 4), dim=5), "out of range"),
    ):
        with pytest.raises(tg.TelegradError, match=words):
            make()


# ---- the rest of nn.utils


def test_parameters_become_a_vector_and_come_back() -> None:
    ours, theirs = nn.Linear(3, 4), torch.nn.Linear(3, 4)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})

    vector = utils.parameters_to_vector(ours.parameters())
    _close(vector.numpy(), torch.nn.utils.parameters_to_vector(theirs.parameters()).detach().numpy())
    utils.vector_to_parameters(vector * 2, ours.parameters())

    _close(ours.weight.numpy(), 2 * theirs.weight.detach().numpy())
    with pytest.raises(tg.TelegradError, match="have 16 elements"):
        utils.vector_to_parameters(tg.ones(3), ours.parameters())


def test_a_norm_is_fused_into_the_layer_before_it() -> None:
    rng = np.random.default_rng(0)
    for layer, shape, fuse in (
        (nn.Conv2d(3, 4, 2, groups=1, dtype=tg.float64), (2, 3, 4, 5), utils.fuse_conv_bn_eval),
        (nn.Conv2d(4, 4, 2, groups=2, bias=False, dtype=tg.float64), (2, 4, 4, 5), utils.fuse_conv_bn_eval),
        (
            nn.ConvTranspose2d(3, 4, 2, dtype=tg.float64), (2, 3, 4, 5),
            lambda conv, bn: utils.fuse_conv_bn_eval(conv, bn, transpose=True),
        ),
        (nn.Linear(3, 4, dtype=tg.float64), (5, 3), utils.fuse_linear_bn_eval),
    ):  # fmt: skip
        norm: Any = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(4, dtype=tg.float64)
        for variable in (norm.weight, norm.bias, norm.running_mean):
            variable.assign(rng.normal(size=4))
        norm.running_var.assign(rng.uniform(0.5, 2.0, size=4))
        x = tg.asarray(rng.normal(size=shape))
        with pytest.raises(tg.TelegradError, match="eval"):
            fuse(layer, norm)
        layer.eval()
        norm.eval()

        fused = fuse(layer, norm)

        _close(fused(x).numpy(), norm(layer(x)).numpy())


def test_a_norm_of_several_models_is_clipped_as_one() -> None:
    ours, theirs = nn.Linear(3, 4), torch.nn.Linear(3, 4)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    (ours(tg.ones((2, 3))) ** 2).sum().backward()
    (theirs(torch.ones(2, 3)) ** 2).sum().backward()
    for norm_type in (2.0, 3.0, float("inf")):
        found = utils.get_total_norm([p.grad for p in ours.parameters() if p.grad is not None], norm_type)
        wanted = torch.nn.utils.get_total_norm([p.grad for p in theirs.parameters()], norm_type)
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-5)

    utils.clip_grads_with_norm_(ours.parameters(), 0.5, found)
    torch.nn.utils.clip_grads_with_norm_(theirs.parameters(), 0.5, wanted)

    np.testing.assert_allclose(ours.weight.grad.numpy(), theirs.weight.grad.numpy(), rtol=1e-5)  # type: ignore[union-attr]
    assert utils.get_total_norm([]).item() == 0
