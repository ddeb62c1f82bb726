"""Whole models, under the names and state keys of those that are published: what was learnt elsewhere loads here.

GPT-2 and BERT as in Hugging Face's transformers, residual networks as in torchvision, an encoder-decoder Transformer
for sequences and two towers for retrieval. `load_pretrained` reads their safetensors files; nothing is ever downloaded.
"""

from telegrad.models.bert import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
)
from telegrad.models.encoder_decoder import EncoderDecoder, sinusoidal_positions
from telegrad.models.gpt2 import GPT2Config, GPT2LMHeadModel, GPT2Model
from telegrad.models.pretrained import load_config, load_pretrained
from telegrad.models.resnet import (
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    resnext101_32x8d,
    wide_resnet50_2,
    wide_resnet101_2,
)
from telegrad.models.two_tower import Tower, TwoTower

__all__ = [
    "BertConfig",
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForSequenceClassification",
    "BertModel",
    "EncoderDecoder",
    "GPT2Config",
    "GPT2LMHeadModel",
    "GPT2Model",
    "ResNet",
    "Tower",
    "TwoTower",
    "load_config",
    "load_pretrained",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "sinusoidal_positions",
    "wide_resnet50_2",
    "wide_resnet101_2",
]  # fmt: skip
