"""Weight and spectral normalisation with the state keys that PyTorch used before it had parametrizations.

For checkpoints that hold ``weight_g`` and ``weight_v``, or ``weight_orig``, ``weight_u`` and ``weight_v``; new models
take `nn.utils.parametrizations`.
"""

from __future__ import annotations

from dataclasses import dataclass

from telegrad import context, ops
from telegrad.errors import GraphError
from telegrad.nn import functional as F
from telegrad.nn.module import Module
from telegrad.nn.utils.parametrizations import as_matrix, constant, default_dim, norm_except_dim, start
from telegrad.tensor import Tensor
from telegrad.variable import Parameter, Variable


@dataclass(frozen=True)
class WeightNorm:
    """Reads a weight as ``weight_g * weight_v / |weight_v|``."""

    name: str
    dim: int | None

    def __call__(self, module: Module) -> Tensor:
        g, v = getattr(module, f"{self.name}_g"), getattr(module, f"{self.name}_v")
        return v * (g / norm_except_dim(v, self.dim))


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Learn a weight's length and direction apart, as ``weight_g`` and ``weight_v``; see `parametrizations`."""
    weight = _taken(module, name, "weight_norm")
    dim = None if dim == -1 else dim
    with context.no_grad():
        lengths = norm_except_dim(weight, dim)
    delattr(module, name)
    setattr(module, f"{name}_g", Parameter(lengths, weight.requires_grad))
    setattr(module, f"{name}_v", Parameter(weight.detach(), weight.requires_grad))
    module._derived[name] = WeightNorm(name, dim)
    return module


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Let the weight be a parameter again, with the value that it has."""
    return _remove(module, name, WeightNorm, ("g", "v"), "remove_weight_norm")


@dataclass(frozen=True)
class SpectralNorm:
    """Reads a weight as ``weight_orig`` over its largest singular value."""

    name: str
    n_power_iterations: int
    eps: float
    dim: int

    def __call__(self, module: Module) -> Tensor:
        return self.compute(module, iterates=module.training)

    def compute(self, module: Module, *, iterates: bool) -> Tensor:
        """The weight, after steps of the power iteration if it ``iterates``."""
        weight = getattr(module, f"{self.name}_orig")
        kept_u, kept_v = getattr(module, f"{self.name}_u"), getattr(module, f"{self.name}_v")
        matrix, u, v = as_matrix(weight, self.dim), kept_u.detach(), kept_v.detach()
        if iterates:
            with context.no_grad():
                for _ in range(self.n_power_iterations):
                    v = F.normalize(matrix.detach().mT @ u, dim=0, eps=self.eps)
                    u = F.normalize(matrix.detach() @ v, dim=0, eps=self.eps)
                kept_u.assign(u)
                kept_v.assign(v)
            u, v = constant(u), constant(v)
        return weight / ops.vecdot(u, matrix @ v)


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """Divide a weight by its largest singular value, kept as ``weight_orig``, ``weight_u`` and ``weight_v``.

    See `parametrizations.spectral_norm`.
    """
    if n_power_iterations < 1:
        raise GraphError(f"spectral_norm: n_power_iterations must be positive, not {n_power_iterations}")
    weight = _taken(module, name, "spectral_norm")
    axis = default_dim(module, dim) % weight.ndim
    with context.no_grad():
        u, v = start(as_matrix(weight, axis), eps)
    delattr(module, name)
    setattr(module, f"{name}_orig", weight)
    setattr(module, f"{name}_u", Variable(u))
    setattr(module, f"{name}_v", Variable(v))
    module._derived[name] = SpectralNorm(name, n_power_iterations, eps, axis)
    return module


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Let the weight be a parameter again, with the value that it has."""
    return _remove(module, name, SpectralNorm, ("orig", "u", "v"), "remove_spectral_norm")


def _taken(module: Module, name: str, op: str) -> Parameter:
    weight = module._parameters.get(name)
    if weight is None:
        raise GraphError(f"{op}: {type(module).__name__} has no parameter {name!r}")
    return weight


def _remove(
    module: Module, name: str, kind: type[WeightNorm] | type[SpectralNorm], parts: tuple[str, ...], op: str
) -> Module:
    derived = module._derived.get(name)
    if not isinstance(derived, kind):
        raise GraphError(f"{op}: {name!r} of {type(module).__name__} is not computed so")
    with context.no_grad():
        value = derived.compute(module, iterates=False) if isinstance(derived, SpectralNorm) else derived(module)
    learns = getattr(module, f"{name}_{parts[0]}").requires_grad
    del module._derived[name]
    for part in parts:
        delattr(module, f"{name}_{part}")
    setattr(module, name, Parameter(value.detach(), learns))
    return module


__all__ = ["remove_spectral_norm", "remove_weight_norm", "spectral_norm", "weight_norm"]
