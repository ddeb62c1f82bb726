"""Datasets as protobuf and back."""

from __future__ import annotations

from collections.abc import Iterable

from telegrad.wire.datasets import Column, Description
from telegrad.wire.stream import type_from_proto, type_to_proto
from telegrad.wire.v1 import datasets_pb2 as pb


def column_to_proto(column: Column) -> pb.DatasetColumn:
    """A column as a message."""
    return pb.DatasetColumn(name=column.name, type=type_to_proto(column.type), digest=column.digest)


def columns_from_proto(messages: Iterable[pb.DatasetColumn]) -> tuple[Column, ...]:
    """The columns in messages; DTypeError or ShapeError if a type is none."""
    return tuple(Column(m.name, type_from_proto(m.type), m.digest) for m in messages)


def description_to_proto(found: Description) -> pb.DatasetDescription:
    """A description as a message."""
    message = pb.DatasetDescription(
        name=found.name, digest=found.digest, source=found.source, rows=found.rows, blocks=found.blocks
    )
    message.columns.extend(map(column_to_proto, found.columns))
    return message


def description_from_proto(message: pb.DatasetDescription) -> Description:
    """The description in a message."""
    columns = columns_from_proto(message.columns)
    return Description(message.name, message.digest, message.rows, columns, message.source, message.blocks)
