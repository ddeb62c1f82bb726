"""What PyTorch keeps in ``nn.utils``: clipped gradients, parameters computed from others, padded sequences."""

from telegrad.nn.utils import parametrizations, parametrize, rnn
from telegrad.nn.utils.clip_grad import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm
from telegrad.nn.utils.convert_parameters import parameters_to_vector, vector_to_parameters
from telegrad.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from telegrad.nn.utils.weight_norm import remove_spectral_norm, remove_weight_norm, spectral_norm, weight_norm

__all__ = [
    "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "fuse_conv_bn_eval", "fuse_linear_bn_eval",
    "get_total_norm", "parameters_to_vector", "parametrizations", "parametrize", "remove_spectral_norm",
    "remove_weight_norm", "rnn", "spectral_norm", "vector_to_parameters", "weight_norm",
]  # fmt: skip
