"""Sessions that have jobs: in process, and over gRPC to a server with a folder of its own."""

from __future__ import annotations

from tests.datasets import conftest as datasets

start, server, session = datasets.start, datasets.server, datasets.session
