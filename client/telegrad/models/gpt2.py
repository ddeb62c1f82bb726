"""GPT-2 (Radford et al. 2019), with the names and state keys of Hugging Face's transformers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from telegrad import creation, ops
from telegrad.errors import GraphError, ShapeError
from telegrad.function import function
from telegrad.ir import types
from telegrad.ir.types import DType
from telegrad.models.generation import check_choice, evaluating, written
from telegrad.nn import functional as F
from telegrad.nn import init
from telegrad.nn.activation import Dropout
from telegrad.nn.container import ModuleList
from telegrad.nn.embedding import Embedding
from telegrad.nn.linear import Linear
from telegrad.nn.module import Module
from telegrad.nn.norm import LayerNorm
from telegrad.tensor import Tensor
from telegrad.variable import Parameter

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "tanh": F.tanh,
}
"""By the names that configs use."""


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The function of a name in a config."""
    if name not in ACTIVATIONS:
        raise GraphError(f"the activation {name!r} is not one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


@dataclass(frozen=True, slots=True)
class GPT2Config:
    """Sizes and rates; those of the smallest published model. `load_config` reads them from a ``config.json``."""

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02

    only: ClassVar[dict[str, tuple[object, ...]]] = {
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
        "tie_word_embeddings": (True,),
    }
    """Options of the published configs that have one value here."""


Seen = tuple[Tensor, Tensor]
"""Keys and values of a block's attention, [batch, heads, places, n_embd / heads] each."""


@dataclass(frozen=True, slots=True)
class Past:
    """What a block has seen at the places before, and where the one token goes that it sees now."""

    seen: Seen
    is_here: Tensor
    """[places, 1]."""


class Conv1D(Module):
    """x[..., in] @ weight[in, out] + bias[out]: a linear layer whose weight is stored transposed."""

    def __init__(self, nf: int, nx: int, *, dtype: DType) -> None:
        super().__init__()
        self.weight = Parameter(creation.zeros((nx, nf), dtype=dtype))
        self.bias = Parameter(creation.zeros((nf,), dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """x @ weight + bias."""
        return ops.matmul(x, self.weight) + self.bias


class GPT2Attention(Module):
    """Causal self-attention of several heads."""

    def __init__(self, config: GPT2Config, dtype: DType) -> None:
        super().__init__()
        if config.n_embd % config.n_head:
            raise ShapeError(f"GPT2: {config.n_embd} features must be divisible into {config.n_head} heads")
        self.n_head, self.attn_pdrop = config.n_head, config.attn_pdrop
        self.c_attn = Conv1D(3 * config.n_embd, config.n_embd, dtype=dtype)
        self.c_proj = Conv1D(config.n_embd, config.n_embd, dtype=dtype)
        self.resid_dropout = Dropout(config.resid_pdrop)

    def forward(self, x: Tensor, mask: Tensor | None, past: Past | None) -> tuple[Tensor, Seen]:
        """(x[batch, length, n_embd] in its own shape, the keys and values that it attends to).

        ``mask`` says which pairs may attend; None is causal.
        """
        batch, length, width = x.shape
        joint = self.c_attn(x).reshape((batch, length, 3, self.n_head, width // self.n_head))
        query, key, value = (ops.moveaxis(joint[:, :, i], 1, 2) for i in range(3))
        if past is not None:
            key, value = (ops.where(past.is_here, new, old) for new, old in zip((key, value), past.seen, strict=True))
        dropout = self.attn_pdrop if self.training else 0.0
        found = F.scaled_dot_product_attention(query, key, value, mask, dropout, is_causal=mask is None)
        out = self.resid_dropout(self.c_proj(ops.moveaxis(found, 1, 2).reshape((batch, length, width))))
        return out, (key, value)


class GPT2MLP(Module):
    """Two layers, wide in the middle."""

    def __init__(self, config: GPT2Config, dtype: DType) -> None:
        super().__init__()
        inner = 4 * config.n_embd if config.n_inner is None else config.n_inner
        self.c_fc = Conv1D(inner, config.n_embd, dtype=dtype)
        self.c_proj = Conv1D(config.n_embd, inner, dtype=dtype)
        self.act = activation(config.activation_function)
        self.dropout = Dropout(config.resid_pdrop)

    def forward(self, x: Tensor) -> Tensor:
        """x[..., n_embd] in its own shape."""
        return self.dropout(self.c_proj(self.act(self.c_fc(x))))


class GPT2Block(Module):
    """Attention and two layers, each behind a norm and beside a residual connection."""

    def __init__(self, config: GPT2Config, dtype: DType) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, config.layer_norm_epsilon, dtype=dtype)
        self.attn = GPT2Attention(config, dtype)
        self.ln_2 = LayerNorm(config.n_embd, config.layer_norm_epsilon, dtype=dtype)
        self.mlp = GPT2MLP(config, dtype)

    def forward(self, x: Tensor, mask: Tensor | None, past: Past | None) -> tuple[Tensor, Seen]:
        """(x[batch, length, n_embd] in its own shape, the keys and values that it attends to)."""
        found, seen = self.attn(self.ln_1(x), mask, past)
        x = x + found
        return x + self.mlp(self.ln_2(x)), seen


class GPT2Model(Module):
    """Tokens to features: embeddings of token and place, blocks, a norm."""

    base_prefix = "transformer"

    def __init__(self, config: GPT2Config, *, dtype: DType = types.float32) -> None:
        super().__init__()
        self.config = config
        self.wte = Embedding(config.vocab_size, config.n_embd, dtype=dtype)
        self.wpe = Embedding(config.n_positions, config.n_embd, dtype=dtype)
        self.drop = Dropout(config.embd_pdrop)
        self.h = ModuleList([GPT2Block(config, dtype) for _ in range(config.n_layer)])
        self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values: normal, narrower where residual paths add up (section 2.3 of the paper)."""
        narrow = self.config.initializer_range / math.sqrt(2 * max(self.config.n_layer, 1))
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                is_last = name.endswith("c_proj.weight")
                init.normal_(parameter, 0.0, narrow if is_last else self.config.initializer_range)

    def is_no_state(self, name: str) -> bool:
        """The causal masks, which older checkpoints hold."""
        return name.endswith((".attn.bias", ".attn.masked_bias"))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        """input_ids[batch, length] -> [batch, length, n_embd].

        ``attention_mask``[batch, length] is false (or 0) where there is filling, to which nothing attends.
        ShapeError for a length over ``n_positions``.
        """
        if input_ids.ndim != 2 or input_ids.shape[1] > self.config.n_positions:
            raise ShapeError(
                f"GPT2: input_ids must be [batch, length] of at most {self.config.n_positions}, not {input_ids.type}"
            )
        length = input_ids.shape[1]
        mask: Tensor | None = None
        if attention_mask is not None:
            at = creation.arange(length)
            mask = (at.unsqueeze(1) >= at) & ops.not_equal(attention_mask, 0).reshape((-1, 1, 1, length))
        places = creation.arange(length) if position_ids is None else position_ids
        return self.seeing(input_ids, places, mask)[0]

    def seeing(
        self, input_ids: Tensor, places: Tensor, mask: Tensor | None, pasts: Sequence[Past] = ()
    ) -> tuple[Tensor, list[Seen]]:
        """(the features of the tokens at their places, what each block attended to), which generation goes on from."""
        x = self.drop(self.wte(input_ids) + self.wpe(places))
        seen: list[Seen] = []
        for i, block in enumerate(self.h):
            x, here = block(x, mask, pasts[i] if pasts else None)
            seen.append(here)
        return self.ln_f(x), seen


class GPT2LMHeadModel(Module):
    """Tokens to scores of the next token, by the table that embeds them.

    ::

        model = GPT2LMHeadModel(GPT2Config(vocab_size=256, n_positions=64, n_embd=128, n_layer=4, n_head=4))
        optimizer = optim.AdamW(model.parameters(), lr=1e-3)

        @tg.function
        def step(input_ids):                                # [batch, length]
            loss = model.loss(input_ids)
            optimizer.minimize(loss)
            return loss

        written = model.generate(input_ids[:, :8], max_new_tokens=32, temperature=0.8)

    A published one: ``load_pretrained(GPT2LMHeadModel(load_config(GPT2Config, folder)), folder)``.
    """

    base_prefix = "transformer"

    def __init__(self, config: GPT2Config, *, dtype: DType = types.float32) -> None:
        super().__init__()
        self.config = config
        self.transformer = GPT2Model(config, dtype=dtype)
        self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False, dtype=dtype)
        self.lm_head.weight = self.transformer.wte.weight

    def is_no_state(self, name: str) -> bool:
        """The causal masks, which older checkpoints hold."""
        return self.transformer.is_no_state(name)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        """input_ids[batch, length] -> scores[batch, length, vocab_size]; see `GPT2Model`."""
        return self.lm_head(self.transformer(input_ids, attention_mask, position_ids))

    def loss(self, input_ids: Tensor, labels: Tensor | None = None, attention_mask: Tensor | None = None) -> Tensor:
        """The mean cross-entropy of each token by those before it.

        ``labels``[batch, length] are input_ids if not given; -100 does not count. They are shifted here.
        """
        wanted = (input_ids if labels is None else labels)[:, 1:]
        scores = self.lm_head(self.transformer(input_ids, attention_mask)[:, :-1])
        return F.cross_entropy(scores.flatten(0, 1), wanted.flatten())

    def generate(
        self, input_ids: Tensor, max_new_tokens: int, *, temperature: float = 0.0, top_k: int | None = None
    ) -> Tensor:
        """input_ids[batch, length] and what the model adds: [batch, length + max_new_tokens].

        The likeliest token each time, or with a ``temperature`` one drawn by the scores over it, of the ``top_k``
        likeliest if given. Keys and values of the places before are kept, so a token costs one token's work; two traced
        functions serve all places, and nothing is downloaded.
        """
        check_choice(temperature, top_k)
        batch, length = input_ids.shape
        total = length + max_new_tokens
        if length < 1 or total > self.config.n_positions:
            raise ShapeError(
                f"generate: {length} tokens, of which there must be one at least, and {max_new_tokens} new ones must be"
                f" {self.config.n_positions} at most"
            )
        if max_new_tokens < 1:
            return input_ids

        def beginning(ids: Tensor) -> tuple[Tensor, list[Seen]]:
            hidden, seen = self.transformer.seeing(ids, creation.arange(length), None)
            wide = [(_filled(key, total), _filled(value, total)) for key, value in seen]
            tokens = ops.concat((ids, creation.zeros((batch, max_new_tokens), dtype=ids.dtype)), axis=1)
            return written(tokens, creation.asarray(length), self.lm_head(hidden[:, -1]), temperature, top_k), wide

        def following(tokens: Tensor, place: Tensor, seen: list[Seen]) -> tuple[Tensor, list[Seen]]:
            at, last = creation.arange(total), place - 1
            is_here = ops.equal(at, last).unsqueeze(1)
            token = ops.take(tokens, last, axis=1).unsqueeze(1)
            pasts = [Past(each, is_here) for each in seen]
            hidden, seen = self.transformer.seeing(token, last.reshape(1), (at <= last).unsqueeze(0), pasts)
            return written(tokens, place, self.lm_head(hidden[:, 0]), temperature, top_k), seen

        begin, follow = function(beginning), function(following)
        with evaluating(self):
            tokens, seen = begin(input_ids)
            for place in range(length + 1, total):
                tokens, seen = follow(tokens, creation.asarray(place), seen)
        return tokens


def _filled(x: Tensor, places: int) -> Tensor:
    """x[batch, heads, length, n] with zeros behind, up to the number of places."""
    return F.pad(x, (0, 0, 0, places - x.shape[2]))
