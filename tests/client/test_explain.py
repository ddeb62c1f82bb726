"""`session.explain`: what a step would take, said before it is run, and true."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn, optim
from telegrad.errors import GraphError, ShapeError, VersionMismatch
from telegrad.function import Function

ROWS = 32


def batch(rows: int = ROWS) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, 600)).astype(np.float32), rng.integers(0, 4, rows)


def training() -> tuple[nn.Module, Function[Any, tg.Tensor]]:
    model = nn.Sequential(nn.Linear(600, 8), nn.ReLU(), nn.Linear(8, 4))
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @tg.function
    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.minimize(loss)
        return loss

    return model, step


def test_nothing_is_run_and_the_step_is_then_what_it_would_have_been(session: tg.Session) -> None:
    model, step = training()
    x, y = batch()
    before = [p.numpy() for p in model.parameters()]

    session.explain(step, x, y)

    for was, p in zip(before, model.parameters(), strict=True):
        np.testing.assert_array_equal(was, p.numpy())
    losses = [step(x, y).item() for _ in range(3)]
    assert losses[2] < losses[0]
    assert step.traces == 1


def test_bytes_up_are_the_batch_and_a_small_message(session: tg.Session) -> None:
    _, step = training()
    x, y = batch()

    found = session.explain(step, x, y)

    brought = {traffic.what: traffic.nbytes for traffic in found.up}
    assert brought["x"] == x.nbytes
    assert brought["y"] == y.nbytes
    assert brought["the call"] < 200
    assert found.up_bytes == sum(brought.values())


def test_what_is_on_the_server_is_not_sent_again(session: tg.Session) -> None:
    _, step = training()
    x, y = (tg.asarray(a) for a in batch())

    found = session.explain(step, x, y)

    assert "x" not in {traffic.what for traffic in found.up}
    assert found.up_bytes < 1000


def test_the_results_are_what_may_come_down(session: tg.Session) -> None:
    _, step = training()

    found = session.explain(step, *batch())

    assert [str(type) for type in found.results] == ["float32[]"]
    assert found.down_bytes == 4


def test_flops_grow_with_the_batch(session: tg.Session) -> None:
    _, step = training()
    small, large = (session.explain(step, *batch(rows)) for rows in (ROWS, 4 * ROWS))

    assert 3.5 < large.flops / small.flops < 4.1
    assert large.flops > 2 * 3 * 4 * ROWS * 600 * 8 * 2 / 3
    assert large.moved_bytes > small.moved_bytes


def test_the_step_that_peaks_has_a_line(session: tg.Session) -> None:
    @tg.function
    def wide(x: tg.Tensor) -> tg.Tensor:
        small = x * 2
        outer = tg.expand_dims(small, axis=0) * tg.expand_dims(small, axis=1)
        return tg.cumulative_sum(outer, axis=0).sum()

    found = session.explain(wide, np.ones(300, np.float32))

    assert found.peak is not None
    assert found.peak_bytes > 300 * 300 * 4
    (where,) = set(found.peak.lines)
    assert where is not None
    assert where[0] == __file__
    assert where[1] - wide.python.__code__.co_firstlineno in (3, 4)


def test_every_step_is_of_some_kind_and_most_have_lines(session: tg.Session) -> None:
    _, step = training()

    found = session.explain(step, *batch())

    assert found.all_steps == len(found.steps) == sum(found.kernels.values())
    assert set(found.kernels) <= {"array", "view", "constant", "printed", "library"}
    assert found.without_kernel["matmul"] == 5  # forward two, backward three: nobody wants that of x
    assert any(s.is_backward for s in found.steps)
    assert sum(line is not None for s in found.steps for line in s.lines) > len(found.steps) / 2


def test_why_it_is_compiled_again_is_said(session: tg.Session) -> None:
    _, step = training()
    session.explain(step, *batch())

    found = session.explain(step, *batch(2 * ROWS))

    assert found.signatures == 2
    assert found.changed == "argument 0 (an array float32[32,600], then an array float32[64,600])"
    assert "for 2 signatures" in str(found)


def test_the_mode_of_a_module_is_named_as_a_reason(session: tg.Session) -> None:
    model = nn.Sequential(nn.Linear(600, 8), nn.Dropout(0.5))
    forward = tg.function(lambda x: model(x).sum())  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType, reportUnknownVariableType, reportUnknownMemberType]
    x, _ = batch()
    session.explain(forward, x)  # pyright: ignore[reportUnknownArgumentType]
    model.eval()

    found = session.explain(forward, x)  # pyright: ignore[reportUnknownArgumentType]

    assert found.signatures == 2
    assert found.changed == "state that it reads, such as training"


def test_lines_that_have_waited_are_counted(session: tg.Session) -> None:
    _, step = training()
    loss = step(*batch())
    for _ in range(3):
        loss.item()

    waits = {wait.line: wait.count for wait in session.explain(step, *batch()).waits}

    assert waits[__file__, test_lines_that_have_waited_are_counted.__code__.co_firstlineno + 4] == 3


def test_a_plain_function_is_traced_for_it(session: tg.Session) -> None:
    found = session.explain(lambda x: (x * 2 + 1).sum(), np.ones(5, np.float32))

    assert found.written_ops >= 3
    assert found.results[0].shape == ()


def test_a_method_is_explained_as_it_is_called(session: tg.Session) -> None:
    class Model:
        @tg.function
        def step(self, x: tg.Tensor) -> tg.Tensor:
            return x + 1

    assert session.explain(Model().step, np.ones(5, np.float32)).results[0].shape == (5,)


def test_the_pending_graph_is_explained_and_stays_pending(session: tg.Session) -> None:
    x = tg.asarray(np.ones(1000, np.float32))
    y = tg.exp(x).sum()

    found = session.explain()

    assert found.name == "the pending graph"
    assert [step.ops for step in found.steps] == [("exp",), ("sum",)]
    assert found.signatures == 0
    assert y.item() == pytest.approx(1000 * np.e, rel=1e-6)


def test_without_anything_pending_it_says_what_to_do(session: tg.Session) -> None:
    gc.collect()

    with pytest.raises(GraphError, match="nothing is pending"):
        session.explain()


def test_what_is_wrong_with_a_call_is_raised_before_it_runs(session: tg.Session) -> None:
    _, step = training()

    with pytest.raises(ShapeError):
        session.explain(step, np.ones((3, 5), np.float32), np.zeros(3, np.int64))
    assert step(*batch()).item() > 0


def test_the_text_names_what_matters(session: tg.Session) -> None:
    _, step = training()

    text = str(session.explain(step, *batch()))

    for word in ("up ", "down ", "round trips", "operations", "at most", "test_explain.py", "no kernel", "x 77 KB"):
        assert word in text


def test_a_server_that_cannot_explain_is_not_asked(session: tg.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    connection = session.commands.connection
    monkeypatch.setattr(connection, "greeting", replace(connection.greeting, features=()))

    with pytest.raises(VersionMismatch, match="explain"):
        session.explain(lambda x: x + 1, np.ones(3, np.float32))


def test_replicas_are_explained(session: tg.Session) -> None:
    step = tg.function(lambda x: (x * 2).mean(), replicas=2)

    found = session.explain(step, np.ones((4, 600), np.float32))

    assert found.up_bytes > 4 * 600 * 4
    assert found.flops > 0
