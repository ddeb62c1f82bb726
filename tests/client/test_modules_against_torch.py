"""Modules against PyTorch's of the same name: state keys, initial values, outputs, gradients, running statistics."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn

torch: Any = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:Using padding='same'", "ignore:enable_nested_tensor"),
]

CONVOLUTIONS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1}, (2, 4, 9)),
    ("Conv1d", (4, 6, 3), {"padding": "same", "dilation": 2, "groups": 2, "bias": False}, (2, 4, 9)),
    ("Conv2d", (3, 4, (3, 2)), {"padding": (2, 1), "padding_mode": "circular"}, (2, 3, 6, 5)),
    ("Conv2d", (3, 4, 3), {"padding": 1, "padding_mode": "reflect", "stride": 2}, (2, 3, 6, 5)),
    ("Conv2d", (3, 4, 4), {"padding": "same", "padding_mode": "replicate"}, (2, 3, 6, 5)),
    ("Conv2d", (4, 4, 3), {"groups": 4}, (4, 6, 5)),
    ("Conv3d", (2, 3, 2), {"padding": 1, "dilation": (1, 2, 1)}, (2, 2, 4, 5, 3)),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}, (2, 4, 5)),
    ("ConvTranspose2d", (3, 4, (3, 2)), {"stride": (1, 3), "dilation": (2, 1)}, (2, 3, 4, 5)),
    ("ConvTranspose3d", (2, 3, 2), {"stride": 2, "bias": False}, (2, 2, 3, 2, 3)),
]
NORMS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("BatchNorm1d", (4,), {}, (5, 4)),
    ("BatchNorm1d", (4,), {"momentum": None}, (5, 4, 3)),
    ("BatchNorm2d", (4,), {"momentum": 0.3, "eps": 1e-3}, (3, 4, 2, 3)),
    ("BatchNorm2d", (4,), {"track_running_stats": False}, (3, 4, 2, 3)),
    ("BatchNorm3d", (4,), {"affine": False}, (3, 4, 2, 3, 2)),
    ("InstanceNorm1d", (4,), {}, (3, 4, 5)),
    ("InstanceNorm2d", (4,), {"affine": True, "track_running_stats": True}, (3, 4, 5, 2)),
    ("InstanceNorm2d", (4,), {"affine": True}, (4, 5, 2)),
    ("InstanceNorm3d", (4,), {"affine": True}, (3, 4, 2, 2, 3)),
    ("GroupNorm", (2, 4), {}, (3, 4, 5)),
    ("GroupNorm", (4, 4), {"affine": False}, (3, 4, 2, 2)),
]
POOLS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("MaxPool1d", (3,), {"stride": 2, "padding": 1}, (2, 3, 8)),
    ("MaxPool2d", ((3, 2),), {"ceil_mode": True}, (2, 3, 8, 7)),
    ("MaxPool3d", (2,), {"dilation": 2, "stride": 1}, (2, 3, 5, 4, 6)),
    ("AvgPool1d", (3,), {"padding": 1, "count_include_pad": False}, (2, 3, 8)),
    ("AvgPool2d", ((3, 2),), {"stride": 2, "ceil_mode": True}, (2, 3, 8, 7)),
    ("AvgPool3d", (2,), {"divisor_override": 3}, (2, 3, 5, 4, 6)),
    ("AdaptiveAvgPool1d", (5,), {}, (2, 3, 8)),
    ("AdaptiveAvgPool2d", ((None, 3),), {}, (2, 3, 8, 7)),
    ("AdaptiveAvgPool3d", ((1, 2, 4),), {}, (2, 3, 5, 4, 6)),
    ("AdaptiveMaxPool1d", (5,), {}, (2, 3, 8)),
    ("AdaptiveMaxPool2d", ((4, 3),), {}, (2, 3, 8, 7)),
    ("AdaptiveMaxPool3d", ((1, 2, 4),), {}, (2, 3, 5, 4, 6)),
]


@pytest.fixture(autouse=True)
def _session() -> Any:
    with tg.connect(backend="numpy", new=True) as session:
        yield session


def _compare(ours: nn.Module, theirs: Any, x: np.ndarray[Any, Any], check: Callable[..., None]) -> None:
    rng = np.random.default_rng(1)
    a, b = tg.asarray(x).requires_grad_(), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(b)
    check(y.numpy(), z.detach().numpy(), "output")
    g = rng.normal(size=tuple(z.shape))
    (y * tg.asarray(g)).sum().backward()
    (z * torch.tensor(g)).sum().backward()
    check(a.grad.numpy(), b.grad.numpy(), "input")  # type: ignore[union-attr]
    found = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        check(found[name].grad.numpy(), parameter.grad.numpy(), name)  # type: ignore[union-attr]
    state = ours.state_dict()
    for name, value in theirs.state_dict().items():
        check(state[name], value.numpy(), name)


def _close(a: Any, b: Any, what: str) -> None:
    assert a.shape == b.shape, what
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11, err_msg=what)


@pytest.mark.parametrize(("name", "args", "how", "shape"), CONVOLUTIONS + NORMS + POOLS)
def test_a_module_does_what_pytorchs_does(
    name: str, args: tuple[Any, ...], how: dict[str, Any], shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    takes_dtype = "Pool" not in name
    ours = getattr(nn, name)(*args, **how, **({"dtype": tg.float64} if takes_dtype else {}))
    theirs = getattr(torch.nn, name)(*args, **how).double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.tensor(rng.normal(size=tuple(parameter.shape))))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    for _ in range(2):
        _compare(ours, theirs, rng.normal(size=shape), _close)
        ours.zero_grad()
        theirs.zero_grad()
    ours.eval()
    theirs.eval()
    _compare(ours, theirs, rng.normal(size=shape), _close)


@pytest.mark.parametrize(("name", "args", "how", "shape"), CONVOLUTIONS)
def test_initial_values_are_drawn_as_pytorch_does(
    name: str, args: tuple[Any, ...], how: dict[str, Any], shape: tuple[int, ...]
) -> None:
    ours, theirs = getattr(nn, name)(*args, **how), getattr(torch.nn, name)(*args, **how)
    bound = 1 / np.sqrt(np.prod(theirs.weight.shape[1:]))
    for parameter in ours.parameters():
        values = parameter.numpy()
        assert values.dtype == np.float32
        assert np.abs(values).max() <= bound
        assert np.abs(values).max() > bound * (0.8 if values.size > 16 else 0.2)


def test_batch_norm_learns_and_moves_inside_a_traced_step() -> None:
    norm = nn.BatchNorm1d(3, dtype=tg.float64)
    theirs = torch.nn.BatchNorm1d(3).double()

    @tg.function
    def step(x: tg.Tensor) -> tg.Tensor:
        return norm(x)

    rng = np.random.default_rng(0)
    for mode in (True, True, False, True):
        norm.train(mode)
        theirs.train(mode)
        x = rng.normal(size=(4, 3))
        _close(step(tg.asarray(x)).numpy(), theirs(torch.tensor(x)).detach().numpy(), "output")
    for name, value in theirs.state_dict().items():
        _close(norm.state_dict()[name], value.numpy(), name)


# ---- torchvision's perceptron, which is no part of PyTorch

PERCEPTRONS: list[tuple[list[int], str | None, str | None, dict[str, Any]]] = [
    ([6, 5, 2], None, "ReLU", {}),
    ([6, 5, 2], "BatchNorm1d", "GELU", {"bias": False}),
    ([6, 2], "LayerNorm", None, {}),
    ([2], "LayerNorm", "ReLU", {}),
]


def perceptron(hidden: list[int], norm: str | None, act: str | None, how: dict[str, Any]) -> Any:
    """torchvision 0.29's `ops.MLP(3, hidden, ...)`: norm and activation behind all linear layers but the last."""
    layers: list[Any] = []
    for i, width in enumerate(hidden):
        layers.append(torch.nn.Linear([3, *hidden][i], width, **how))
        if i < len(hidden) - 1:
            layers += [getattr(torch.nn, norm)(width)] if norm else []
            layers += [getattr(torch.nn, act)()] if act else []
        layers.append(torch.nn.Dropout(0.0))
    return torch.nn.Sequential(*layers).double()


@pytest.mark.parametrize(("hidden", "norm", "act", "how"), PERCEPTRONS)
def test_a_perceptron_is_torchvisions(
    hidden: list[int], norm: str | None, act: str | None, how: dict[str, Any]
) -> None:
    ours = nn.MLP(
        3,
        hidden,
        None if norm is None else partial(getattr(nn, norm), dtype=tg.float64),
        None if act is None else getattr(nn, act),
        **how,
        dtype=tg.float64,
    )
    theirs = perceptron(hidden, norm, act, how)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [type(layer).__name__ for layer in ours] == [type(layer).__name__ for layer in theirs]
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})

    for mode in (True, False):
        ours.train(mode).zero_grad()
        theirs.train(mode).zero_grad()
        _compare(ours, theirs, np.random.default_rng(0).normal(size=(7, 3)), _close)


def test_a_perceptron_drops_behind_every_layer_while_it_trains() -> None:
    model = nn.MLP(3, [50, 40], activation_layer=None, dropout=0.5)
    x = tg.ones((20, 3))

    is_zero = model(x).numpy() == 0

    assert [layer.p for layer in model if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    assert 0.4 < is_zero.mean() < 0.6
    assert (model.eval()(x).numpy() != 0).all()


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    x = tg.ones((2, 3, 5, 5))
    for make, words in (
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "divisible into 2 groups"),
        (lambda: nn.Conv2d(4, 4, 3)(x), "channels"),
        (lambda: nn.Conv2d(3, 4, 7)(x), "larger than the 5 padded elements"),
        (lambda: nn.Conv2d(3, 4, 3, padding="same", stride=2)(x), "stride of 1"),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="mirror"), "padding_mode"),
        (lambda: nn.Conv1d(3, 4, 3)(x), "takes an input of 3 axes"),
        (lambda: nn.ConvTranspose2d(3, 4, 3, output_padding=1)(x), "output_padding"),
        (lambda: nn.MaxPool2d(2, padding=2)(x), "at most half"),
        (lambda: nn.BatchNorm1d(3)(x), "2 or 3 axes"),
        (lambda: nn.BatchNorm2d(4)(x), "has 3 channels, the module is for 4"),
        (lambda: nn.BatchNorm1d(3)(tg.ones((1, 3))), "no variance"),
        (lambda: nn.GroupNorm(2, 3), "divisible into 2 groups"),
        (lambda: nn.functional.pad(x, (6, 0), mode="circular"), "from 0 to 5"),
        (lambda: nn.functional.pad(x, (1, 0), mode="edge"), "not one of"),
        (lambda: nn.functional.batch_norm(x, None, None), "are needed"),
        (lambda: nn.MLP(3, []), "one width at least"),
    ):
        with pytest.raises(tg.TelegradError, match=words):
            make()


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("widths", [(1, 2), (0, 3, 2, 1), (2, 2, 1, 0, 1, 1)])
def test_pad_is_pytorchs(mode: str, widths: tuple[int, ...]) -> None:
    shape = (2, 3, 4, 5, 4)[: 2 + len(widths) // 2] if mode != "constant" else (3, 4, 5, 4)
    x = np.random.default_rng(0).normal(size=shape)
    a, b = tg.asarray(x).requires_grad_(), torch.tensor(x, requires_grad=True)
    y, z = nn.functional.pad(a, widths, mode=mode), torch.nn.functional.pad(b, widths, mode=mode)
    _close(y.numpy(), z.detach().numpy(), mode)
    (y**2).sum().backward()
    (z**2).sum().backward()
    _close(a.grad.numpy(), b.grad.numpy(), mode)  # type: ignore[union-attr]


def test_a_negative_pad_cuts_off() -> None:
    x = np.arange(20.0).reshape(4, 5)
    found = nn.functional.pad(tg.asarray(x), (-1, 2, 0, -2), value=7.0).numpy()
    _close(found, torch.nn.functional.pad(torch.tensor(x), (-1, 2, 0, -2), value=7.0).numpy(), "cut")


ATTENTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"batch_first": True}, {"need_weights": False}),
    ({"bias": False}, {"average_attn_weights": False}),
    ({"kdim": 5, "vdim": 7}, {}),
    ({"add_bias_kv": True, "add_zero_attn": True}, {}),
    ({"add_zero_attn": True}, {"need_weights": False}),
]


def _same_state(ours: nn.Module, theirs: Any) -> None:
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.tensor(rng.normal(size=tuple(parameter.shape)) / 2))
    assert set(ours.state_dict()) == set(theirs.state_dict())
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})


def _same_gradients(ours: nn.Module, theirs: Any, y: tg.Tensor, z: Any) -> None:
    _close(y.numpy(), z.detach().numpy(), "output")
    g = np.random.default_rng(3).normal(size=tuple(z.shape))
    (y * tg.asarray(g)).sum().backward()
    (z * torch.tensor(g)).sum().backward()
    found = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(found[name].grad.numpy(), parameter.grad.numpy(), 1e-8, 1e-10, err_msg=name)  # type: ignore[union-attr]


@pytest.mark.parametrize("masks", ["none", "padding", "both", "heads"])
@pytest.mark.parametrize(("how", "call"), ATTENTIONS)
def test_multihead_attention_is_pytorchs(how: dict[str, Any], call: dict[str, Any], masks: str) -> None:
    rng = np.random.default_rng(0)
    ours = nn.MultiheadAttention(6, 2, dtype=tg.float64, **how)
    theirs = torch.nn.MultiheadAttention(6, 2, **how).double()
    _same_state(ours, theirs)
    batch, rows, columns = 3, 4, 5
    shapes = [(rows, batch, 6), (columns, batch, how.get("kdim", 6)), (columns, batch, how.get("vdim", 6))]
    if how.get("batch_first"):
        shapes = [(b, n, e) for n, b, e in shapes]
    arrays = [rng.normal(size=shape) for shape in shapes]
    given: dict[str, Any] = {}
    if masks in ("padding", "both"):
        given["key_padding_mask"] = np.arange(columns) >= np.array([[5], [3], [4]])
    if masks == "both":
        given["attn_mask"] = np.triu(np.ones((rows, columns), bool), 1)
    if masks == "heads":
        given["attn_mask"] = rng.normal(size=(batch * 2, rows, columns))
    y, a = ours(*map(tg.asarray, arrays), **{k: tg.asarray(v) for k, v in given.items()}, **call)
    z, b = theirs(*map(torch.tensor, arrays), **{k: torch.tensor(v) for k, v in given.items()}, **call)
    assert (a is None) == (b is None)
    if a is not None:
        _close(a.numpy(), b.detach().numpy(), "weights")
    _same_gradients(ours, theirs, y, z)


def test_attention_without_a_batch_and_to_itself() -> None:
    ours, theirs = nn.MultiheadAttention(6, 3, dtype=tg.float64), torch.nn.MultiheadAttention(6, 3).double()
    _same_state(ours, theirs)
    x = np.random.default_rng(0).normal(size=(4, 6))
    a, b = tg.asarray(x), torch.tensor(x)
    _same_gradients(ours, theirs, ours(a, a, a)[0], theirs(b, b, b)[0])


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_transformer_is_pytorchs(norm_first: bool, activation: str) -> None:
    rng = np.random.default_rng(0)
    how: dict[str, Any] = {"dropout": 0.0, "activation": activation, "norm_first": norm_first, "batch_first": True}
    ours = nn.Transformer(6, 2, 2, 2, 8, **how, dtype=tg.float64)
    theirs = torch.nn.Transformer(6, 2, 2, 2, 8, **how).double()
    _same_state(ours, theirs)
    src, tgt = rng.normal(size=(3, 5, 6)), rng.normal(size=(3, 4, 6))
    mask = np.triu(np.full((4, 4), -np.inf), 1)
    _close(nn.Transformer.generate_square_subsequent_mask(4, tg.float64).numpy(), mask, "mask")
    padding = np.arange(5) >= np.array([[5], [3], [4]])
    y = ours(
        tg.asarray(src), tg.asarray(tgt), tgt_mask=tg.asarray(mask), src_key_padding_mask=tg.asarray(padding),
        memory_key_padding_mask=tg.asarray(padding),
    )  # fmt: skip
    z = theirs(
        torch.tensor(src), torch.tensor(tgt), tgt_mask=torch.tensor(mask),
        src_key_padding_mask=torch.tensor(np.where(padding, -np.inf, 0.0)),
        memory_key_padding_mask=torch.tensor(np.where(padding, -np.inf, 0.0)),
    )  # fmt: skip
    _same_gradients(ours, theirs, y, z)


def test_the_layers_of_a_stack_are_copies() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.5), 2)
    first, second = (layer.linear1.weight for layer in encoder.layers)
    assert first is not second
    np.testing.assert_array_equal(first.numpy(), second.numpy())
    x = tg.ones((3, 2, 4))
    assert not np.array_equal(encoder(x).numpy(), encoder(x).numpy())
    encoder.eval()
    np.testing.assert_array_equal(encoder(x).numpy(), encoder(x).numpy())


def _signs(rng: np.random.Generator) -> Any:
    return rng.integers(0, 2, 4) * 2 - 1


def _normal(rng: np.random.Generator) -> Any:
    return rng.normal(size=(4, 3))


def _positive(rng: np.random.Generator) -> Any:
    return rng.uniform(0.1, 0.9, size=(4, 3))


LOSSES: list[tuple[str, dict[str, Any], tuple[Callable[[np.random.Generator], Any], ...]]] = [
    ("MSELoss", {}, (_normal, _normal)),
    ("L1Loss", {"reduction": "sum"}, (_normal, _normal)),
    ("SmoothL1Loss", {"beta": 0.5}, (_normal, _normal)),
    ("HuberLoss", {"delta": 0.5}, (_normal, _normal)),
    ("KLDivLoss", {"reduction": "batchmean"}, (_normal, _positive)),
    ("BCELoss", {}, (_positive, _positive)),
    ("BCEWithLogitsLoss", {}, (_normal, _positive)),
    ("CrossEntropyLoss", {"label_smoothing": 0.1}, (_normal, lambda rng: rng.integers(0, 3, 4))),
    ("NLLLoss", {}, (_normal, lambda rng: rng.integers(0, 3, 4))),
    ("PoissonNLLLoss", {"full": True}, (_normal, _positive)),
    ("GaussianNLLLoss", {}, (_normal, _normal, _positive)),
    ("SoftMarginLoss", {}, (lambda rng: rng.normal(size=4), _signs)),
    ("MultiLabelSoftMarginLoss", {}, (_normal, _positive)),
    ("MultiMarginLoss", {"p": 2, "margin": 0.5}, (_normal, lambda rng: rng.integers(0, 3, 4))),
    ("MultiLabelMarginLoss", {}, (_normal, lambda rng: np.array([[0, -1, 2], [2, 1, 0], [-1, 0, 0], [1, 0, -1]]))),
    ("HingeEmbeddingLoss", {"margin": 0.5}, (lambda rng: rng.normal(size=4), _signs)),
    ("MarginRankingLoss", {"margin": 0.5}, (lambda rng: rng.normal(size=4), lambda rng: rng.normal(size=4), _signs)),
    ("CosineEmbeddingLoss", {"margin": 0.1}, (_normal, _normal, _signs)),
    ("TripletMarginLoss", {"swap": True, "p": 1.0}, (_normal, _normal, _normal)),
    ("TripletMarginWithDistanceLoss", {"margin": 2.0}, (_normal, _normal, _normal)),
]


@pytest.mark.parametrize(("name", "how", "makes"), LOSSES)
def test_a_loss_is_pytorchs(name: str, how: dict[str, Any], makes: tuple[Callable[..., Any], ...]) -> None:
    rng = np.random.default_rng(0)
    arrays = [make(rng) for make in makes]
    found = getattr(nn, name)(**how)(*map(tg.asarray, arrays))
    wanted = getattr(torch.nn, name)(**how)(*map(torch.tensor, arrays))
    _close(found.numpy(), wanted.numpy(), name)


ACTIVATIONS: list[tuple[str, tuple[Any, ...]]] = [
    *((name, ()) for name in (
        "CELU", "ELU", "GELU", "GLU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "LogSigmoid",
        "Mish", "PReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softshrink", "Softsign", "Tanh",
        "Tanhshrink",
    )),
    ("CELU", (2.0,)), ("Hardshrink", (1.0,)), ("Softshrink", (0.1,)), ("Threshold", (0.3, 7.0)), ("Softmin", (0,)),
    ("Softmax", (1,)), ("LogSoftmax", (0,)), ("GLU", (0,)), ("PReLU", (6, 0.125)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args"), ACTIVATIONS)
def test_an_activation_is_pytorchs(name: str, args: tuple[Any, ...]) -> None:
    x = np.random.default_rng(0).normal(size=(4, 6))
    wanted = getattr(torch.nn, name)(*args).double()(torch.tensor(x)).detach().numpy()
    ours = getattr(nn, name)(*args, **({"dtype": tg.float64} if name == "PReLU" else {}))
    _close(ours(tg.asarray(x)).numpy(), wanted, name)
    assert repr(ours).startswith(f"{name}(")
