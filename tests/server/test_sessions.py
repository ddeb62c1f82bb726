"""A session as a state machine: commands in, tasks and events out, no thread and no clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from telegrad.errors import ExecutionError, QuotaExceeded, ResourceError, SessionError
from telegrad.ir import Type
from telegrad.ir import types as t
from telegrad.wire import messages as m
from telegrad_server.events import Events
from telegrad_server.names import Names
from telegrad_server.scopes import REMEMBERED_NAMES, ScopeTree
from telegrad_server.sessions import (
    ACKNOWLEDGE_BYTES,
    REFUSED_BYTES,
    WINDOW_BYTES,
    Answer,
    Execute,
    Fetched,
    Make,
    Outcome,
    Session,
    Task,
)
from telegrad_server.store import Account, Stored

SCALAR = Type((), t.float32)
F, G = b"f" * 32, b"g" * 32


class Driver:
    """A session, and tasks carried out by hand. Functions update their first input if it is a name."""

    def __init__(
        self,
        *,
        known: Sequence[bytes] = (F,),
        max_bytes: int = 1 << 40,
        max_names: int = 1 << 40,
        unheard_events: int = 1000,
        unheard_bytes: int = 1 << 40,
    ) -> None:
        self.known = set(known)
        self.tenant = Account("the tenant", limit_bytes=1 << 40)
        account = Account("the session", limit_bytes=max_bytes, wider=self.tenant)
        self.session = Session(
            id="s",
            tenant="t",
            secret=b"x",
            lease_seconds=10.0,
            heard_at=0.0,
            names=Names(account, max_names=max_names),
            events=Events(limit=unheard_events, limit_bytes=unheard_bytes),
            is_known=lambda f: f in self.known,
            updated_by=lambda f: (0,),
        )
        self.sequence = 0
        self.fail: Callable[[Task], bool] = lambda task: False
        self.made = 0
        self.is_paused = False

    def send(self, command: m.Command) -> int:
        """Send a command, and carry out what it leads to."""
        self.sequence += 1
        self.session.receive(self.sequence, command)
        self.work()
        return self.sequence

    def work(self) -> None:
        """Carry out tasks until there are none, unless paused."""
        while not self.is_paused and (task := self.session.under_way or self.session.proceed()) is not None:
            self.session.finish(task, self.outcome(task))
        self.session.validate()

    def uploaded(self, name: int, text: str = "up", type: Type = SCALAR) -> None:
        self.session.uploaded(name, type, text, type.nbytes)
        self.work()

    def outcome(self, task: Task) -> Outcome:
        if self.fail(task):
            return Outcome(error=ExecutionError("no", node=3))
        if isinstance(task, Make):
            return Outcome([(task.put.data.decode().strip(), 4)])
        if isinstance(task, Answer):
            data = str(task.stored.value).encode()
            return Outcome(
                fetched=Fetched(SCALAR, data, ticket="ticket of " + data.decode() if b"huge" in data else "")
            )
        self.made += 1
        values = [(f"{task.operands}#{self.made}", 4) for _ in task.run.outputs]
        updates = [(0, 0)] if task.run.inputs and task.run.inputs[0] and values else []
        return Outcome(values, updates)

    def events(self) -> list[m.Event]:
        found = [event for _, event in self.session.events.outbox]
        self.session.events.outbox.clear()
        return found

    def put(self, name: int, text: str = "a", scope: int = 0) -> int:
        return self.send(m.Put(name, SCALAR, text.encode().ljust(4), scope))

    def fetched(self, name: int) -> str:
        """What a fetch of the name brings: the data or ticket, or the reason why not."""
        sequence = self.send(m.Fetch(name))
        for event in self.events():
            if isinstance(event, m.Fetched) and event.sequence == sequence:
                return event.ticket or (event.data or b"").decode()
            if isinstance(event, m.Failed) and event.sequence == sequence:
                return event.error.reason
        raise AssertionError("nothing came back")


@pytest.fixture
def d() -> Driver:
    return Driver()


def test_a_command_takes_effect_once(d: Driver) -> None:
    d.put(1)
    first = d.send(m.Run(F, (1,), (2,)))

    d.session.receive(first, m.Run(F, (1,), (2,)))
    d.work()

    assert d.made == 1


def test_a_missing_command_is_noticed(d: Driver) -> None:
    with pytest.raises(SessionError) as caught:
        d.session.receive(2, m.Fetch(1))

    assert caught.value.reason == "SEQ_GAP"


def test_a_run_whose_function_is_missing_parks_the_queue_and_asks_once(d: Driver) -> None:
    d.put(1)
    d.send(m.Run(G, (0, 1), (2,)))
    d.send(m.Fetch(2))
    asked = [e for e in d.events() if isinstance(e, m.FunctionNeeded)]
    assert asked == [m.FunctionNeeded(G)] and d.made == 0

    d.known.add(G)
    d.session.supplied(G)
    d.work()

    assert d.made == 1
    assert any(isinstance(e, m.Fetched) for e in d.events())


def test_a_new_stream_is_asked_again_for_a_missing_function(d: Driver) -> None:
    d.send(m.Run(G, (), (2,)))
    d.events()

    d.session.attach(0)

    assert m.FunctionNeeded(G) in d.events()


def test_a_run_waits_for_an_upload_that_comes_later(d: Driver) -> None:
    d.send(m.Expect(1, SCALAR))
    d.send(m.Run(F, (0, 1), (2,)))
    assert d.made == 0

    d.uploaded(1)

    assert "up" in d.fetched(2)


def test_an_upload_may_come_before_it_is_announced(d: Driver) -> None:
    d.uploaded(1)
    d.send(m.Expect(1, SCALAR))

    assert d.fetched(1) == "up"


def test_an_upload_of_another_type_than_announced_fails_its_name(d: Driver) -> None:
    d.send(m.Expect(1, SCALAR))
    d.uploaded(1, type=Type((2,), t.float32))

    assert d.fetched(1) == "DATA_LENGTH"


def test_a_failed_upload_keeps_nobody_waiting(d: Driver) -> None:
    d.send(m.Expect(1, SCALAR))
    d.send(m.Run(F, (0, 1), (2,)))
    d.session.upload_failed(1, SCALAR, m.ErrorRecord("DATA_TRUNCATED", "short"))
    d.work()

    assert d.fetched(2) == "DATA_TRUNCATED"


def test_releasing_an_upload_that_never_came_keeps_nobody_waiting(d: Driver) -> None:
    d.send(m.Expect(1, SCALAR))
    d.send(m.Release((1,)))

    assert d.fetched(1) == "NAME_UNKNOWN"


def test_a_failed_run_changes_nothing_and_holds_its_variables_back(d: Driver) -> None:
    d.put(1, "v0")
    d.fail = lambda task: isinstance(task, Execute) and 9 in task.run.outputs
    failed = d.send(m.Run(F, (1,), (9,)))
    d.send(m.Run(F, (1,), (10,)))  # touches the variable: refused
    d.send(m.Run(F, (0, 10), (11,)))  # touches a refused result: refused too
    failures = [e for e in d.events() if isinstance(e, m.Failed)]

    assert [e.error.sequence for e in failures] == [failed] * 3
    assert failures[0].error.node == 3
    assert d.made == 0
    assert d.fetched(1) == d.fetched(9) == d.fetched(11) == "OP_FAILED"


def test_resume_lets_the_session_go_on_from_the_last_good_step(d: Driver) -> None:
    d.put(1, "v0")
    d.fail = lambda task: isinstance(task, Execute)
    failed = d.send(m.Run(F, (1,), (9,)))
    d.fail = lambda task: False
    d.send(m.Resume(failed))

    assert d.fetched(1) == "v0"
    assert d.fetched(9) == "OP_FAILED"
    d.send(m.Run(F, (1,), (12,)))
    assert d.fetched(1).startswith("('v0',)")


def test_resume_of_one_error_does_not_forgive_another(d: Driver) -> None:
    d.put(1)
    d.put(2)
    d.fail = lambda task: isinstance(task, Execute)
    first = d.send(m.Run(F, (1,), (8,)))
    d.send(m.Run(F, (2,), (9,)))
    d.send(m.Resume(first))

    assert d.fetched(1) == "a"
    assert d.fetched(2) == "OP_FAILED"


def test_an_alias_keeps_the_value_of_its_moment(d: Driver) -> None:
    d.put(1, "v0")
    d.send(m.Alias(5, 1))
    d.send(m.Run(F, (1,), (0,)))

    assert d.fetched(5) == "v0"
    assert d.fetched(1) != "v0"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (m.Fetch(77), "NAME_UNKNOWN"),
        (m.Alias(5, 77), "NAME_UNKNOWN"),
        (m.Run(F, (0, 77), (3,)), "NAME_UNKNOWN"),
        (m.Run(F, (), (1,)), "NAME_REUSED"),
        (m.Run(F, (), (3, 3)), "NAME_REUSED"),
        (m.Put(1, SCALAR, b"aaaa"), "NAME_REUSED"),
        (m.Put(4, SCALAR, b"aaaa", 9), "SCOPE_UNKNOWN"),
        (m.OpenScope(3, 9), "SCOPE_UNKNOWN"),
        (m.OpenScope(0, 0), "SCOPE_UNKNOWN"),
        (m.CloseScope(0), "SCOPE_UNKNOWN"),
        (m.CloseScope(5), "SCOPE_UNKNOWN"),
    ],
)
def test_a_command_that_cannot_be_is_refused_and_the_session_lives_on(
    d: Driver, command: m.Command, reason: str
) -> None:
    d.put(1)
    d.events()

    d.send(command)

    assert [e.error.reason for e in d.events() if isinstance(e, m.Failed)] == [reason]
    assert d.fetched(1) == "a"


def test_closing_a_scope_frees_it_and_its_children_but_not_what_is_kept(d: Driver) -> None:
    d.send(m.OpenScope(1, 0))
    d.send(m.OpenScope(2, 1))
    d.put(10, "outer", 1)
    d.put(11, "inner", 2)
    d.put(12, "kept", 2)
    d.send(m.CloseScope(1, (12,)))

    assert (d.fetched(10), d.fetched(11), d.fetched(12)) == ("SCOPE_CLOSED", "SCOPE_CLOSED", "kept")


def test_releasing_twice_is_harmless(d: Driver) -> None:
    d.put(1)
    d.send(m.Release((1, 1, 99)))

    assert len(d.session.names) == 0
    assert not any(isinstance(e, m.Failed) for e in d.events())


def test_a_quota_refuses_before_it_is_passed() -> None:
    d = Driver(max_bytes=8, max_names=3)
    d.put(1)
    d.put(2)
    d.send(m.Put(3, SCALAR, b"cccc"))

    assert d.fetched(3) == "QUOTA_DEVICE_BYTES"
    d.send(m.Expect(4, SCALAR))
    assert d.fetched(1) == "a"


def test_a_lease_ends_after_silence_and_not_before(d: Driver) -> None:
    d.session.hear(5.0)

    assert not d.session.has_expired(15.0)
    assert d.session.has_expired(15.01)
    d.session.hear(3.0)  # late news from the past shortens nothing
    assert not d.session.has_expired(15.0)


def test_what_finishes_after_the_end_is_dropped(d: Driver) -> None:
    d.put(1)
    d.is_paused = True
    d.send(m.Run(F, (0, 1), (2,)))
    task = d.session.proceed()
    assert task is not None

    assert d.session.end() == 1
    d.session.finish(task, d.outcome(task))
    assert len(d.session.names) == 0
    assert d.tenant.nbytes == 0
    d.session.validate()


def test_events_that_were_not_heard_come_again(d: Driver) -> None:
    d.put(1)
    d.send(m.Fetch(1))
    d.send(m.Fetch(1))
    numbers = [n for n, e in d.session.events.outbox if isinstance(e, m.Fetched)]

    assert d.session.attach(numbers[0]) == 3
    assert [n for n, e in d.session.events.outbox if isinstance(e, m.Fetched)] == numbers[1:]


def test_hearing_of_events_that_never_were_forgets_none_to_come(d: Driver) -> None:
    d.put(1)
    d.session.hear(1.0, event=10**18)
    d.send(m.Fetch(1))

    assert d.session.attach(0) == 2
    assert [type(e) for e in d.events()] == [m.Fetched]


def test_acknowledgements_come_in_batches(d: Driver) -> None:
    for name in range(1, 200):
        d.put(name)

    assert [e.sequence for e in d.events() if isinstance(e, m.Acknowledged)] == [64, 128, 192]
    d.session.acknowledge()
    assert d.events() == [m.Acknowledged(199)]


def test_many_bytes_are_acknowledged_at_once(d: Driver) -> None:
    d.send(m.Run(F, (0,), (1,), bytes(ACKNOWLEDGE_BYTES)))

    assert m.Acknowledged(1) in d.events()


def test_a_command_that_comes_twice_is_acknowledged_again(d: Driver) -> None:
    first = d.put(1)
    d.session.acknowledge()
    d.events()

    d.session.receive(first, m.Fetch(1))
    d.session.acknowledge()

    assert d.events() == [m.Acknowledged(first)]


def test_a_client_that_sends_more_than_the_window_holds_is_not_acknowledged_until_there_is_room(d: Driver) -> None:
    d.is_paused = True
    for _ in range(6):
        d.send(m.Run(F, (0,), (), bytes(WINDOW_BYTES // 4)))
    assert not d.session.has_room
    d.session.acknowledge()
    acknowledged = max(e.sequence for e in d.events() if isinstance(e, m.Acknowledged))
    assert acknowledged < 6

    d.is_paused = False
    d.work()

    assert m.Acknowledged(6) in d.events()


def test_a_client_that_sends_on_without_acknowledgement_is_refused_in_the_end(d: Driver) -> None:
    d.is_paused = True
    large = m.Run(F, (0,), (), bytes(16 << 20))
    with pytest.raises(ResourceError):
        for _ in range(REFUSED_BYTES // (16 << 20) + 1):
            d.send(large)

    d.session.validate()


def test_a_client_that_hears_nothing_makes_its_session_wait() -> None:
    d = Driver(unheard_events=3)
    d.put(1)
    for _ in range(5):
        d.send(m.Fetch(1))
    heard = [n for n, e in d.session.events.outbox if isinstance(e, m.Fetched)]
    assert len(heard) == 3

    d.session.hear(1.0, heard[0])
    d.work()

    assert len([e for e in d.events() if isinstance(e, m.Fetched)]) == 4


def test_events_of_many_bytes_make_a_session_wait_too() -> None:
    d = Driver(unheard_bytes=1000)
    d.put(1)
    for _ in range(10):
        d.send(m.Fetch(1))

    assert len([e for e in d.events() if isinstance(e, m.Fetched)]) == 4


# ---- uploads


def test_an_upload_that_failed_before_it_was_announced_keeps_nobody_waiting(d: Driver) -> None:
    d.session.upload_failed(1, SCALAR, m.ErrorRecord("DATA_TRUNCATED", "short"))
    d.send(m.Expect(1, SCALAR))

    assert d.fetched(1) == "DATA_TRUNCATED"


def test_a_failed_upload_is_the_failure_of_its_announcement_and_can_be_resumed(d: Driver) -> None:
    d.put(1, "v0")
    announced = d.send(m.Expect(2, SCALAR))
    d.send(m.Run(F, (1, 2), (3,)))
    d.session.upload_failed(2, SCALAR, m.ErrorRecord("DATA_TRUNCATED", "short"))
    d.work()
    failures = [e for e in d.events() if isinstance(e, m.Failed)]
    assert [e.error.sequence for e in failures] == [announced] * 2
    assert d.fetched(1) == "DATA_TRUNCATED"  # held back

    d.send(m.Resume(announced))

    assert d.fetched(1) == "v0"


def test_an_upload_that_comes_after_its_name_was_released_is_dropped(d: Driver) -> None:
    d.send(m.Expect(1, SCALAR))
    d.send(m.Release((1,)))
    d.uploaded(1)

    assert d.session.account.nbytes == 0
    assert d.session.names.freed == ["up"]


def test_uploads_that_nobody_announces_are_paid_for_and_limited() -> None:
    d = Driver(max_bytes=8)
    for name in (1, 2):
        d.session.names.check_upload(name, SCALAR)
        d.uploaded(name)
    with pytest.raises(QuotaExceeded):
        d.session.names.check_upload(3, SCALAR)

    d.send(m.Release((1, 2)))

    assert d.session.account.nbytes == 0


def test_an_early_upload_of_another_type_fails_its_name(d: Driver) -> None:
    d.uploaded(1, type=Type((2,), t.float32))
    d.send(m.Expect(1, SCALAR))

    assert d.fetched(1) == "DATA_LENGTH"
    assert d.session.account.nbytes == 0


# ---- what things cost


def test_a_value_with_two_names_is_paid_for_once(d: Driver) -> None:
    d.put(1)
    d.send(m.Alias(2, 1))
    assert (d.session.account.nbytes, d.tenant.nbytes) == (4, 4)

    d.send(m.Release((1,)))
    assert d.session.account.nbytes == 4
    assert d.fetched(2) == "a"
    d.send(m.Release((2,)))

    assert (d.session.account.nbytes, d.tenant.nbytes) == (0, 0)
    assert d.session.names.freed == ["a"]


def test_an_update_needs_no_room_beside_what_it_replaces() -> None:
    d = Driver(max_bytes=4)
    d.put(1)
    d.send(m.Run(F, (1,), (0,)))

    assert d.fetched(1).endswith("#1")
    assert d.session.account.nbytes == 4


def test_a_run_whose_results_do_not_fit_changes_nothing() -> None:
    d = Driver(max_bytes=7)
    d.put(1, "v0")
    failed = d.send(m.Run(F, (1,), (2, 3)))

    assert d.fetched(2) == "QUOTA_DEVICE_BYTES"
    d.send(m.Resume(failed))
    assert d.fetched(1) == "v0"


def test_the_tenants_limit_holds_over_its_sessions(d: Driver) -> None:
    d.tenant.limit_bytes = 8
    other = Account("another session", limit_bytes=100, wider=d.tenant)
    Stored("x", 8, other)
    d.put(1)

    assert d.fetched(1) == "QUOTA_DEVICE_BYTES"


def test_a_fetched_value_stays_while_its_ticket_is_good(d: Driver) -> None:
    d.put(1, "huge")
    ticket = d.fetched(1)
    d.send(m.Release((1,)))
    assert d.session.tickets[ticket].data == b"huge"
    assert d.session.account.nbytes == 4

    d.session.forget_downloads(sent_before=1e9)  # nothing was sent yet
    assert ticket in d.session.tickets
    d.session.tickets[ticket].sent_at = 5.0
    d.session.forget_downloads(sent_before=6.0)

    assert not d.session.tickets
    assert d.session.account.nbytes == 0


def test_names_and_scopes_are_limited() -> None:
    d = Driver(max_names=3)
    d.send(m.OpenScope(1, 0))
    d.put(1)
    d.put(2)

    assert d.fetched(1) == d.fetched(2) == "a"
    failed = [d.send(m.OpenScope(2, 0)), d.send(m.Put(3, SCALAR, b"cccc"))]
    assert [(e.sequence, e.error.reason) for e in d.events() if isinstance(e, m.Failed)] == [
        (sequence, "QUOTA_TENSORS") for sequence in failed
    ]


def test_a_run_that_gives_fewer_inputs_than_its_function_updates_is_only_refused(d: Driver) -> None:
    d.fail = lambda task: True
    d.send(m.Run(F, (), (2,)))

    assert d.fetched(2) == "OP_FAILED"


def test_the_name_of_a_closed_scope_is_told_apart_from_one_that_never_was(d: Driver) -> None:
    d.send(m.OpenScope(1, 0))
    d.put(1, scope=1)
    d.send(m.CloseScope(1))

    assert d.fetched(1) == "SCOPE_CLOSED"
    assert d.fetched(2) == "NAME_UNKNOWN"


def test_names_of_closed_scopes_are_forgotten_in_the_end() -> None:
    scopes = ScopeTree()
    for scope in range(1, 4):
        scopes.open(scope, 0)
        for name in range(scope * REMEMBERED_NAMES, scope * REMEMBERED_NAMES + REMEMBERED_NAMES // 2):
            scopes.add(name, scope)
        scopes.close(scope, ())

    assert [scopes.closed_with(scope * REMEMBERED_NAMES) for scope in range(1, 4)] == [None, 2, 3]


class AnyOrder(RuleBasedStateMachine):
    """Random commands, failures, uploads and reconnects; the invariants hold after each."""

    def __init__(self) -> None:
        super().__init__()
        self.d = Driver()
        self.last = 0
        self.scope = 0

    names = st.integers(0, 12)

    def new(self) -> int:
        self.last += 1
        return self.last

    @rule()
    def put(self) -> None:
        self.d.put(self.new(), scope=self.scope)

    @rule(a=names, b=names, fails=st.booleans())
    def run(self, a: int, b: int, fails: bool) -> None:
        self.d.fail = lambda task: fails and isinstance(task, Execute)
        self.d.send(m.Run(F, (a, b), (self.new(), 0), scope=self.scope))

    @rule(a=names)
    def fetch(self, a: int) -> None:
        self.d.send(m.Fetch(a))

    @rule(a=names)
    def release(self, a: int) -> None:
        self.d.send(m.Release((a,)))

    @rule(a=names)
    def alias(self, a: int) -> None:
        self.d.send(m.Alias(self.new(), a, self.scope))

    @rule()
    def put_large(self) -> None:
        self.d.put(self.new(), "large", scope=self.scope)

    @rule()
    def download(self) -> None:
        for ticket in self.d.session.tickets:
            self.d.session.downloaded(ticket)
            break

    @rule(fails=st.booleans())
    def release_before_the_upload_comes(self, fails: bool) -> None:
        name = self.new()
        self.d.send(m.Expect(name, SCALAR, self.scope))
        self.d.send(m.Release((name,)))
        if fails:
            self.d.session.upload_failed(name, SCALAR, m.ErrorRecord("DATA_LENGTH", "no"))
        else:
            self.d.uploaded(name)

    @rule(early=st.booleans())
    def upload_that_fails(self, early: bool) -> None:
        name = self.new()
        if early:
            self.d.session.upload_failed(name, SCALAR, m.ErrorRecord("DATA_LENGTH", "no"))
        self.d.send(m.Expect(name, SCALAR))
        self.d.send(m.Run(F, (name,), (self.new(),)))
        if not early:
            self.d.session.upload_failed(name, SCALAR, m.ErrorRecord("DATA_LENGTH", "no"))
            self.d.work()

    @rule(sequence=st.integers(1, 50))
    def resume(self, sequence: int) -> None:
        self.d.send(m.Resume(sequence))

    @rule(early=st.booleans())
    def upload(self, early: bool) -> None:
        name = self.new()
        if early:
            self.d.uploaded(name)
        self.d.send(m.Expect(name, SCALAR))
        if not early:
            self.d.uploaded(name)

    @precondition(lambda self: self.scope == 0)
    @rule()
    def open_scope(self) -> None:
        self.scope = 1000 + self.new()
        self.d.send(m.OpenScope(self.scope, 0))

    @precondition(lambda self: self.scope != 0)
    @rule(keep=names)
    def close_scope(self, keep: int) -> None:
        self.d.send(m.CloseScope(self.scope, (keep,)))
        self.scope = 0

    @rule(back=st.integers(0, 5))
    def reconnect(self, back: int) -> None:
        events = self.d.session.events
        assert self.d.session.attach(max(events.heard, events.number - back)) == self.d.sequence

    @invariant()
    def holds(self) -> None:
        self.d.session.validate()
        assert self.d.session.under_way is None and not self.d.session.queue
        assert self.d.tenant.nbytes == self.d.session.account.nbytes == self.d.session.held_bytes()

    def teardown(self) -> None:
        self.d.session.end()
        assert self.d.tenant.nbytes == 0


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
TestAnyOrder = AnyOrder.TestCase


def test_a_command_is_settled_when_it_and_all_before_it_are_over(d: Driver) -> None:
    assert d.session.settled == 0
    d.put(1)
    assert d.session.settled == 1
    d.is_paused = True
    d.session.receive(2, m.Fetch(1))
    d.session.receive(3, m.Release((1,)))
    assert d.session.settled == 1

    task = d.session.proceed()

    assert task is not None
    assert d.session.settled == 1
    d.is_paused = False
    d.work()
    assert d.session.settled == 3
