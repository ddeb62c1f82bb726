"""One step of a recurrent network, with PyTorch's order of gates; a loop or a scan over time calls it."""

from __future__ import annotations

from telegrad.errors import GraphError
from telegrad.ir.value import V
from telegrad.ops import elementwise as e
from telegrad.ops import linalg
from telegrad.ops import shape as s


def affine(x: V, weight: V, bias: V | None) -> V:
    """x weight^T + bias: x[..., in], weight[out, in]."""
    out = linalg.matmul(x, s.matrix_transpose(weight))
    return out if bias is None else out + bias


def _parts(gates: V, count: int) -> list[V]:
    n = gates.shape[-1] // count
    return [gates[..., i * n : (i + 1) * n] for i in range(count)]


def rnn_step(x_part: V, h_part: V, nonlinearity: str) -> V:
    """The next h of an Elman network, given what the input and the last h contribute."""
    if nonlinearity not in ("tanh", "relu"):
        raise GraphError(f"nonlinearity is 'tanh' or 'relu', not {nonlinearity!r}")
    return e.tanh(x_part + h_part) if nonlinearity == "tanh" else e.relu(x_part + h_part)


def lstm_step(gates: V, c: V) -> tuple[V, V]:
    """The next h and c of a long short-term memory, given its gates[..., 4 hidden] in the order i, f, g, o."""
    i, f, g, o = _parts(gates, 4)
    c = e.sigmoid(f) * c + e.sigmoid(i) * e.tanh(g)
    return e.sigmoid(o) * e.tanh(c), c


def gru_step(x_gates: V, h_gates: V, h: V) -> V:
    """The next h of a gated recurrent unit, given the gates[..., 3 hidden] of input and state in the order r, z, n."""
    x_r, x_z, x_n = _parts(x_gates, 3)
    h_r, h_z, h_n = _parts(h_gates, 3)
    r, z = e.sigmoid(x_r + h_r), e.sigmoid(x_z + h_z)
    n = e.tanh(x_n + r * h_n)
    return n + z * (h - n)


def rnn_cell(
    x: V, h: V, w_ih: V, w_hh: V, b_ih: V | None = None, b_hh: V | None = None, nonlinearity: str = "tanh"
) -> V:
    """f(x w_ih^T + b_ih + h w_hh^T + b_hh) (Elman 1990): x[..., in], h[..., hidden] -> [..., hidden]."""
    return rnn_step(affine(x, w_ih, b_ih), affine(h, w_hh, b_hh), nonlinearity)


def lstm_cell(x: V, h: V, c: V, w_ih: V, w_hh: V, b_ih: V | None = None, b_hh: V | None = None) -> tuple[V, V]:
    """The next h and c of a long short-term memory (Gers et al. 2000); gates in the order input, forget, cell, output.

    x[..., in], h[..., hidden], c[..., hidden], w_ih[4 hidden, in], w_hh[4 hidden, hidden].
    """
    return lstm_step(affine(x, w_ih, b_ih) + affine(h, w_hh, b_hh), c)


def gru_cell(x: V, h: V, w_ih: V, w_hh: V, b_ih: V | None = None, b_hh: V | None = None) -> V:
    """The next h of a gated recurrent unit (Cho et al. 2014); gates in the order reset, update, new.

    As in PyTorch the reset gate comes behind the product with w_hh: n = tanh(x_n + r * h_n).
    """
    return gru_step(affine(x, w_ih, b_ih), affine(h, w_hh, b_hh), h)


__all__: list[str] = []
"""The public face is the cells and layers of `telegrad.nn`."""
