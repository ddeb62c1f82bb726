"""What loops say and are told comes out of a message as it went in."""

from __future__ import annotations

import pytest
from telegrad.errors import GraphError
from telegrad.wire.v1 import loops_pb2 as pb
from telegrad_server.checkpoints.contents import Damage
from telegrad_server.jobs import events as e
from telegrad_server.loops import Assignment, Order, Progress
from telegrad_server.service import loop_messages as messages

from tests.jobs.specs import full_spec

EVENTS = [
    e.Started("j", 3, 40, "an older one"),
    e.Progressed("j", 3, 47, rows=(e.Row(46, 1, "loss", 0.1, 5.0), e.Row(47, 1, "loss", float("inf"), 6.0))),
    e.Paused("j", 3, "NONFINITE", "nan"),
    e.Cancelled("j", 3),
    e.Failed("j", 3, "INDEX_RANGE", "row 7", "train.py:3"),
    e.Succeeded("j", 3, 100, True),
    e.Lost("j", 3, "DRAINED", "its worker is to go"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events(event: e.Event) -> None:
    who = pb.LoopAssignment(worker="w", incarnation="i", job="j", number=3)

    (message,) = messages.event_to_proto(event, who)

    said = pb.TellLoopEventRequest.FromString(message.SerializeToString())
    assert messages.event_from_proto(said) == event


def test_many_rows_go_in_several_messages() -> None:
    rows = tuple([e.Row(step, 0, "loss", 0.5, 1.0) for step in range(messages.MOST_ROWS + 3)])

    first, second = messages.event_to_proto(e.Progressed("j", 3, len(rows), rows=rows), pb.LoopAssignment())

    assert (len(first.rows), len(second.rows), first.row_count) == (messages.MOST_ROWS, 3, len(rows))


def test_what_no_loop_says_is_refused() -> None:
    with pytest.raises(GraphError, match="'Submitted' is nothing that a loop says"):
        messages.event_from_proto(pb.TellLoopEventRequest(kind="Submitted"))


@pytest.mark.parametrize(
    "order", ["stop", "stop_at_checkpoint", "leave", full_spec()], ids=["stop", "stop_at_checkpoint", "leave", "extend"]
)
def test_orders(order: Order) -> None:
    data = messages.order_to_proto("j", 3, order).SerializeToString()

    message = pb.WorkShiftResponse.FromString(data)

    assert (message.job, message.number) == ("j", 3)
    assert messages.order_from_proto(message) == order


def test_assignments_progress_and_damage() -> None:
    assignment = Assignment("j", "tenant", 3, 40, full_spec())
    progress = Progress(41, 2, 12.5, {"loss": 0.25})
    damage = Damage(40, 2, "shard", "this", "that", "it has changed")

    assert messages.order_from_proto(messages.begin_to_proto(assignment)) == assignment
    assert messages.progress_from_proto(messages.progress_to_proto(assignment, progress)) == progress
    assert messages.damage_from_proto(messages.damage_to_proto(damage)) == damage
