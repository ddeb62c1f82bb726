"""What Ray Data has written is a dataset here: it makes such folders on many nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from telegrad.ir import types as t
from telegrad.ir.types import Type
from telegrad_server.datasets import Catalog, Pass, parse_roots

from tests.datasets.parquets import WIDTH, rows_of

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),
]  # warnings of Ray's own


def test_a_folder_that_ray_data_has_written_is_read_in_blocks(tmp_path: Path) -> None:
    ray: Any = pytest.importorskip("ray")
    pytest.importorskip("ray.data", reason="needs pip install 'ray[data]'", exc_type=ImportError)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        width = WIDTH

        def columns(batch: Any) -> Any:
            import numpy as np

            y = batch["id"]
            return {"x": np.sin(y[:, None] * 0.37 + np.arange(width)).astype(np.float32), "y": y}

        ray.data.range(3000, override_num_blocks=6).map_batches(columns).write_parquet(str(tmp_path / "clicks"))
    finally:
        ray.shutdown()

    roots = f"c={tmp_path}/clicks?kind=parquet&shuffle_bytes=60000"
    clicks = Catalog(tmp_path / "datasets", roots=parse_roots(roots)).open("anybody", "c")
    batch = clicks.batch(clicks.rows_at(np.arange(3000), Pass(0, 3000, 1, 0)))

    assert clicks.columns == {"x": Type((WIDTH,), t.float32), "y": Type((), t.int64)}
    assert sorted(batch["y"].tolist()) == list(range(3000))
    np.testing.assert_array_equal(batch["x"], rows_of(batch["y"]))
