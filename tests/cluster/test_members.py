"""The members of a cluster: who is in, who is given up, and that nobody comes back from the dead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telegrad.errors import GraphError, StateLost
from telegrad_server.cluster.members import Facts, Members, State


def facts(name: str, incarnation: str, machine: str = "m") -> Facts:
    return Facts(name, incarnation, address=f"{name}:1", machine=machine)


def test_a_worker_that_renews_stays_and_one_that_does_not_is_gone() -> None:
    members = Members(lease_seconds=10)
    members.join(facts("a", "a1"), now=0)
    members.join(facts("b", "b1"), now=0)
    members.renew("a", "a1", sessions=0, held_bytes=0, busy_seconds=0, held={}, now=9)

    gone = members.tick(now=11)

    assert [(g.name, g.incarnation, g.may_run) for g in gone] == [("b", "b1", True)]
    assert [m.facts.name for m in members.all()] == ["a"]


def test_a_worker_that_was_thought_dead_and_returns_is_told_so() -> None:
    members = Members(lease_seconds=10)
    members.join(facts("a", "a1"), now=0)
    members.tick(now=11)

    with pytest.raises(StateLost, match="nothing was heard from it for 10 s"):
        members.renew("a", "a1", sessions=0, held_bytes=0, busy_seconds=0, held={}, now=12)
    with pytest.raises(StateLost, match="start it anew"):
        members.join(facts("a", "a1"), now=12)
    members.join(facts("a", "a2"), now=12)
    lost = members.lost("a", "a1")
    assert lost is not None and "tensors and variables are lost" in lost.message


def test_a_process_takes_the_name_of_the_one_before_it_on_its_machine_only() -> None:
    members = Members(lease_seconds=10)
    first, _ = members.join(facts("a", "a1"), now=0)

    with pytest.raises(GraphError, match="another machine has a worker named a"):
        members.join(facts("a", "x1", machine="elsewhere"), now=1)
    second, gone = members.join(facts("a", "a2"), now=1)

    assert gone is not None and gone.incarnation == "a1"
    assert second.generation > first.generation


def test_a_gateway_that_was_started_anew_asks_for_a_join() -> None:
    members = Members(lease_seconds=10)

    assert members.renew("a", "a1", sessions=3, held_bytes=0, busy_seconds=0, held={}, now=0) is None
    assert members.lost("a", "a1") is None


def test_a_draining_worker_keeps_its_sessions() -> None:
    members = Members(lease_seconds=10)
    members.join(facts("a", "a1"), now=0)
    members.drain("a")

    member = members.renew("a", "a1", sessions=2, held_bytes=5, busy_seconds=0, held={}, now=1)

    assert member is not None and member.state is State.DRAINING and member.sessions == 2


def carried(members: Members, now: float, *held: str) -> tuple[int, int]:
    """The sessions and bytes that are counted once a worker has said that it carries these, a byte each."""
    sizes = dict.fromkeys(held, 1)
    member = members.renew("a", "a1", sessions=len(held), held_bytes=len(held), busy_seconds=0, held=sizes, now=now)
    assert member is not None
    return member.sessions, member.held_bytes


def test_sessions_opened_since_the_last_report_count() -> None:
    members = Members(lease_seconds=9)
    members.join(facts("a", "a1"), now=0)
    members.opened("a", "one", now=1)
    members.opened("a", "two", now=1)
    members.named("a", "two", "session")

    assert carried(members, 1.5) == (2, 0)
    assert carried(members, 1.6, "session") == (2, 1)
    assert carried(members, 5) == (0, 0)


def test_sessions_closed_since_the_last_report_do_not_count() -> None:
    members = Members(lease_seconds=9)
    member, _ = members.join(facts("a", "a1"), now=0)
    for session in ("one", "two", "three"):
        members.opened("a", session, now=1)

    members.closed("a", "one", now=1.1)
    members.closed("a", "one", now=1.1)  # said once more, since the answer was lost

    assert member.sessions == 2
    assert carried(members, 1.2, "one", "two") == (2, 1)  # a report from before
    assert carried(members, 1.3, "two", "three") == (2, 2)


EVENT = st.tuples(
    st.sampled_from(["join", "renew", "leave", "ended", "tick", "drain", "opened", "closed"]),
    st.sampled_from("abc"),
    st.integers(1, 3),
    st.floats(0, 8),
)


@given(st.lists(EVENT, max_size=60))
def test_whatever_happens_no_process_that_is_gone_is_a_member_again(events: list[tuple[str, str, int, float]]) -> None:
    members, now, gone = Members(lease_seconds=10), 0.0, set[str]()
    for event, name, process, later in events:
        now += later
        incarnation = f"{name}{process}"
        try:
            match event:
                case "join":
                    _, former = members.join(facts(name, incarnation), now)
                    gone |= {former.incarnation} if former else set()
                case "renew":
                    members.renew(name, incarnation, sessions=0, held_bytes=0, busy_seconds=0, held={}, now=now)
                case "leave":
                    left = members.leave(name, incarnation)
                    gone |= {left.incarnation} if left else set()
                case "ended":
                    ended = members.ended(name, "killed")
                    gone |= {ended.incarnation} if ended else set()
                case "tick":
                    gone |= {g.incarnation for g in members.tick(now)}
                case "drain":
                    members.drain(name)
                case "opened":
                    members.opened(name, incarnation, now)
                case _:
                    members.closed(name, incarnation, now)
        except StateLost:
            assert incarnation in gone
        members.validate()
        assert not gone & {m.facts.incarnation for m in members.all()}
