"""The models of telegrad and of PyTorch, written once: modules and functions have the same names in both.

``nn`` and ``F`` are either library's; ``arange`` counts on its device. A model maps a batch to scores, [..., classes].
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from bench.shootout.lines import Line


def module(line: Line, nn: Any, F: Any, arange: Callable[[int], Any]) -> Any:
    """The model of a line, with weights of its library's choice."""
    return _MODELS[line.kind](line.sizes, nn, F, arange)


def loss(scores: Any, y: Any, F: Any) -> Any:
    """The mean cross-entropy."""
    return F.cross_entropy(scores.reshape(-1, scores.shape[-1]), y.reshape(-1))


def _mlp(sizes: tuple[int, ...], nn: Any, F: Any, _: Callable[[int], Any]) -> Any:
    class MLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(sizes)])

        def forward(self, x: Any) -> Any:
            for layer in self.layers[:-1]:
                x = F.relu(layer(x))
            return self.layers[-1](x)

    return MLP()


def _cnn(sizes: tuple[int, ...], nn: Any, F: Any, _: Callable[[int], Any]) -> Any:
    side, *channels, classes = sizes
    pairs = list(pairwise(channels))

    class CNN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in pairs])
            self.norms = nn.ModuleList([nn.BatchNorm2d(b) for _, b in pairs])
            self.out = nn.Linear(channels[-1] * (side // 2 ** len(pairs)) ** 2, classes)

        def forward(self, x: Any) -> Any:
            for conv, norm in zip(self.convs, self.norms, strict=True):
                x = F.max_pool2d(F.relu(norm(conv(x))), 2)
            return self.out(x.flatten(1))

    return CNN()


def _gpt(sizes: tuple[int, ...], nn: Any, F: Any, arange: Callable[[int], Any]) -> Any:
    vocabulary, length, width, layers, heads = sizes

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.joint, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            joint = self.joint(self.norm_1(x)).reshape(-1, length, 3, heads, width // heads)
            query, key, value = (joint[:, :, i].swapaxes(1, 2) for i in range(3))
            seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + self.mixed(seen.swapaxes(1, 2).reshape(-1, length, width))
            return x + self.down(F.gelu(self.up(self.norm_2(x)), approximate="tanh"))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
            self.blocks = nn.ModuleList([Block() for _ in range(layers)])
            self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, vocabulary)

        def forward(self, x: Any) -> Any:
            x = self.tokens(x) + self.places(arange(length))
            for block in self.blocks:
                x = block(x)
            return self.out(self.norm(x))

    return GPT()


def _lstm(sizes: tuple[int, ...], nn: Any, F: Any, _: Callable[[int], Any]) -> Any:
    inputs, hidden, _length, classes = sizes

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(inputs, hidden, batch_first=True)
            self.out = nn.Linear(hidden, classes)

        def forward(self, x: Any) -> Any:
            out, _ = self.lstm(x)
            return self.out(out[:, -1])

    return Last()


_MODELS = {"mlp": _mlp, "cnn": _cnn, "gpt": _gpt, "lstm": _lstm}
