"""`tg.profile`: one trace of client, wire, queue and device, by one clock, of one session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import IndexRange, VersionMismatch

Event = dict[str, Any]
SERVER, CLIENT = 2, 1


@tg.function
def step(x: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    return tg.exp(x @ w).sum()


def operands() -> tuple[Any, Any]:
    return np.ones((200, 300), np.float32), np.zeros((300, 40), np.float32)


def events(path: Path) -> list[Event]:
    return json.loads(path.read_text())["traceEvents"]  # type: ignore[no-any-return]


def spans(path: Path, process: int) -> list[Event]:
    return [e for e in events(path) if e["ph"] == "X" and e["pid"] == process]


def trace(tmp_path: Path, steps: int = 3, **options: Any) -> tuple[Path, Any]:
    path = tmp_path / "trace.json"
    x, w = operands()
    step(x, w).item()
    with tg.profile(path, **options) as found:
        for _ in range(steps):
            step(x, w).item()
    return path, found


def end(e: Event) -> float:
    return e["ts"] + e["dur"]  # type: ignore[no-any-return]


def test_every_step_of_a_run_is_there_with_its_line(session: tg.Session, tmp_path: Path) -> None:
    path, _ = trace(tmp_path)

    device = spans(path, SERVER)
    assert sum(e["name"] == "run" for e in device) == 3
    matmuls = [e for e in device if e["name"] == "matmul"]
    assert len(matmuls) == 3
    assert all(Path(__file__).name in e["args"]["line"] for e in matmuls)


def test_spans_of_a_thread_nest(session: tg.Session, tmp_path: Path) -> None:
    path, _ = trace(tmp_path)

    for process in (CLIENT, SERVER):
        open_ends: list[float] = []
        for e in sorted(spans(path, process), key=lambda e: (e["ts"], -e["dur"])):
            while open_ends and open_ends[-1] <= e["ts"] + 0.002:
                open_ends.pop()
            assert not open_ends or end(e) <= open_ends[-1] + 0.002
            open_ends.append(end(e))


def test_what_the_server_does_for_a_read_lies_inside_the_clients_wait(session: tg.Session, tmp_path: Path) -> None:
    path, found = trace(tmp_path)

    error = found.round_trip_ns / 2e3
    fetches = [e for e in spans(path, SERVER) if e["name"] == "fetch"]
    waits = [e for e in spans(path, CLIENT) if e["name"] == "wait"]
    assert len(fetches) == len(waits) == 3
    for fetch, wait in zip(fetches, waits, strict=True):
        assert wait["ts"] - error <= fetch["ts"]
        assert end(fetch) <= end(wait) + error


def test_a_run_waits_on_the_wire_then_in_the_queue_then_runs(session: tg.Session, tmp_path: Path) -> None:
    path, found = trace(tmp_path, steps=1)

    (run,) = [e for e in spans(path, SERVER) if e["name"] == "run"]
    same = [e for e in events(path) if e["ph"] in "be" and e["id"].split()[1] == str(run["args"]["command"])]
    when = {(e["cat"], e["ph"]): e["ts"] for e in same}
    (dispatch,) = [e for e in spans(path, CLIENT) if e["name"] == "dispatch step"]
    assert dispatch["ts"] <= when["wire", "b"] <= when["wire", "e"]
    assert when["queue", "b"] - found.round_trip_ns / 2e3 <= when["wire", "e"]
    assert when["queue", "b"] <= when["queue", "e"] <= run["ts"] + 0.002
    assert next(e for e in same if e["cat"] == "wire" and e["ph"] == "b")["args"]["bytes"] > 50


def test_uploads_have_their_bytes(session: tg.Session, tmp_path: Path) -> None:
    path, _ = trace(tmp_path, steps=1)

    (upload,) = [e for e in spans(path, CLIENT) if e["name"].startswith("upload")]
    assert upload["args"]["bytes"] == 200 * 300 * 4


def test_only_the_own_session_is_in_it(session: tg.Session, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    x, w = operands()
    with tg.connect(backend="numpy", new=True) as other, other.active():
        step(x, w).item()
        with session.active(), tg.profile(path):
            with other.active():
                step(x, w).item()
            tg.asarray([1.0, 2.0]).sum().item()

    names = {e["name"] for e in spans(path, SERVER)}
    assert "sum" in names
    assert "matmul" not in names


def test_no_more_is_kept_than_asked_for(session: tg.Session, tmp_path: Path) -> None:
    path, found = trace(tmp_path, steps=20, spans=10)

    kept = [e for e in events(path) if e["pid"] == SERVER and e["ph"] in "Xb"]
    assert len(kept) == 10
    assert found.dropped_spans > 50


def test_after_it_nothing_is_recorded(session: tg.Session, tmp_path: Path) -> None:
    trace(tmp_path)
    x, w = operands()
    step(x, w).item()

    told = session.commands.profile(0)

    assert told.spans == ()
    assert session.commands.recorder is None
    path, _ = trace(tmp_path, steps=2)  # and it may begin again
    assert sum(e["name"] == "run" for e in spans(path, SERVER)) == 2


def test_it_is_written_although_a_step_fails(session: tg.Session, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    x = tg.asarray(np.ones(3, np.float32))
    with pytest.raises(IndexRange), tg.profile(path):
        tg.take(x, tg.asarray(np.array([7]))).sum().item()

    assert any(e["name"] == "run" for e in spans(path, SERVER))
    with tg.profile(path):
        (x + 1).sum().item()
    assert any(e["name"] == "add" for e in spans(path, SERVER))


def test_results_are_the_same_bits(session: tg.Session, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(a.shape).astype(np.float32) / 9 for a in operands())
    plain = step(x, w).numpy()

    with tg.profile(tmp_path / "trace.json"):
        recorded = step(x, w).numpy()

    assert plain.tobytes() == recorded.tobytes()


def test_a_server_that_cannot_is_not_asked(
    session: tg.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    connection = session.commands.connection
    monkeypatch.setattr(connection, "greeting", replace(connection.greeting, features=("explain",)))

    with pytest.raises(VersionMismatch, match="profile"), tg.profile(tmp_path / "trace.json"):
        pass
