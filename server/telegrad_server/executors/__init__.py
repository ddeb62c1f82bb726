"""Executors run plans on a device."""

from telegrad_server.executors.base import Executor
from telegrad_server.executors.pick import BackendUnavailable, pick_executor

__all__ = ["BackendUnavailable", "Executor", "pick_executor"]
