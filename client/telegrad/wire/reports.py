"""What a server tells of plans and of time, as protobuf and back: the longer ones among the events of `stream.py`."""

from __future__ import annotations

from telegrad.wire import messages as m
from telegrad.wire.v1 import sessions_pb2 as pb


def explained_to_proto(event: m.Explained) -> pb.Explained:
    """What running a function would take, as a message."""
    steps = [
        pb.ExplainedStep(
            ops=step.ops,
            nodes=[node + 1 for node in step.nodes],
            is_backward=step.is_backward,
            kernel=step.kernel,
            flops=step.flops,
            moved_bytes=step.moved_bytes,
            live_bytes=step.live_bytes,
            depth=step.depth,
        )
        for step in event.steps
    ]
    return pb.Explained(
        sequence=event.sequence,
        flops=event.flops,
        moved_bytes=event.moved_bytes,
        arena_bytes=event.arena_bytes,
        peak_bytes=event.peak_bytes,
        all_steps=event.all_steps,
        steps=steps,
        peak_step=event.peak_step + 1,
    )


def explained_from_proto(message: pb.Explained) -> m.Explained:
    """What running a function would take."""
    steps = [
        m.ExplainedStep(
            tuple(s.ops),
            tuple([node - 1 for node in s.nodes]),
            s.is_backward,
            s.kernel,
            s.flops,
            s.moved_bytes,
            s.live_bytes,
            s.depth,
        )
        for s in message.steps
    ]
    return m.Explained(
        message.sequence,
        message.flops,
        message.moved_bytes,
        message.arena_bytes,
        message.peak_bytes,
        message.all_steps,
        tuple(steps),
        message.peak_step - 1,
    )


def profiled_to_proto(event: m.Profiled) -> pb.Profiled:
    """The server's clock and what was recorded, as a message."""
    spans = [
        pb.ProfiledSpan(
            kind=span.kind,
            name=span.name,
            sequence=span.sequence,
            begin_ns=span.begin_ns,
            nanoseconds=span.nanoseconds,
            node=span.node + 1,
            is_backward=span.is_backward,
        )
        for span in event.spans
    ]
    return pb.Profiled(
        sequence=event.sequence,
        received_ns=event.received_ns,
        answered_ns=event.answered_ns,
        spans=spans,
        dropped_spans=event.dropped_spans,
    )


def profiled_from_proto(message: pb.Profiled) -> m.Profiled:
    """The server's clock and what was recorded."""
    spans = [
        m.ProfiledSpan(s.kind, s.name, s.sequence, s.begin_ns, s.nanoseconds, s.node - 1, s.is_backward)
        for s in message.spans
    ]
    return m.Profiled(message.sequence, message.received_ns, message.answered_ns, tuple(spans), message.dropped_spans)
