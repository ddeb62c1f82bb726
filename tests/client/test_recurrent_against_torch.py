"""RNN, LSTM, GRU over whole sequences, and CTC, against PyTorch: results, gradients, state keys, lengths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn, optim
from telegrad.errors import GraphError, ShapeError

torch: Any = pytest.importorskip("torch")

pytestmark = pytest.mark.torch
F = nn.functional
Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def _session() -> Iterator[None]:
    with tg.connect(backend="numpy", new=True):
        yield


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def pair(name: str, *args: Any, **how: Any) -> tuple[Any, Any]:
    ours, theirs = getattr(nn, name)(*args, **how, dtype=tg.float64), getattr(torch.nn, name)(*args, **how).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    return ours, theirs


def flat(result: Any) -> list[Any]:
    if isinstance(result, tuple):
        return [x for each in result for x in flat(each)]
    return [result]


def close(a: Any, b: Any, what: str = "") -> None:
    assert a.shape == tuple(b.shape), what
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11, err_msg=what)


def compare(ours: Any, theirs: Any, arrays: list[Array], call: Any = None) -> None:
    """Results, and gradients of parameters and operands by random cotangents."""
    call = call or (lambda module, x, *states: module(x, *states))
    a, b = [tg.asarray(x) for x in arrays], [torch.tensor(x, requires_grad=True) for x in arrays]
    for x in a:
        x.requires_grad = True
    mine, yours = flat(call(ours, *a)), flat(call(theirs, *b))
    rng = np.random.default_rng(1)
    seeds = [rng.normal(size=tuple(y.shape)) for y in yours]
    for x, y in zip(mine, yours, strict=True):
        close(x.numpy(), y.detach().numpy(), "result")
    sum((x * tg.asarray(s)).sum() for x, s in zip(mine, seeds, strict=True)).backward()  # type: ignore[union-attr]
    sum((y * torch.tensor(s)).sum() for y, s in zip(yours, seeds, strict=True)).backward()
    for x, y in zip(a, b, strict=True):
        assert x.grad is not None
        close(x.grad.numpy(), y.grad.numpy(), "operand")
    found = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        close(found[name].grad.numpy(), parameter.grad.numpy(), name)


def lstm(module: Any, x: Any, *states: Any) -> Any:
    return module(x, states) if states else module(x)


HOW: list[dict[str, Any]] = [
    {},
    {"num_layers": 3},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False},
    {"batch_first": True, "num_layers": 2},
]


@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_a_layer_is_pytorchs(name: str, how: dict[str, Any]) -> None:
    ours, theirs = pair(name, 3, 4, **how)
    layers = how.get("num_layers", 1) * (2 if how.get("bidirectional") else 1)
    x, h, c = normal(5, 2, 3), normal(layers, 5 if how.get("batch_first") else 2, 4, seed=1), None
    c = normal(*h.shape, seed=2)

    compare(ours, theirs, [x], lstm if name == "LSTM" else None)
    ours.zero_grad()
    theirs.zero_grad()
    compare(ours, theirs, [x, h, c] if name == "LSTM" else [x, h], lstm if name == "LSTM" else None)


@pytest.mark.parametrize("how", [{"proj_size": 2}, {"proj_size": 2, "num_layers": 2, "bidirectional": True}], ids=str)
def test_an_lstm_with_projections_is_pytorchs(how: dict[str, Any]) -> None:
    ours, theirs = pair("LSTM", 3, 4, **how)
    layers = how.get("num_layers", 1) * (2 if how.get("bidirectional") else 1)

    compare(ours, theirs, [normal(5, 2, 3), normal(layers, 2, 2), normal(layers, 2, 4)], lstm)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_an_input_without_a_batch_axis(name: str) -> None:
    ours, theirs = pair(name, 3, 4, num_layers=2, bidirectional=True)

    compare(ours, theirs, [normal(5, 3)])


def test_relu() -> None:
    ours, theirs = pair("RNN", 3, 4, 2, "relu")

    compare(ours, theirs, [normal(5, 2, 3)])


@pytest.mark.parametrize("how", [{"num_layers": 2, "bidirectional": True}, {"batch_first": True}], ids=str)
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_sequences_of_different_lengths_are_pytorchs(name: str, how: dict[str, Any]) -> None:
    ours, theirs = pair(name, 3, 4, **how)
    first = how.get("batch_first", False)
    x = normal(4, 6, 3) if first else normal(6, 4, 3)
    lengths = np.array([2, 6, 1, 4])

    def run(module: Any, x: Any) -> Any:
        utils = nn.utils.rnn if module is ours else torch.nn.utils.rnn
        counts = tg.asarray(lengths) if module is ours else torch.tensor(lengths)
        packed = utils.pack_padded_sequence(x, counts, batch_first=first, enforce_sorted=False)
        out, states = module(packed)
        padded, again = utils.pad_packed_sequence(out, batch_first=first, padding_value=0.5)
        assert again.tolist() == lengths.tolist()
        return padded, states

    compare(ours, theirs, [x], run)


def test_sequences_are_padded_as_in_pytorch() -> None:
    arrays = [normal(n, 2, seed=n) for n in (3, 1, 4)]
    for how in ({}, {"batch_first": True}, {"padding_value": -1.0}, {"padding_side": "left"}):
        ours = nn.utils.rnn.pad_sequence([tg.asarray(a) for a in arrays], **how)  # type: ignore[arg-type]
        theirs = torch.nn.utils.rnn.pad_sequence([torch.tensor(a) for a in arrays], **how)
        close(ours.numpy(), theirs.numpy())


def test_dropout_between_layers_in_training_alone() -> None:
    layer = nn.LSTM(3, 64, num_layers=2, dropout=0.5)
    x = tg.asarray(normal(5, 2, 3).astype(np.float32))

    a, b = layer(x)[0].numpy(), layer(x)[0].numpy()
    layer.eval()
    c, d = layer(x)[0].numpy(), layer(x)[0].numpy()

    assert not np.array_equal(a, b)
    np.testing.assert_array_equal(c, d)


def test_initial_values_shapes_and_repr_are_pytorchs() -> None:
    for name in ("RNN", "LSTM", "GRU"):
        ours, theirs = getattr(nn, name)(30, 64, 2, bidirectional=True), getattr(torch.nn, name)(30, 64, 2)
        assert all(0.9 / 8 < np.abs(p.numpy()).max() <= 1 / 8 for p in ours.parameters())
        assert str(getattr(nn, name)(30, 64, 2)) == str(theirs)


@pytest.mark.slow
def test_fifty_steps_of_training_follow_pytorchs() -> None:
    ours, theirs = pair("LSTM", 3, 8, num_layers=2)
    optimizer, other = optim.Adam(ours.parameters(), lr=1e-2), torch.optim.Adam(theirs.parameters(), lr=1e-2)
    x = normal(7, 4, 3)

    @tg.function
    def step(x: tg.Tensor) -> tg.Tensor:
        out, _ = ours(x)
        loss = ((out - 0.3) ** 2).mean()
        optimizer.minimize(loss)
        return loss

    for _ in range(50):
        loss = step(tg.asarray(x))
        other.zero_grad()
        wanted = ((theirs(torch.tensor(x))[0] - 0.3) ** 2).mean()
        wanted.backward()
        other.step()

    np.testing.assert_allclose(loss.item(), wanted.item(), rtol=1e-9)


def test_what_a_layer_refuses() -> None:
    layer = nn.LSTM(3, 4)
    with pytest.raises(ShapeError, match=r"takes an input of \[time, batch, 3\] or \[time, 3\], not float32\[5\]"):
        layer(tg.zeros((5,)))
    with pytest.raises(ShapeError, match=r"the state must have the shape \[1, 2, 4\], not \[2, 4\]"):
        layer(tg.zeros((5, 2, 3)), (tg.zeros((2, 4)), tg.zeros((2, 4))))
    with pytest.raises(GraphError, match="a pair"):
        layer(tg.zeros((5, 2, 3)), tg.zeros((2, 4)))
    with pytest.raises(ShapeError, match="proj_size 9 must be below"):
        nn.LSTM(3, 4, proj_size=9)


# ---- CTC

TARGETS = np.array([[1, 2, 2, 3], [3, 1, 0, 0], [2, 0, 0, 0], [4, 4, 4, 1]])
INPUTS, COUNTS = [8, 5, 3, 6], [4, 2, 0, 4]


def ctc(logits: Array, targets: Array, inputs: Any, counts: Any, **how: Any) -> None:
    def mine(x: tg.Tensor) -> tg.Tensor:
        return F.ctc_loss(F.log_softmax(x, dim=-1), tg.asarray(targets), inputs, counts, **how)

    t = torch.tensor(logits, requires_grad=True)
    wanted = torch.nn.functional.ctc_loss(
        t.log_softmax(-1), torch.tensor(targets), torch.tensor(inputs), torch.tensor(counts), **how
    )
    close(mine(tg.asarray(logits)).numpy(), wanted.detach().numpy())
    (wanted_gradient,) = torch.autograd.grad(wanted.sum(), t)
    gradient = tg.grad(lambda x: mine(x).sum())(tg.asarray(logits))
    close(gradient.numpy(), wanted_gradient.numpy(), "gradient")


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_ctc_is_pytorchs(reduction: str) -> None:
    ctc(normal(8, 4, 6), TARGETS, INPUTS, COUNTS, reduction=reduction)
    ctc(normal(8, 4, 6), TARGETS - 0, [8] * 4, [4, 3, 1, 2], reduction=reduction, blank=5)


def test_ctc_of_targets_in_one_axis_and_of_one_sequence() -> None:
    joined = np.concatenate([row[:n] for row, n in zip(TARGETS, COUNTS, strict=True)])

    ctc(normal(8, 4, 6), joined, INPUTS, COUNTS)
    ctc(normal(8, 4, 6), joined, np.array(INPUTS), np.array(COUNTS))
    ctc(normal(8, 6), TARGETS[0], 8, 4, reduction="none")
    ctc(normal(1, 1, 3), np.array([[1]]), [1], [1])


def test_a_target_that_cannot_be_aligned() -> None:
    logits, how = normal(4, 2, 6), {"reduction": "none"}
    ctc(logits, TARGETS[:2], [4, 4], [4, 2], zero_infinity=True, **how)

    losses = F.ctc_loss(F.log_softmax(tg.asarray(logits), dim=-1), tg.asarray(TARGETS[:2]), [4, 4], [4, 2], **how)

    assert np.isinf(losses.numpy()).tolist() == [True, False]  # 1 2 2 3 takes five steps


def test_ctc_module_and_refusals() -> None:
    log_probs = F.log_softmax(tg.asarray(normal(8, 4, 6)), dim=-1)
    targets = tg.asarray(TARGETS)

    assert nn.CTCLoss(reduction="sum")(log_probs, targets, INPUTS, COUNTS).shape == ()
    with pytest.raises(ShapeError, match="input_lengths"):
        nn.CTCLoss()(log_probs, targets, [8], COUNTS)
    with pytest.raises(GraphError, match="blank 6 is no class of 6"):
        nn.CTCLoss(blank=6)(log_probs, targets, INPUTS, COUNTS)
