"""Batches of sequences of different lengths, under the names of ``torch.nn.utils.rnn``.

Shapes are static here, so a packed sequence stays padded and carries its lengths; a recurrent layer lets the state
of a sequence stand still behind its end. Nothing needs to be sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from telegrad import ops
from telegrad.creation import asarray, full
from telegrad.errors import DTypeError, GraphError, ShapeError
from telegrad.tensor import Tensor

__all__ = ["PackedSequence", "pack_padded_sequence", "pack_sequence", "pad_packed_sequence", "pad_sequence"]


class PackedSequence(NamedTuple):
    """Sequences data[time, batch, ...], padded at their ends, and their lengths[batch]."""

    data: Tensor
    lengths: Tensor


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = False
) -> PackedSequence:
    """input[time, batch, ...] (with ``batch_first`` [batch, time, ...]) with the lengths[batch] of its sequences.

    ``enforce_sorted`` is there for programs written for PyTorch, and changes nothing.
    """
    del enforce_sorted
    if input.ndim < 2:
        raise ShapeError(f"pack_padded_sequence takes an input with axes for time and batch, not {input.type}")
    data = ops.moveaxis(input, 0, 1) if batch_first else input
    counts = lengths if isinstance(lengths, Tensor) else asarray(lengths)
    if counts.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"pack_padded_sequence: lengths must be integers, not {counts.dtype}")
    if counts.shape != (data.shape[1],):
        raise ShapeError(f"pack_padded_sequence: {counts.type} is no length for each of {data.shape[1]} sequences")
    return PackedSequence(data, counts)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """(the sequences padded with ``padding_value``, their lengths); the padding reaches to ``total_length`` if given.

    Unlike in PyTorch the result is as long as the input of the pack was, not as its longest sequence.
    """
    data, lengths = sequence
    time = data.shape[0]
    if total_length is not None and total_length < time:
        raise ShapeError(f"pad_packed_sequence: total_length {total_length} is below the {time} steps there are")
    steps = ops.cumulative_sum(ops.broadcast_to(data.literal(1, lengths.dtype), (time,)), axis=0) - 1
    alive = ops.expand_dims(ops.astype(steps, lengths.dtype), axis=1) < lengths
    alive = ops.reshape(alive, (*alive.shape, *(1,) * (data.ndim - 2)))
    out = ops.where(alive, data, padding_value)
    if total_length is not None and total_length > time:
        rest = ops.broadcast_to(data.literal(padding_value, data.dtype), (total_length - time, *data.shape[1:]))
        out = ops.concat([out, rest], axis=0)
    return (ops.moveaxis(out, 0, 1) if batch_first else out), lengths


def pad_sequence(
    sequences: Sequence[Tensor], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Tensor:
    """Sequences, each [time, ...] with a time of its own, as one tensor [longest, batch, ...]."""
    if not sequences:
        raise GraphError("pad_sequence takes at least one sequence")
    if padding_side not in ("right", "left"):
        raise GraphError(f"pad_sequence: padding_side is 'right' or 'left', not {padding_side!r}")
    for x in sequences:
        if x.ndim == 0 or x.shape[1:] != sequences[0].shape[1:]:
            raise ShapeError(f"pad_sequence: {sequences[0].type} and {x.type} differ in more than their first axis")
    longest = max(x.shape[0] for x in sequences)
    padded: list[Tensor] = []
    for x in sequences:
        rest = full((longest - x.shape[0], *x.shape[1:]), padding_value, dtype=x.dtype)
        padded.append(ops.concat([x, rest] if padding_side == "right" else [rest, x], axis=0))
    return ops.stack(padded, axis=0 if batch_first else 1)


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = False) -> PackedSequence:
    """Sequences, each [time, ...] with a time of its own, padded and with their lengths."""
    return pack_padded_sequence(pad_sequence(sequences), [x.shape[0] for x in sequences], enforce_sorted=enforce_sorted)
