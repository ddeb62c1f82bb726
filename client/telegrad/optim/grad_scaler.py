"""GradScaler: a loss scale that follows what float16 can hold, decided in the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from telegrad import context, ops
from telegrad.function import live_number
from telegrad.ir import types
from telegrad.optim.optimizer import Optimizer
from telegrad.optim.update import as_number, require
from telegrad.tensor import Tensor
from telegrad.variable import Variable


class GradScaler:
    """Multiplies a loss so that small gradients do not become 0, and skips steps whose gradients are not finite.

    ``scaler.scale(loss).backward(); scaler.step(optimizer); scaler.update()``, also inside ``tg.function``.
    A skipped step multiplies the scale by ``backoff_factor``, ``growth_interval`` good ones in a row by
    ``growth_factor``, as in PyTorch's ``torch.amp.GradScaler``. There is no ``unscale_``: gradients are divided by the
    scale within the step, in the dtype of the optimizer's state, and ``scaler.scale(max_norm)`` is what to clip to.
    Micikevicius et al. 2018, Mixed precision training, section 3.2.
    """

    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
    ) -> None:
        require(init_scale > 0, f"GradScaler: init_scale must be more than 0, not {init_scale}")
        require(growth_factor > 1, f"GradScaler: growth_factor must be more than 1, not {growth_factor}")
        require(0 < backoff_factor < 1, f"GradScaler: backoff_factor must be in (0, 1), not {backoff_factor}")
        self.growth_factor, self.backoff_factor, self.growth_interval = growth_factor, backoff_factor, growth_interval
        self._scale = Variable(np.float64(init_scale), name="scaler.scale")
        self._growth_tracker = Variable(np.float64(0), name="scaler.growth_tracker")
        self._found_inf = Variable(np.bool_(False), name="scaler.found_inf")

    def scale(self, outputs: Tensor | float) -> Tensor:
        """The loss, or a number that is compared with scaled gradients, times the scale; in float32 at least."""
        scale = as_number(self._scale)
        if not isinstance(outputs, Tensor):
            return scale * outputs
        return ops.astype(outputs, types.promote(outputs.dtype, types.float32)) * scale

    def step(self, optimizer: Optimizer) -> None:
        """The optimizer's step with gradients divided by the scale; nothing changes if one of them is not finite."""
        is_finite = optimizer.gradients_are_finite()
        optimizer.step(only_if=is_finite, grad_scale=as_number(self._scale))
        self._found_inf.assign(ops.logical_or(self._found_inf, ops.logical_not(is_finite)))
        if context.TRACE.get() is None:
            self._scale.session.flush()

    def update(self) -> None:
        """Adapt the scale to the steps since the last update."""
        scale = as_number(self._scale)
        found, good = self._found_inf, self._growth_tracker + 1
        is_time = good >= live_number(lambda: float(self.growth_interval))
        larger = scale * live_number(lambda: self.growth_factor)
        grown = ops.where(ops.logical_and(is_time, ops.isfinite(larger)), larger, scale)
        self._scale.assign(ops.where(found, scale * live_number(lambda: self.backoff_factor), grown))
        self._growth_tracker.assign(ops.where(ops.logical_or(found, is_time), 0.0, good))
        self._found_inf.assign(ops.zeros_like(found))
        if context.TRACE.get() is None:
            self._scale.session.flush()

    def get_scale(self) -> float:
        """The scale as a Python number; waits for the server."""
        return self._scale.item()

    def state_dict(self) -> dict[str, Any]:
        """Scale and counters, with PyTorch's names."""
        return {
            "scale": self._scale.item(),
            "growth_factor": self.growth_factor,
            "backoff_factor": self.backoff_factor,
            "growth_interval": self.growth_interval,
            "_growth_tracker": int(self._growth_tracker.item()),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over scale and counters, also PyTorch's."""
        self.growth_factor, self.backoff_factor = state_dict["growth_factor"], state_dict["backoff_factor"]
        self.growth_interval = state_dict["growth_interval"]
        self._scale.assign(np.float64(state_dict["scale"]))
        self._growth_tracker.assign(np.float64(state_dict["_growth_tracker"]))
        self._found_inf.assign(np.bool_(False))
        self._scale.session.flush()
