"""What PyTorch keeps in ``nn.utils``: gradients clipped before the optimizer's step, padded sequences."""

from telegrad.nn.utils import rnn
from telegrad.nn.utils.clip_grad import clip_grad_norm_, clip_grad_value_

__all__ = ["clip_grad_norm_", "clip_grad_value_", "rnn"]
