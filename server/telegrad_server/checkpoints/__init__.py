"""Checkpoints of jobs: safetensors shards and a manifest in a folder that is there whole or not at all."""

from telegrad_server.checkpoints.contents import Damage, Latest, Report
from telegrad_server.checkpoints.manifest import Draft, Manifest, Shard
from telegrad_server.checkpoints.shards import write_order
from telegrad_server.checkpoints.store import CheckpointStore

__all__ = ["CheckpointStore", "Damage", "Draft", "Latest", "Manifest", "Report", "Shard", "write_order"]
