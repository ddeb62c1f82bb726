"""Groups of workers: the bits of every collective, and that nobody hangs whatever happens to a member."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from telegrad.errors import AccessError, WorkerLost
from telegrad_server.cluster.collectives import Listener, Member, One, Tls, host_identity
from telegrad_server.cluster.collectives.frames import PIECE_BYTES
from telegrad_server.cluster.collectives.handshake import PROTOCOL, Hello, Line, nonce
from telegrad_server.executors.communicator import ONCE, Communicator
from telegrad_server.tree import Division, spans

from tests.cluster.member import KEY, digest, leaf, summed

pytestmark = pytest.mark.slow  # members in processes of their own

PIECE = PIECE_BYTES // 4
NEAR = pytest.mark.parametrize("machine", ["", host_identity()], ids=["sockets", "shared memory"])


class Workers:
    """Members of groups, each with its listener and a thread of its own, in this process."""

    def __init__(self, size: int, *, machine: str = "", tls: Tls | None = None, timeout_seconds: float = 10.0) -> None:
        self.size = size
        self.timeout_seconds = timeout_seconds
        self.listeners = [Listener("127.0.0.1", 0, tls=tls) for _ in range(size)]
        for listener in self.listeners:
            listener.start()
        self.members = [Member(f"w{r}", "127.0.0.1", at.port, machine) for r, at in enumerate(self.listeners)]
        self.pool = ThreadPoolExecutor(size)

    def join(self, *, generation: int = 1, keys: dict[int, bytes] | None = None) -> list[Communicator]:
        """A group of all of them."""
        return self.each(lambda rank: self.join_one(rank, generation=generation, key=(keys or {}).get(rank, KEY)))

    def join_one(self, rank: int, *, generation: int = 1, key: bytes = KEY, members: int | None = None) -> Communicator:
        """One member's end."""
        return self.listeners[rank].join(
            self.members[:members],
            rank=rank,
            group="g",
            generation=generation,
            key=key,
            timeout_seconds=self.timeout_seconds,
        )

    def each(self, work: Callable[[int], Any]) -> list[Any]:
        """What a piece of work gives on every rank, all at once."""
        return [future.result() for future in [self.pool.submit(work, rank) for rank in range(self.size)]]

    def close(self) -> None:
        """End all of it."""
        self.each(lambda rank: self.listeners[rank].close())
        self.pool.shutdown()


@pytest.fixture
def workers() -> Iterator[Callable[..., Workers]]:
    """Makes workers; afterwards no thread and nothing in /dev/shm is left of them."""
    made: list[Workers] = []
    before = {*os.listdir("/dev/shm")} if Path("/dev/shm").exists() else set()

    def make(size: int, **options: Any) -> Workers:
        made.append(Workers(size, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()
    assert [t.name for t in threading.enumerate() if "collectives" in t.name] == []
    assert not before or {*os.listdir("/dev/shm")} <= before


def lost(work: Callable[[], object]) -> WorkerLost:
    """The error of something that must fail."""
    with pytest.raises(WorkerLost) as caught:
        work()
    return caught.value


# values and bits


@NEAR
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_sum_has_the_same_bits_however_replicas_are_divided(
    size: int, machine: str, workers: Callable[..., Workers]
) -> None:
    team = workers(size, machine=machine)
    groups = team.join()
    rng = random.Random(size)
    for count in (0, 1, 7, size * PIECE + 3, 3 * PIECE * size + 1):
        replicas = rng.randint(1, 9)
        cuts = [0, *sorted(rng.randint(0, replicas) for _ in range(size - 1)), replicas]
        division = Division(replicas, tuple(itertools.pairwise(cuts)))
        leaves = {r: leaf(r, count) for r in range(replicas)}
        expected = summed((0, replicas), leaves)

        def work(rank: int, division: Division = division, leaves: dict[int, Any] = leaves, count: int = count) -> str:
            parts = [summed(node, leaves) for node in division.nodes(rank)]
            out = np.full(count, np.nan, np.float32)
            groups[rank].all_reduce(parts, out, division=division, tag=3)
            return digest(out)

        assert team.each(work) == [digest(expected)] * size, (count, division)


@pytest.mark.parametrize("dtype", ["float64", "int32", "int64", "uint8", "float16", "bfloat16"])
def test_every_dtype_is_summed_and_16_bit_floats_are_rounded_once(dtype: str, workers: Callable[..., Workers]) -> None:
    team = workers(3, machine=host_identity())
    groups = team.join()
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    leaves = {r: (leaf(r, 20_001) % 100).astype(kind) for r in range(5)}
    expected = summed((0, 5), leaves).astype(kind)

    def work(rank: int) -> str:
        division = Division(5, ((0, 1), (1, 4), (4, 5)))
        out = np.zeros((3, 6667), kind)
        parts = [summed(node, leaves).reshape(out.shape) for node in division.nodes(rank)]
        groups[rank].all_reduce(parts, out, division=division, tag=0)
        return digest(out)

    assert team.each(work) == [digest(expected)] * 3


@NEAR
@pytest.mark.parametrize("count", [3, 10, 5 * PIECE + 2])
def test_the_other_collectives_move_what_they_say(count: int, machine: str, workers: Callable[..., Workers]) -> None:
    team = workers(3, machine=machine)
    groups = team.join()
    division = Division.even(3, size=3)
    leaves = {r: leaf(r, count) for r in range(3)}
    total, cut = summed((0, 3), leaves), spans(count, 3)

    def work(rank: int) -> bool:
        group, (first, last) = groups[rank], cut[rank]
        chunk, whole = np.zeros(last - first, np.float32), np.zeros(count, np.float32)
        group.reduce_scatter([leaves[rank]], chunk, division=division, tag=0)
        group.all_gather(chunk, whole, tag=0)
        told = leaves[1].copy() if rank == 1 else np.zeros(count, np.float32)
        group.broadcast(told, root=1, tag=0)
        got = np.zeros(count, np.float32)
        if rank == 0:
            group.send(leaves[0], peer=2, tag=0)
            group.send(leaves[1], peer=2, tag=0)
        elif rank == 2:
            group.recv(got, peer=0, tag=0)
            assert (got == leaves[0]).all()
            group.recv(got, peer=0, tag=0)
        group.barrier()
        return (
            digest(chunk) == digest(total[first:last])
            and digest(whole) == digest(total)
            and digest(told) == digest(leaves[1])
            and (rank != 2 or digest(got) == digest(leaves[1]))
        )

    assert team.each(work) == [True] * 3


@NEAR
def test_tags_match_calls_that_are_issued_in_different_orders(machine: str, workers: Callable[..., Workers]) -> None:
    team = workers(3, machine=machine)
    groups = team.join()
    division = Division.even(3, size=3)
    counts = [5, 4 * PIECE, 2 * PIECE + 1, 1, 7 * PIECE, 0]
    expected = [digest(summed((0, 3), {r: leaf(r + 10 * tag, n) for r in range(3)})) for tag, n in enumerate(counts)]

    def work(rank: int) -> list[str]:
        tags = random.Random(rank).sample(range(len(counts)), len(counts))
        outs = [np.zeros(n, np.float32) for n in counts]
        pending = {
            tag: groups[rank].start_all_reduce(
                [leaf(rank + 10 * tag, counts[tag])], outs[tag], division=division, tag=tag
            )
            for tag in tags
        }
        for call in pending.values():
            call.wait(timeout_seconds=None)
        return [digest(out) for out in outs]

    assert team.each(work) == [expected] * 3


def test_who_sleeps_is_woken_when_something_comes(workers: Callable[..., Workers]) -> None:
    team = workers(2, machine=host_identity())
    groups = team.join()
    turns = 40

    def work(rank: int) -> None:
        x = leaf(rank, 200_000)
        for turn in range(turns):
            if turn % 2 == rank:
                np.sort(x)  # longer than the other side looks before it sleeps
                groups[rank].send(x[:8], peer=1 - rank, tag=0)
            else:
                groups[rank].recv(np.zeros(8, np.float32), peer=1 - rank, tag=0)

    start = time.monotonic()
    team.each(work)

    assert time.monotonic() - start < turns * 0.1  # a bell that is not heard costs a quarter of a second


def test_tags_that_are_used_once_are_not_remembered(workers: Callable[..., Workers]) -> None:
    team = workers(2)
    groups = team.join()
    division = Division.even(2, size=2)

    def work(rank: int) -> list[float]:
        out = np.zeros(1)
        found = []
        for tag in (5, 5, ONCE, ONCE + 7):
            groups[rank].all_reduce([np.full(1, tag + rank, np.float64)], out, division=division, tag=tag)
            found.append(float(out[0]))
        return found

    assert team.each(work) == [[11, 11, 2 * ONCE + 1, 2 * ONCE + 15]] * 2
    assert {tag for _, _, tag in groups[0]._engine._sequences} == {5}


def test_a_sum_may_take_the_place_of_a_part(workers: Callable[..., Workers]) -> None:
    team = workers(2, machine=host_identity())
    groups = team.join()

    def work(rank: int) -> list[str]:
        found = []
        for count in (9, 5 * PIECE):
            x = leaf(rank, count)
            groups[rank].all_reduce([x], x, division=Division.even(2, size=2), tag=0)
            found.append(digest(x))
        return found

    expected = [digest(leaf(0, count) + leaf(1, count)) for count in (9, 5 * PIECE)]
    assert team.each(work) == [expected] * 2


def test_one_member_alone_keeps_the_rules() -> None:
    group = One("g", generation=4)
    out = np.zeros(3, ml_dtypes.bfloat16)
    total = np.full(3, 1.0039, np.float32)

    group.all_reduce([total], out, division=Division.even(5, size=1), tag=0)
    group.close()

    assert digest(out) == digest(total.astype(ml_dtypes.bfloat16))
    assert lost(group.barrier).details["cause"] == "left"


# faults


@NEAR
def test_an_abort_wakes_every_thread_of_every_member(machine: str, workers: Callable[..., Workers]) -> None:
    team = workers(3, machine=machine)
    groups = team.join()
    out = np.zeros(4 * PIECE, np.float32)
    waiting = [
        team.pool.submit(
            lost, lambda rank=rank: groups[rank].all_reduce([out], out, division=Division.even(3, size=3), tag=7)
        )
        for rank in (0, 1)
    ]

    groups[2].abort("the step was cancelled")
    groups[2].abort("again")

    for error in [future.result(timeout=2) for future in waiting] + [lost(groups[2].barrier)]:
        assert "rank 2 (w2 at" in error.message
        assert "the step was cancelled" in error.message
        assert (error.details["rank"], error.details["worker"], error.details["cause"]) == (2, "w2", "abort")
    assert "all_reduce of float32" in waiting[0].result().details["during"]
    assert "cancelled" in lost(groups[0].barrier).message
    assert "cancelled" in lost(groups[1].check).message


def test_who_leaves_is_named_and_what_it_has_sent_still_arrives(workers: Callable[..., Workers]) -> None:
    team = workers(2, machine=host_identity())
    groups = team.join()
    x = leaf(0, 9 * PIECE)
    got = np.zeros_like(x)
    sent = team.pool.submit(lambda: (groups[0].send(x, peer=1, tag=0), groups[0].close()))

    groups[1].recv(got, peer=0, tag=0)
    sent.result(timeout=2)
    error = lost(lambda: groups[1].recv(got, peer=0, tag=0))

    assert digest(got) == digest(x)
    assert error.details["cause"] == "left"
    assert "rank 0 (w0 at" in error.message


def test_a_wait_that_is_too_long_breaks_the_group_and_names_who_was_missing(workers: Callable[..., Workers]) -> None:
    team = workers(3)
    groups = team.join()
    out = np.zeros(PIECE, np.float32)
    pending = [
        groups[r].start_all_reduce([out], out.copy(), division=Division.even(3, size=3), tag=0) for r in range(2)
    ]

    error = lost(lambda: pending[0].wait(timeout_seconds=0.05))

    assert (error.details["cause"], error.details["rank"]) == ("timeout", 2)
    assert "rank 2 (w2 at" in error.message
    assert lost(lambda: pending[1].wait(timeout_seconds=2)).details["cause"] == "timeout"
    assert lost(groups[2].barrier).details["rank"] == 2


def test_members_that_make_different_calls_are_told(workers: Callable[..., Workers]) -> None:
    team = workers(2)
    groups = team.join()
    calls = [
        lambda: groups[0].all_gather(np.zeros(2, np.float32), np.zeros(4, np.float32), tag=0),
        lambda: groups[1].broadcast(np.zeros(4, np.float32), root=0, tag=0),
    ]

    errors = team.each(lambda rank: lost(calls[rank]))

    assert [error.details["cause"] for error in errors] == ["mismatch"] * 2


def test_another_key_is_refused_by_who_connects(workers: Callable[..., Workers]) -> None:
    team = workers(2, timeout_seconds=0.3)
    first = team.pool.submit(lost, lambda: team.join_one(0))

    with pytest.raises(AccessError, match=r"rank 0 \(w0 at .* has another key"):
        team.join_one(1, key=bytes(32))

    assert "rank 1 (w1 at" in first.result(timeout=2).message


def test_another_key_is_refused_by_who_listens(workers: Callable[..., Workers]) -> None:
    team = workers(2, timeout_seconds=0.5)
    first = team.pool.submit(lost, lambda: team.join_one(0))
    answer = b"n"
    while answer[:1] == b"n":  # until rank 0 has begun to join
        with socket.create_connection(("127.0.0.1", team.members[0].port)) as sock:
            line = Line(sock, until=time.monotonic() + 2)
            line.send(Hello(PROTOCOL, "g", 1, 1, 0).encode())
            line.send(nonce())
            answer = line.receive()
            if answer[:1] == b"w":
                line.send(bytes(32))
                answer = line.receive()

    assert answer == b"rthe proof of the group's key is wrong"
    assert "another key" in first.result(timeout=2).message


def test_nonsense_on_the_port_harms_nobody(workers: Callable[..., Workers]) -> None:
    team = workers(2)
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"\x02\0\0\0{}"):
        with socket.create_connection(("127.0.0.1", team.members[0].port)) as sock:
            sock.sendall(said)

    assert [group.size for group in team.join()] == [2, 2]


def test_a_group_is_built_again_and_stragglers_of_the_old_one_are_refused(workers: Callable[..., Workers]) -> None:
    team = workers(3)
    old = team.join()
    team.listeners[2].close()
    assert lost(old[0].barrier).details["rank"] == 2

    new = [f.result(timeout=5) for f in [team.pool.submit(team.join_one, r, generation=2, members=2) for r in range(2)]]
    done = [team.pool.submit(group.barrier) for group in new]

    assert [future.result(timeout=2) for future in done] == [None, None]
    assert "generation 1 of group g is over" in lost(lambda: team.join_one(1, generation=1)).message
    straggler = Listener("127.0.0.1", 0, tls=None)
    straggler.start()
    with pytest.raises(WorkerLost, match="refused: generation 1 of group g is over"):
        straggler.join(team.members, rank=2, group="g", generation=1, key=KEY, timeout_seconds=2)
    straggler.close()


def test_a_newer_generation_ends_the_older_one_in_the_same_process(workers: Callable[..., Workers]) -> None:
    team = workers(2)
    old = team.join()

    team.join(generation=2)

    assert "generation 2 takes its place" in lost(old[1].barrier).message
    team.each(lambda rank: old[rank].close())


def test_members_talk_over_tls(workers: Callable[..., Workers], tmp_path: Path) -> None:
    team = workers(2, tls=_certificates(tmp_path))
    groups = team.join()
    x = [leaf(r, 5 * PIECE) for r in range(2)]
    outs = [np.zeros_like(x[0]) for _ in range(2)]

    team.each(lambda r: groups[r].all_reduce([x[r]], outs[r], division=Division.even(2, size=2), tag=0))

    assert [digest(out) for out in outs] == [digest(x[0] + x[1])] * 2


def _certificates(folder: Path) -> Tls:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=worker"
    names = ["-addext", "subjectAltName=DNS:worker", "-keyout", str(folder / "key"), "-out", str(folder / "pem")]
    try:
        subprocess.run([*command.split(), *names], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl to make certificates with")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "pem", folder / "key")
    client = ssl.create_default_context(cafile=str(folder / "pem"))
    return Tls(server, client, "worker")


# processes


class Processes:
    """Members in processes of their own."""

    def __init__(self, size: int, *, is_near: bool, timeout_seconds: float = 10.0) -> None:
        command = [sys.executable, "-m", "tests.cluster.member"]
        pipe = subprocess.PIPE
        self.all = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(size)]
        told = [self.answer(r) for r in range(size)]
        self.members = [[f"w{r}", "127.0.0.1", t["port"], t["machine"] if is_near else ""] for r, t in enumerate(told)]
        self.timeout_seconds = timeout_seconds

    def order(self, to: int, **order: Any) -> None:
        """Tell one what to do."""
        stdin = self.all[to].stdin
        assert stdin is not None
        stdin.write(json.dumps(order) + "\n")
        stdin.flush()

    def answer(self, rank: int) -> dict[str, Any]:
        """What one says next."""
        stdout = self.all[rank].stdout
        assert stdout is not None
        return json.loads(stdout.readline())

    def join(self, ranks: list[int], *, generation: int = 1) -> list[dict[str, Any]]:
        """Build a group of some of them."""
        members = [self.members[r] for r in ranks]
        for new, rank in enumerate(ranks):
            self.order(rank, members=members, rank=new, generation=generation, timeout_seconds=self.timeout_seconds)
        return [self.answer(rank) for rank in ranks]

    def all_reduce(self, ranks: list[int], *, count: int, replicas: int, times: int = 1) -> None:
        """Let some of them sum."""
        for rank in ranks:
            self.order(rank, count=count, replicas=replicas, times=times)

    def close(self) -> None:
        """End those that live, with nothing left in them."""
        for process in self.all:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
            assert process.stdin is not None
            process.stdin.close()
        for process in self.all:
            assert process.stdout is not None
            lines = process.stdout.read().splitlines()
            process.stdout.close()
            if process.wait(timeout=10) == 0:
                assert json.loads(lines[-1]) == {"threads": ["MainThread"]}


@pytest.fixture
def processes() -> Iterator[Callable[..., Processes]]:
    """Makes processes and ends them."""
    made: list[Processes] = []

    def make(size: int, **options: Any) -> Processes:
        made.append(Processes(size, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("is_near", [False, True], ids=["sockets", "shared memory"])
def test_who_is_killed_in_the_middle_is_named_and_the_rest_sum_to_the_same_bits(
    is_near: bool, processes: Callable[..., Processes]
) -> None:
    before = {*os.listdir("/dev/shm")}
    team = processes(3, is_near=is_near)
    kind = "shared memory" if is_near else "socket"
    assert [set(answer["links"].values()) for answer in team.join([0, 1, 2])] == [{kind}] * 3
    expected = digest(summed((0, 4), {r: leaf(r, 3 * PIECE) for r in range(4)}))
    team.all_reduce([0, 1, 2], count=3 * PIECE, replicas=4)
    assert [team.answer(r) for r in range(3)] == [{"digest": expected}] * 3

    team.all_reduce([0, 1, 2], count=16 * PIECE, replicas=4, times=1_000_000)
    assert _is_running(team.all[1].pid)
    team.all[1].kill()
    start = time.monotonic()
    errors = [team.answer(r) for r in (0, 2)]

    assert time.monotonic() - start < 2
    for error in errors:
        assert (error["error"], error["rank"], error["worker"]) == ("WorkerLost", 1, "w1")
        assert "all_reduce of float32" in error["during"]
    team.join([0, 2], generation=2)
    team.all_reduce([0, 2], count=3 * PIECE, replicas=4)
    assert [team.answer(r) for r in (0, 2)] == [{"digest": expected}] * 2
    assert {*os.listdir("/dev/shm")} <= before


def test_a_member_that_stands_still_is_given_up(processes: Callable[..., Processes]) -> None:
    team = processes(2, is_near=True, timeout_seconds=0.6)
    team.join([0, 1])
    team.all[1].send_signal(signal.SIGSTOP)
    start = time.monotonic()

    team.all_reduce([0], count=5 * PIECE, replicas=2)
    error = team.answer(0)

    assert 0.5 < time.monotonic() - start < 2.5
    assert (error["cause"], error["worker"]) == ("timeout", "w1")


def test_a_group_that_waits_uses_no_processor(processes: Callable[..., Processes]) -> None:
    team = processes(2, is_near=True, timeout_seconds=1.2)
    team.join([0, 1])
    before = _cpu_seconds(team.all[0].pid)

    team.all_reduce([0], count=5, replicas=2)  # rank 1 never comes
    assert team.answer(0)["cause"] == "timeout"

    assert _cpu_seconds(team.all[0].pid) - before < 0.15


def _is_running(pid: int) -> bool:
    """Whether a process has begun to work: it has used more time than before."""
    start = _cpu_seconds(pid)
    until = time.monotonic() + 5
    while time.monotonic() < until:
        if _cpu_seconds(pid) > start + 0.03:
            return True
    return False


def _cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
