"""One step of a recurrent network, with PyTorch's order of gates; a loop or a scan over time calls it."""

from __future__ import annotations

from telegrad.errors import GraphError
from telegrad.ir.value import V
from telegrad.ops import elementwise as e
from telegrad.ops import linalg
from telegrad.ops import shape as s


def _affine(x: V, weight: V, bias: V | None) -> V:
    out = linalg.matmul(x, s.matrix_transpose(weight))
    return out if bias is None else out + bias


def _parts(gates: V, count: int) -> list[V]:
    n = gates.shape[-1] // count
    return [gates[..., i * n : (i + 1) * n] for i in range(count)]


def rnn_cell(
    x: V, h: V, w_ih: V, w_hh: V, b_ih: V | None = None, b_hh: V | None = None, nonlinearity: str = "tanh"
) -> V:
    """f(x w_ih^T + b_ih + h w_hh^T + b_hh) (Elman 1990): x[..., in], h[..., hidden] -> [..., hidden]."""
    if nonlinearity not in ("tanh", "relu"):
        raise GraphError(f"nonlinearity is 'tanh' or 'relu', not {nonlinearity!r}")
    total = _affine(x, w_ih, b_ih) + _affine(h, w_hh, b_hh)
    return e.tanh(total) if nonlinearity == "tanh" else e.relu(total)


def lstm_cell(x: V, h: V, c: V, w_ih: V, w_hh: V, b_ih: V | None = None, b_hh: V | None = None) -> tuple[V, V]:
    """The next h and c of a long short-term memory (Gers et al. 2000); gates in the order input, forget, cell, output.

    x[..., in], h[..., hidden], c[..., hidden], w_ih[4 hidden, in], w_hh[4 hidden, hidden].
    """
    i, f, g, o = _parts(_affine(x, w_ih, b_ih) + _affine(h, w_hh, b_hh), 4)
    c = e.sigmoid(f) * c + e.sigmoid(i) * e.tanh(g)
    return e.sigmoid(o) * e.tanh(c), c


def gru_cell(x: V, h: V, w_ih: V, w_hh: V, b_ih: V | None = None, b_hh: V | None = None) -> V:
    """The next h of a gated recurrent unit (Cho et al. 2014); gates in the order reset, update, new.

    As in PyTorch the reset gate comes behind the product with w_hh: n = tanh(x_n + r * h_n).
    """
    x_r, x_z, x_n = _parts(_affine(x, w_ih, b_ih), 3)
    h_r, h_z, h_n = _parts(_affine(h, w_hh, b_hh), 3)
    r, z = e.sigmoid(x_r + h_r), e.sigmoid(x_z + h_z)
    n = e.tanh(x_n + r * h_n)
    return n + z * (h - n)


__all__: list[str] = []
"""The public face is the cells of `telegrad.nn`."""
