"""What a gateway costs: calls and bytes through ours, through a relay of raw gRPC that does nothing, and without any.

All three stand side by side and take turns. Prints one table.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import grpc.aio
import numpy as np
import telegrad as tg

MIB = 1 << 20
LARGE = [("grpc.max_receive_message_length", 16 * MIB), ("grpc.max_send_message_length", 16 * MIB)]


async def relay_nothing(target: str) -> None:
    """A relay that reads a message, writes it, and does nothing else."""
    light, bulk = (
        grpc.aio.insecure_channel(target, options=[*LARGE, ("grpc.use_local_subchannel_pool", 1)]) for _ in range(2)
    )

    class Handler(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            method = handler_call_details.method
            is_bulk = "/telegrad.wire.v1.Tensors/" in method

            async def splice(requests: Any, context: Any) -> None:
                call: Any = (bulk if is_bulk else light).stream_stream(method)()

                async def up() -> None:
                    while (message := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
                        await call.write(message)
                    await call.done_writing()

                sending = asyncio.ensure_future(up())
                while (message := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
                    await context.write(message)
                sending.cancel()

            return grpc.stream_stream_rpc_method_handler(splice)

    server = grpc.aio.server(options=LARGE)
    server.add_generic_rpc_handlers([Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


@contextmanager
def process(*command: str) -> Iterator[str]:
    """A program that says where it listens."""
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        found = re.search(r"listening on ([\d.]+:\d+)", running.stdout.readline())
        assert found
        try:
            yield found[1]
        finally:
            running.terminate()


def main() -> None:
    """Print the table."""
    if len(sys.argv) == 3:
        asyncio.run(relay_nothing(sys.argv[2]))
        return
    with ExitStack() as stack:
        server = ("-m", "telegrad_server.main", "--backend", "numpy", "--port", "0")
        direct = stack.enter_context(process(*server))
        raw = stack.enter_context(process(__file__, "relay", direct))
        ours = stack.enter_context(process(*server, "--role", "gateway", "--cluster-port", "0", "--workers", "1"))
        names = ("direct", "raw relay", "gateway")
        sessions = [tg.connect(f"grpc://{address}", new=True) for address in (direct, raw, ours)]
        calls: list[list[float]] = [[], [], []]
        up: list[list[float]] = [[], [], []]
        down: list[list[float]] = [[], [], []]
        data = np.ones(64 * MIB // 4, np.float32)
        for _ in range(6):
            for k, session in enumerate(sessions):
                tg.context.drop_session(session)
                tg.context.push_session(session)
                one = tg.asarray(np.ones((), np.float32))
                for _ in range(100):
                    began = time.perf_counter()
                    (one + 1).item()
                    calls[k].append(time.perf_counter() - began)
                began = time.perf_counter()
                there = tg.asarray(data)
                there[:1].numpy()
                up[k].append(data.nbytes / (time.perf_counter() - began))
                began = time.perf_counter()
                there.numpy()
                down[k].append(data.nbytes / (time.perf_counter() - began))
        medians = [[statistics.median(x) for x in of] for of in (calls, up, down)]
        print(f"{'':12}{'fetch p50':>14}{'upload':>14}{'download':>14}")
        for k, name in enumerate(names):
            print(
                f"{name:12}{medians[0][k] * 1e3:11.2f} ms{medians[1][k] / 1e9:9.2f} GB/s{medians[2][k] / 1e9:9.2f} GB/s"
            )
        for session in sessions:
            session.close()


if __name__ == "__main__":
    main()
