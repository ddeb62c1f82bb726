"""The first numbers: dispatch, tiny functions, steps without work, bulk bytes, graphs, remote against embedded.

Each bulk figure stands beside what raw gRPC does with the same chunks on the same machine in the same run.
`python -m bench.spine` writes its section of RESULTS.md.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import telegrad as tg
from telegrad import context

from bench.results import Section, Table, write_section
from bench.serving import server
from bench.steps import training

MIB = 1 << 20
ROWS: list[tuple[str, str, str, str]] = []


def row(what: str, goal: str, measured: str, beside: str = "") -> None:
    """One line of the table, printed as it comes."""
    ROWS.append((what, goal, measured, beside))
    print(f"{what:58} {measured:>34}   goal {goal}   {beside}", flush=True)


def quantiles(seconds: list[float]) -> str:
    """Median and 99th percentile in microseconds."""
    ordered = sorted(seconds)
    return f"p50 {statistics.median(ordered) * 1e6:.0f} µs, p99 {ordered[int(0.99 * len(ordered))] * 1e6:.0f} µs"


def timed(work: Callable[[], object], times: int) -> list[float]:
    """How long each of several calls took, in seconds."""
    found: list[float] = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return found


RAW = """
import sys, grpc
from concurrent import futures
CHUNK = bytes(1 << 20)
def upload(chunks, context):
    for _ in chunks: pass
    return b""
def download(request, context):
    for _ in range(int(request)): yield CHUNK
def ping(requests, context):
    for r in requests: yield r
raw = lambda b: b
server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 16 << 20)])
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("raw.Raw", {
    "Upload": grpc.stream_unary_rpc_method_handler(upload, raw, raw),
    "Download": grpc.unary_stream_rpc_method_handler(download, raw, raw),
    "Ping": grpc.stream_stream_rpc_method_handler(ping, raw, raw),
})])
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
"""


def raw_grpc(mib: int) -> tuple[float, float, str]:
    """GB/s up and down, and the round trip of a stream, of gRPC alone with chunks of 1 MiB."""
    command = [sys.executable, "-c", RAW]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        channel = grpc.insecure_channel(
            f"127.0.0.1:{process.stdout.readline().strip()}", options=[("grpc.max_receive_message_length", 16 << 20)]
        )
        raw: Callable[[bytes], bytes] = lambda b: b  # noqa: E731
        up: Any = channel.stream_unary("/raw.Raw/Upload", raw, raw)
        down: Any = channel.unary_stream("/raw.Raw/Download", raw, raw)
        ping: Any = channel.stream_stream("/raw.Raw/Ping", raw, raw)
        chunk = bytes(MIB)
        rate = lambda s: mib * MIB / s / 1e9  # noqa: E731
        ups = min(timed(lambda: up(iter([chunk] * mib)), 3))
        downs = min(timed(lambda: sum(len(c) for c in down(str(mib).encode())), 3))
        box: Any = __import__("queue").SimpleQueue()
        stream = ping(iter(box.get, None))

        def once() -> None:
            box.put(b"x")
            next(stream)

        trips = timed(once, 1000)
        box.put(None)
        channel.close()
        process.terminate()
    return rate(ups), rate(downs), quantiles(trips)


def small_calls(label: str, beside: str) -> None:
    """Dispatch, fetch and no-op steps in the current session."""
    count = tg.Variable(0.0)

    @tg.function
    def step(x: tg.Tensor) -> tg.Tensor:
        count.assign(count + 1)
        return x + 1

    x = tg.asarray(np.ones(1, np.float32))
    for _ in range(50):
        step(x).item()
    row(f"{label}: dispatch of a cached function", "100 µs p50", quantiles(timed(lambda: step(x), 2000)))
    count.item()
    row(
        f"{label}: tiny function and fetch of a scalar",
        "500 µs p50, 1.5 ms p99",
        quantiles(timed(lambda: step(x).item(), 2000)),
        beside,
    )
    n = 5000
    start = time.perf_counter()
    for _ in range(n):
        step(x)
    count.item()
    row(f"{label}: cached no-op steps, pipelined", "3,000 /s", f"{n / (time.perf_counter() - start):,.0f} /s")


def bulk(up: float, down: float) -> None:
    """Upload and download in the current session."""
    array = np.random.default_rng(0).standard_normal(64 * MIB).astype(np.float32)  # 256 MiB

    def send() -> None:
        context.current_session().upload(array, scope=context.current_session().scopes.current)

    seconds = min(timed(send, 3))
    row("grpc: upload of 256 MiB", "0.8 GB/s", f"{array.nbytes / seconds / 1e9:.2f} GB/s", f"raw gRPC {up:.2f} GB/s")
    parts = np.split(array, 16)

    def hand_over() -> None:
        for part in parts:
            context.current_session().upload(part, scope=context.current_session().scopes.current)
        context.current_session().synchronize()

    seconds = min(timed(hand_over, 5))
    row("grpc, same machine: upload of 16 times 16 MiB", "5 GB/s", f"{array.nbytes / seconds / 1e9:.2f} GB/s")
    x = tg.asarray(array)
    context.current_session().synchronize()
    seconds = min(timed(x.numpy, 3))
    row(
        "grpc: download of 256 MiB", "0.8 GB/s", f"{array.nbytes / seconds / 1e9:.2f} GB/s", f"raw gRPC {down:.2f} GB/s"
    )


def remote_against_embedded(address: str) -> None:
    """The same steps in turns, A B A B, on both connections."""
    for name, width, batch, goal in (("about 1 ms", 64, 64, "85 %"), ("about 10 ms", 512, 256, "98 %")):
        with tg.connect(new=True) as here, tg.connect(address, new=True) as there:
            local, remote = (training(session, width=width, batch=batch) for session in (here, there))
            pairs = [(local(100), remote(100)) for _ in range(7)]
        ratios = sorted(a / b for a, b in pairs)
        ms = statistics.median(a for a, _ in pairs) * 1e3
        row(
            f"remote against embedded, step {name} (measured {ms:.2f} ms)",
            goal,
            f"{statistics.median(ratios):.0%} ({ratios[0]:.0%}..{ratios[-1]:.0%})",
        )


def graphs() -> None:
    """Recording and sending, and what the server does with it, for long chains."""
    from telegrad.ir import Function, Graph, Type, new_input, types
    from telegrad.ops import elementwise as e
    from telegrad.ops.control import Gradient
    from telegrad.wire.codec import decode_function, encode_function
    from telegrad_server.compiler.pipeline import compile_function

    for n, goals in ((1000, ("10 ms", "10 ms", "100 ms")), (100_000, ("1 s", "1 s", "10 s"))):
        x = new_input(Type((4,), types.float32))
        start = time.perf_counter()
        y = x
        for _ in range(n // 3):  # three nodes each: sin, the number, multiply
            y = e.sin(y) * 1.5
        data = encode_function(Function(Graph.of([x], [y])))
        recorded = time.perf_counter() - start
        start = time.perf_counter()
        decoded = decode_function(data)
        seen = time.perf_counter() - start
        z = decoded.graph.outputs[0]
        (g,) = Gradient(1).results(z, z, decoded.graph.inputs[0])
        graph = Graph.of(decoded.graph.inputs, [z, g])
        start = time.perf_counter()
        compile_function(Function(graph))
        compiled = time.perf_counter() - start
        for what, goal, seconds in zip(
            ("recorded and encoded", "decoded, checked, inferred", "gradients, passes, plan"),
            goals,
            (recorded, seen, compiled),
            strict=True,
        ):
            row(f"graph of {n:,} nodes: {what}", goal, f"{seconds * 1e3:,.1f} ms")


def traced() -> None:
    """The same chains as a user writes them: a function's first call, in process."""
    x = tg.asarray(np.ones(4, np.float32))
    for n, goal in ((1000, "10 ms"), (100_000, "1 s")):

        @tg.function
        def chain(y: tg.Tensor, trips: int = n // 2) -> tg.Tensor:  # the number is one node for all trips
            for _ in range(trips):
                y = tg.sin(y) * 1.5
            return y

        (seconds,) = timed(lambda: chain(x), 1)
        (rest,) = timed(context.current_session().synchronize, 1)
        row(f"graph of {n:,} nodes: traced by tg.function and sent", goal, f"{seconds * 1e3:,.1f} ms")
        row(f"graph of {n:,} nodes: first call, until its result is there", "", f"{(seconds + rest) * 1e3:,.1f} ms")


def main() -> None:
    """Measure everything and write the table."""
    up, down, trip = raw_grpc(256)
    with tg.connect(new=True):
        small_calls("embedded", "")
    with server() as found:
        with tg.connect(found.address, new=True):
            small_calls("grpc", f"raw gRPC stream round trip {trip}")
            bulk(up, down)
        remote_against_embedded(found.address)
    graphs()
    with tg.connect(new=True):
        traced()
    table = Table(("what", "goal", "measured", "beside"), ROWS)
    write_section(Section("The service", "Bulk figures stand beside what raw gRPC does in the same run.", (table,)))


if __name__ == "__main__":
    main()
