"""Checkpoints of jobs: safetensors shards and a manifest that is there whole or not at all."""

from telegrad_server.checkpoints.contents import Damage, Latest, Report
from telegrad_server.checkpoints.folders import Folders
from telegrad_server.checkpoints.manifest import Draft, Manifest, Shard
from telegrad_server.checkpoints.objects import Objects
from telegrad_server.checkpoints.opening import open_depot, open_store
from telegrad_server.checkpoints.shards import Named, write_order
from telegrad_server.checkpoints.store import CheckpointStore
from telegrad_server.checkpoints.weights import MODEL, weights_file, weights_from

__all__ = [
    "MODEL", "CheckpointStore", "Damage", "Draft", "Folders", "Latest", "Manifest", "Named", "Objects", "Report",
    "Shard", "open_depot", "open_store", "weights_file", "weights_from", "write_order",
]  # fmt: skip
