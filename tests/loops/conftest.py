"""Sessions that have jobs: in process, and over gRPC to a server with a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import telegrad as tg

from tests.datasets import conftest as datasets
from tests.loops.undisturbed import SEED

start, server, session = datasets.start, datasets.server, datasets.session


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[tg.Session], Any]], Any]:
    """What a function finds in a session in this process, with a folder of its own."""

    def found(look: Callable[[tg.Session], Any]) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TELEGRAD_DATA_DIR", str(tmp_path_factory.mktemp("alone")))
            with tg.connect(backend="numpy", seed=SEED, new=True) as session:
                return look(session)

    return found
