"""A Transformer from one sequence of tokens to another (Vaswani et al. 2017): translation, summaries, spelling."""

from __future__ import annotations

import math

from telegrad import creation, ops
from telegrad.errors import ShapeError
from telegrad.function import function
from telegrad.ir import types
from telegrad.ir.types import DType
from telegrad.models.generation import check_choice, evaluating, written
from telegrad.nn import functional as F
from telegrad.nn import init
from telegrad.nn.activation import Dropout
from telegrad.nn.embedding import Embedding
from telegrad.nn.module import Module
from telegrad.nn.transformer import Transformer
from telegrad.tensor import Tensor


def sinusoidal_positions(length: int, dim: int, *, dtype: DType = types.float32) -> Tensor:
    """sin(place / 10000^(2i / dim)) and cos of the same, in turns: [length, dim] (section 3.5 of the paper)."""
    place = ops.astype(creation.arange(length), types.float64).unsqueeze(1)
    rate = ops.exp(ops.astype(creation.arange(0, dim, 2), types.float64) * (-math.log(10000.0) / max(dim, 1)))
    angles = place * rate
    both = ops.stack((ops.sin(angles), ops.cos(angles)), axis=-1)
    return ops.astype(both.reshape((length, -1))[:, :dim], dtype)


class EncoderDecoder(Module):
    """Tokens in, scores of the next token of the answer out; one table embeds both and gives the scores.

    ::

        model = EncoderDecoder(vocab_size=1000, d_model=128, nhead=4, num_layers=2, dim_feedforward=256)

        @tg.function
        def step(source, target):                           # [batch, length] each, target with start and end
            loss = model.loss(source, target)
            optimizer.minimize(loss)
            return loss

        answer = model.generate(source, start_token=1, max_new_tokens=20)

    ``pad_token`` fills sequences up: nothing attends to it, and it does not count in the loss.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 512,
        nhead: int = 8,
        num_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        norm_first: bool = True,
        max_length: int = 512,
        pad_token: int = 0,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__()
        self.d_model, self.max_length, self.pad_token = d_model, max_length, pad_token
        self.embedding = Embedding(vocab_size, d_model, padding_idx=pad_token, dtype=dtype)
        init.normal_(self.embedding.weight, 0.0, d_model**-0.5)
        self.dropout = Dropout(dropout)
        self.transformer = Transformer(
            d_model, nhead, num_layers, num_layers, dim_feedforward, dropout,
            batch_first=True, norm_first=norm_first, dtype=dtype,
        )  # fmt: skip

    def _embedded(self, tokens: Tensor) -> Tensor:
        if tokens.ndim != 2 or tokens.shape[1] > self.max_length:
            raise ShapeError(f"EncoderDecoder: takes [batch, length] of at most {self.max_length}, not {tokens.type}")
        places = sinusoidal_positions(tokens.shape[1], self.d_model, dtype=self.embedding.weight.dtype)
        return self.dropout(self.embedding(tokens) * math.sqrt(self.d_model) + places)

    def encode(self, source: Tensor) -> Tensor:
        """source[batch, S] -> what the decoder attends to, [batch, S, d_model]."""
        is_pad = ops.equal(source, self.pad_token)
        return self.transformer.encoder(self._embedded(source), src_key_padding_mask=is_pad)

    def decode(self, target: Tensor, memory: Tensor, source: Tensor) -> Tensor:
        """target[batch, T] with the encoded source[batch, S] -> features [batch, T, d_model]."""
        mask = Transformer.generate_square_subsequent_mask(target.shape[1], memory.dtype)
        return self.transformer.decoder(
            self._embedded(target), memory, mask, memory_key_padding_mask=ops.equal(source, self.pad_token)
        )

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """source[batch, S] and target[batch, T] -> scores[batch, T, vocab_size] of what follows each target token."""
        return F.linear(self.decode(target, self.encode(source), source), self.embedding.weight)

    def loss(self, source: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """The mean cross-entropy of each target token by the source and the tokens before it."""
        scores = self(source, target[:, :-1])
        return F.cross_entropy(
            scores.flatten(0, 1), target[:, 1:].flatten(), ignore_index=self.pad_token, label_smoothing=label_smoothing
        )

    def generate(
        self,
        source: Tensor,
        start_token: int,
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
    ) -> Tensor:
        """An answer, token by token, [batch, max_new_tokens]: the likeliest each, or as `GPT2LMHeadModel` draws it.

        The source is encoded once.
        """
        check_choice(temperature, top_k)
        total = max_new_tokens + 1
        if total > self.max_length:
            raise ShapeError(f"generate: {max_new_tokens} tokens and the start are over {self.max_length}")

        def following(tokens: Tensor, place: Tensor, memory: Tensor, source: Tensor) -> Tensor:
            hidden = ops.take(self.decode(tokens, memory, source), place - 1, axis=1)
            return written(tokens, place, F.linear(hidden, self.embedding.weight), temperature, top_k)

        step = function(following)
        with evaluating(self):
            memory = function(self.encode)(source)
            tokens = creation.full((source.shape[0], total), start_token)
            for place in range(1, total):
                tokens = step(tokens, creation.asarray(place), memory, source)
        return tokens[:, 1:]
