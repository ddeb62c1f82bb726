"""Two processes of one machine: all-reduce and all-gather through shared memory and over TCP, beside gloo and MPI.

`python bench/collectives.py` prints one table, medians of one run. gloo is measured where torch is installed. MPI is
measured by the Python that ``--mpi-python`` names, with mpi4py and an ``mpiexec`` beside it:
`python -m venv mpi && mpi/bin/pip install numpy mpi4py mpich`. Ours hand the
work to another thread, as a training step does; MPI works and spins in the caller, so compare large sizes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

CASES = {"1 KB all-reduce": (1 << 8, 400), "1 MB all-reduce": (1 << 18, 60), "64 MB all-reduce": (1 << 24, 11)}
GATHER = ("64 MB all-gather", 1 << 24, 11)


def measure(reduce: Callable[..., object], gather: Callable[..., object], barrier: Callable[[], object]) -> str:
    """Median seconds of each case, as JSON."""
    found: dict[str, float] = {}
    for name, (count, times) in CASES.items():
        x, out = np.ones(count, np.float32), np.zeros(count, np.float32)
        found[name] = _median(reduce, x, out, barrier, times)
        assert (out == 2).all() or (x > 2).all()  # gloo's is in place
    name, count, times = GATHER
    x, out = np.ones(count // 2, np.float32), np.zeros(count, np.float32)
    found[name] = _median(gather, x, out, barrier, times)
    assert (out == 1).all()
    return json.dumps(found)


def _median(
    work: Callable[..., object], x: np.ndarray, out: np.ndarray, barrier: Callable[[], object], times: int
) -> float:
    seconds: list[float] = []
    for _ in range(times + 2):
        barrier()
        start = time.perf_counter()
        work(x, out)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def ours(rank: int, ports: list[int], machine: str, secrets: str) -> str:
    """One process of ours."""
    from telegrad_server.cluster.collectives import Listener, Member, Tls
    from telegrad_server.tree import Division

    files = {
        name: f"{secrets}/{file}" for name, file in (("cert", "worker.pem"), ("key", "worker.key"), ("ca", "ca.pem"))
    }
    tls = Tls.from_files(**files, server_name="telegrad-worker") if secrets else None
    listener = Listener("127.0.0.1", ports[rank], tls=tls)
    listener.start()
    members = [Member(f"w{r}", "127.0.0.1", port, machine) for r, port in enumerate(ports)]
    group = listener.join(members, rank=rank, group="bench", generation=1, key=bytes(32), timeout_seconds=60)
    division = Division.even(2, size=2)
    text = measure(
        lambda x, out: group.all_reduce([x], out, division=division, tag=0),
        lambda x, out: group.all_gather(x, out, tag=0),
        group.barrier,
    )
    listener.close()
    return text


def gloo(rank: int, ports: list[int]) -> str:
    """One process of torch's gloo. Its all-reduce is in place, so it reduces what the last one left."""
    import datetime

    import torch
    from torch import distributed

    torch.set_num_threads(1)
    store = distributed.TCPStore("127.0.0.1", ports[0], 2, rank == 0, datetime.timedelta(seconds=60))
    distributed.init_process_group("gloo", rank=rank, world_size=2, store=store)

    def reduce(x: np.ndarray, out: np.ndarray) -> None:
        distributed.all_reduce(torch.from_numpy(x))

    def gather(x: np.ndarray, out: np.ndarray) -> None:
        half = len(x)
        distributed.all_gather([torch.from_numpy(out[:half]), torch.from_numpy(out[half:])], torch.from_numpy(x))

    text = measure(reduce, gather, distributed.barrier)
    distributed.barrier()
    return text


def mpi() -> str | None:
    """One process of MPI; rank 0 has the numbers."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    text = measure(world.Allreduce, world.Allgather, world.Barrier)
    return text if world.rank == 0 else None


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _pair(*arguments: str) -> dict[str, float]:
    ports = ",".join(map(str, _free_ports(2)))
    command = [sys.executable, __file__, "--ports", ports, *arguments]
    processes = [subprocess.Popen([*command, "--rank", str(r)], stdout=subprocess.PIPE, text=True) for r in range(2)]
    answers = [process.communicate(timeout=300)[0] for process in processes]
    return json.loads(answers[0].splitlines()[-1])


def main() -> None:
    """Measure everything there is and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mpi-python", default=sys.executable)
    parser.add_argument("--who", choices=["ours", "gloo", "mpi"])
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--ports", default="")
    parser.add_argument("--machine", default="")
    parser.add_argument("--secrets", default="", help="a folder made by telegrad-server init: TLS")
    given = parser.parse_args()
    if given.who is not None:
        ports = [int(p) for p in given.ports.split(",") if p]
        workers = {
            "ours": lambda: ours(given.rank, ports, given.machine, given.secrets),
            "gloo": lambda: gloo(given.rank, ports),
        }
        text = workers.get(given.who, mpi)()
        if text is not None:
            print(text, flush=True)
        return
    from telegrad_server.cluster.collectives import host_identity

    columns = {
        "ours, shared memory": _pair("--who", "ours", "--machine", host_identity()),
        "ours, TCP": _pair("--who", "ours"),
    }
    with tempfile.TemporaryDirectory() as folder:
        subprocess.check_call(
            [sys.executable, "-m", "telegrad_server", "init", f"{folder}/secrets"], stdout=subprocess.DEVNULL
        )
        columns["ours, TLS"] = _pair("--who", "ours", "--secrets", f"{folder}/secrets")
    if importlib.util.find_spec("torch"):
        columns["torch gloo"] = _pair("--who", "gloo")
    mpiexec = Path(given.mpi_python).with_name("mpiexec")
    if mpiexec.exists():
        command = [str(mpiexec), "-n", "2", given.mpi_python, __file__, "--who", "mpi"]
        columns["MPI"] = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
    print(f"| ms | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for case in (*CASES, GATHER[0]):
        print(f"| {case} | {' | '.join(f'{found[case] * 1e3:.3g}' for found in columns.values())} |")


if __name__ == "__main__":
    main()
