"""The command ``ray`` in a process that cannot load grpcio: where it can, Ray's head opens the port of ``ray://``, too.

Whoever reaches that port runs code; we never use it, and Ray has no option that closes it.
"""

import runpy
import sys

if __name__ == "__main__":
    sys.modules["grpc"] = None  # pyright: ignore[reportArgumentType]
    runpy.run_module("ray.scripts.scripts", run_name="__main__", alter_sys=True)
