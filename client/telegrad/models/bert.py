"""BERT (Devlin et al. 2019), with the names and state keys of Hugging Face's transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from telegrad import creation, ops
from telegrad.errors import ShapeError
from telegrad.ir import types
from telegrad.ir.types import DType
from telegrad.models.gpt2 import activation
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


@dataclass(frozen=True, slots=True)
class BertConfig:
    """Sizes and rates; those of bert-base. `load_config` reads them from a ``config.json``."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    classifier_dropout: float | None = None

    only: ClassVar[dict[str, tuple[object, ...]]] = {
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
        "tie_word_embeddings": (True,),
    }
    """Options of the published configs that have one value here."""


class BertEmbeddings(Module):
    """The sum of a token's embedding, its segment's and its place's, normalised."""

    def __init__(self, config: BertConfig, dtype: DType) -> None:
        super().__init__()
        width, pad = config.hidden_size, config.pad_token_id
        self.word_embeddings = Embedding(config.vocab_size, width, padding_idx=pad, dtype=dtype)
        self.position_embeddings = Embedding(config.max_position_embeddings, width, dtype=dtype)
        self.token_type_embeddings = Embedding(config.type_vocab_size, width, dtype=dtype)
        self.LayerNorm = LayerNorm(width, config.layer_norm_eps, dtype=dtype)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """input_ids[batch, length], token_type_ids[batch, length] (zeros if missing) -> [batch, length, hidden]."""
        segments = ops.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        places = self.position_embeddings(creation.arange(input_ids.shape[1]))
        x = self.word_embeddings(input_ids) + self.token_type_embeddings(segments) + places
        return self.dropout(self.LayerNorm(x))


class BertSelfAttention(Module):
    """Attention of several heads, before its output layer."""

    def __init__(self, config: BertConfig, dtype: DType) -> None:
        super().__init__()
        width = config.hidden_size
        if width % config.num_attention_heads:
            raise ShapeError(f"Bert: {width} features must be divisible into {config.num_attention_heads} heads")
        self.heads, self.dropout = config.num_attention_heads, config.attention_probs_dropout_prob
        self.query = Linear(width, width, dtype=dtype)
        self.key = Linear(width, width, dtype=dtype)
        self.value = Linear(width, width, dtype=dtype)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x[batch, length, hidden] in its own shape."""
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        query, key, value = (ops.moveaxis(f(x).reshape(shape), 1, 2) for f in (self.query, self.key, self.value))
        dropout = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(query, key, value, mask, dropout)
        return ops.moveaxis(found, 1, 2).reshape((batch, length, width))


class BertOutput(Module):
    """A linear layer, dropout, and the norm of the sum with what came before."""

    def __init__(self, inputs: int, config: BertConfig, dtype: DType) -> None:
        super().__init__()
        self.dense = Linear(inputs, config.hidden_size, dtype=dtype)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps, dtype=dtype)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """LayerNorm(before + dense(x))."""
        return self.LayerNorm(self.dropout(self.dense(x)) + before)


class BertAttention(Module):
    """Attention and its output layer; the names are those of the checkpoints."""

    def __init__(self, config: BertConfig, dtype: DType) -> None:
        super().__init__()
        self.add_module("self", BertSelfAttention(config, dtype))
        self.output = BertOutput(config.hidden_size, config, dtype)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x[batch, length, hidden] in its own shape."""
        return self.output(self.self(x, mask), x)


class BertIntermediate(Module):
    """A wide layer with the activation."""

    def __init__(self, config: BertConfig, dtype: DType) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size, dtype=dtype)
        self.act = activation(config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        """act(dense(x))."""
        return self.act(self.dense(x))


class BertLayer(Module):
    """Attention and two layers."""

    def __init__(self, config: BertConfig, dtype: DType) -> None:
        super().__init__()
        self.attention = BertAttention(config, dtype)
        self.intermediate = BertIntermediate(config, dtype)
        self.output = BertOutput(config.intermediate_size, config, dtype)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x[batch, length, hidden] in its own shape."""
        x = self.attention(x, mask)
        return self.output(self.intermediate(x), x)


class BertEncoder(Module):
    """Layers one after the other."""

    def __init__(self, config: BertConfig, dtype: DType) -> None:
        super().__init__()
        self.layer = ModuleList([BertLayer(config, dtype) for _ in range(config.num_hidden_layers)])

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x[batch, length, hidden] in its own shape."""
        for layer in self.layer:
            x = layer(x, mask)
        return x


class BertPooler(Module):
    """tanh of a linear layer on the first token."""

    def __init__(self, config: BertConfig, dtype: DType) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """x[batch, length, hidden] -> [batch, hidden]."""
        return F.tanh(self.dense(x[:, 0]))


class _Bert(Module):
    """What every model here has: checkpoints' names, and how initial values are drawn."""

    base_prefix = "bert"

    def is_no_state(self, name: str) -> bool:
        """The numbers of the places, which older checkpoints hold."""
        return name.endswith("embeddings.position_ids")

    def _draw(self, config: BertConfig) -> None:
        for parameter in self.parameters():
            if parameter.ndim == 2:
                init.normal_(parameter, 0.0, config.initializer_range)
        for module in self.modules():
            if isinstance(module, Linear) and module.bias is not None:
                init.zeros_(module.bias)
            if isinstance(module, BertEmbeddings):
                table = module.word_embeddings.weight.detach()
                table[config.pad_token_id] = 0
                module.word_embeddings.weight.assign(table)


class BertModel(_Bert):
    """Tokens to features, each with a view of all others."""

    def __init__(self, config: BertConfig, add_pooling_layer: bool = True, *, dtype: DType = types.float32) -> None:
        super().__init__()
        self.config = config
        self.embeddings = BertEmbeddings(config, dtype)
        self.encoder = BertEncoder(config, dtype)
        self.pooler = BertPooler(config, dtype) if add_pooling_layer else None
        self._draw(config)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(features[batch, length, hidden], those of the whole[batch, hidden] if there is a pooler).

        ``attention_mask``[batch, length] is false (or 0) where there is filling; ``token_type_ids`` are the segments.
        """
        most = self.config.max_position_embeddings
        if input_ids.ndim != 2 or input_ids.shape[1] > most:
            raise ShapeError(f"Bert: input_ids must be [batch, length] of at most {most}, not {input_ids.type}")
        mask: Tensor | None = None
        if attention_mask is not None:
            mask = ops.not_equal(attention_mask, 0).reshape((-1, 1, 1, input_ids.shape[1]))
        x = self.encoder(self.embeddings(input_ids, token_type_ids), mask)
        return x, None if self.pooler is None else self.pooler(x)


class BertPredictionHeadTransform(Module):
    """A linear layer, the activation, a norm."""

    def __init__(self, config: BertConfig, dtype: DType) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size, dtype=dtype)
        self.act = activation(config.hidden_act)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """LayerNorm(act(dense(x)))."""
        return self.LayerNorm(self.act(self.dense(x)))


class BertLMPredictionHead(Module):
    """Scores of all tokens, by the table that embeds them and a bias."""

    def __init__(self, config: BertConfig, table: Parameter, dtype: DType) -> None:
        super().__init__()
        self.bias = Parameter(creation.zeros((config.vocab_size,), dtype=dtype))
        self.transform = BertPredictionHeadTransform(config, dtype)
        self.decoder = Linear(config.hidden_size, config.vocab_size, dtype=dtype)
        self.decoder.weight, self.decoder.bias = table, self.bias

    def forward(self, x: Tensor) -> Tensor:
        """x[..., hidden] -> [..., vocab_size]."""
        return self.decoder(self.transform(x))


class BertHeads(Module):
    """Scores of tokens, and of two segments that follow one another or do not."""

    def __init__(self, config: BertConfig, table: Parameter, dtype: DType) -> None:
        super().__init__()
        self.predictions = BertLMPredictionHead(config, table, dtype)
        self.seq_relationship = Linear(config.hidden_size, 2, dtype=dtype)


class BertTokenHeads(Module):
    """Scores of tokens only."""

    def __init__(self, config: BertConfig, table: Parameter, dtype: DType) -> None:
        super().__init__()
        self.predictions = BertLMPredictionHead(config, table, dtype)


class BertForPreTraining(_Bert):
    """The two tasks of the paper: masked tokens, and whether the second segment follows the first.

    ::

        model = BertForPreTraining(BertConfig(vocab_size=1000, hidden_size=64, num_hidden_layers=2,
                                              num_attention_heads=4, intermediate_size=128))

        @tg.function
        def step(input_ids, labels, token_type_ids, next_sentence_label):
            loss = model.loss(input_ids, labels, next_sentence_label, token_type_ids=token_type_ids)
            optimizer.minimize(loss)
            return loss
    """

    def __init__(self, config: BertConfig, *, dtype: DType = types.float32) -> None:
        super().__init__()
        self.config = config
        self.bert = BertModel(config, dtype=dtype)
        self.cls = BertHeads(config, self.bert.embeddings.word_embeddings.weight, dtype)
        self._draw(config)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(scores of tokens[batch, length, vocab_size], scores of "follows" and "does not"[batch, 2])."""
        x, pooled = self.bert(input_ids, attention_mask, token_type_ids)
        return self.cls.predictions(x), self.cls.seq_relationship(pooled)

    def loss(
        self,
        input_ids: Tensor,
        labels: Tensor,
        next_sentence_label: Tensor,
        *,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """The sum of both cross-entropies: labels[batch, length], -100 where no token was masked, and [batch]."""
        tokens, follows = self(input_ids, attention_mask, token_type_ids)
        return F.cross_entropy(tokens.flatten(0, 1), labels.flatten()) + F.cross_entropy(follows, next_sentence_label)


class BertForMaskedLM(_Bert):
    """Masked tokens only."""

    def __init__(self, config: BertConfig, *, dtype: DType = types.float32) -> None:
        super().__init__()
        self.config = config
        self.bert = BertModel(config, add_pooling_layer=False, dtype=dtype)
        self.cls = BertTokenHeads(config, self.bert.embeddings.word_embeddings.weight, dtype)
        self._draw(config)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Scores of tokens[batch, length, vocab_size]."""
        return self.cls.predictions(self.bert(input_ids, attention_mask, token_type_ids)[0])

    def loss(self, input_ids: Tensor, labels: Tensor, *, attention_mask: Tensor | None = None) -> Tensor:
        """The cross-entropy of labels[batch, length], -100 where no token was masked."""
        return F.cross_entropy(self(input_ids, attention_mask).flatten(0, 1), labels.flatten())


class BertForSequenceClassification(_Bert):
    """Scores of the whole text's classes, from the pooled first token."""

    def __init__(self, config: BertConfig, num_labels: int = 2, *, dtype: DType = types.float32) -> None:
        super().__init__()
        self.config, self.num_labels = config, num_labels
        self.bert = BertModel(config, dtype=dtype)
        rate = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
        self.dropout = Dropout(rate)
        self.classifier = Linear(config.hidden_size, num_labels, dtype=dtype)
        self._draw(config)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """[batch, num_labels]."""
        return self.classifier(self.dropout(self.bert(input_ids, attention_mask, token_type_ids)[1]))
