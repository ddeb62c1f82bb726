"""`session.datasets`, in process and over gRPC, where connections break."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import (
    DataCorrupt,
    DTypeError,
    GraphError,
    IndexRange,
    NotFound,
    QuotaExceeded,
    ResourceError,
    ServerUnavailable,
    ShapeError,
)
from telegrad.ir.types import Type
from telegrad.transport.channel import error_of
from telegrad.wire import stream
from telegrad.wire.datasets import column_of
from telegrad.wire.stream import type_to_proto
from telegrad.wire.v1 import datasets_pb2 as pb
from telegrad.wire.v1 import datasets_pb2_grpc as services
from telegrad_server.datasets import Catalog, permuted

from tests.faults.conftest import Server, wait_until
from tests.faults.proxy import Proxy

X = np.arange(60, dtype=np.float32).reshape(10, 2, 3)
Y = np.arange(10, dtype=np.int64)


def test_what_is_put_is_found_by_name(session: tg.Session) -> None:
    put = session.datasets.put("digits", x=X, y=Y)

    found = session.datasets["digits"]

    assert found == put
    assert (found.rows, len(found), found.bytes, found.source) == (10, 10, X.nbytes + Y.nbytes, "")
    assert found.columns == {"x": Type((2, 3), tg.float32), "y": Type((), tg.int64)}
    assert list(session.datasets) == ["digits"] and len(session.datasets) == 1
    assert "digits" in session.datasets and "letters" not in session.datasets
    assert session.datasets.list() == [put]


def test_rows_can_be_looked_at(session: tg.Session) -> None:
    digits = session.datasets.put("digits", {"x": X, "y": Y})

    np.testing.assert_array_equal(digits[2:5]["x"], X[2:5])
    np.testing.assert_array_equal(digits[[9, 0, -1, 9]]["y"], [9, 0, 9, 9])
    np.testing.assert_array_equal(digits[-1]["x"], X[9])
    assert digits[np.array([], np.int64)]["x"].shape == (0, 2, 3)
    for rows in ([10], [-11]):
        with pytest.raises(IndexRange):
            digits[rows]
    with pytest.raises(GraphError):
        digits[[0.5]]  # type: ignore[list-item]


@pytest.mark.slow
def test_many_rows_come_in_several_calls(session: tg.Session) -> None:
    array = np.random.default_rng(0).standard_normal((40, 1_000_000)).astype(np.float32)
    rows = permuted(range(20), rows=40, seed=0, epoch=0)

    big = session.datasets.put("big", x=array)

    np.testing.assert_array_equal(big[rows]["x"], array[rows])


def test_tensors_and_lists_can_be_put(session: tg.Session) -> None:
    d = session.datasets.put("d", x=tg.arange(3) * 2, y=[1.0, 2.0, 3.0])

    assert d[:]["x"].tolist() == [0, 2, 4]
    assert d.columns["y"] == Type((), tg.float64)


def test_a_deleted_dataset_is_not_found(session: tg.Session) -> None:
    d = session.datasets.put("d", x=X)
    session.datasets.delete("d")

    with pytest.raises(NotFound):
        session.datasets["d"]
    with pytest.raises(KeyError):
        d[0]
    with pytest.raises(NotFound):
        del session.datasets["d"]


def test_a_handle_does_not_read_what_was_put_later(session: tg.Session) -> None:
    old = session.datasets.put("d", x=X)
    session.datasets.put("d", x=X + 1)

    with pytest.raises(NotFound):
        old[0]


def test_what_cannot_be_put_is_refused(session: tg.Session) -> None:
    with pytest.raises(ShapeError):
        session.datasets.put("d", x=X, y=Y[:3])
    with pytest.raises(DTypeError):
        session.datasets.put("d", x=np.array(["a"]))
    with pytest.raises(GraphError):
        session.datasets.put("d")
    for name in ("../d", "", "a/b"):
        with pytest.raises(GraphError) as put:
            session.datasets.put(name, x=X)
        with pytest.raises(GraphError) as found:
            session.datasets[name]
        assert put.value.reason == found.value.reason == "NAME_INVALID"


def test_a_description_is_for_people(session: tg.Session) -> None:
    d = session.datasets.put("d", x=X, label=Y)

    text = session.datasets.describe("d")

    assert text == f"d: 10 rows, 320 bytes, digest {d.digest}\n  x      float32[2,3]\n  label  int64[]"


def test_verify_finds_what_the_disk_has_changed(session: tg.Session, tmp_path: Path) -> None:
    d = session.datasets.put("d", x=X)
    d.verify()
    (file,) = tmp_path.glob("*/datasets/*/columns/*")
    file.write_bytes(bytes(X.nbytes))

    with pytest.raises(DataCorrupt):
        d.verify()
    session.datasets.put("d", x=X).verify()


def test_the_server_reads_a_shuffled_batch_of_what_was_put(session: tg.Session, tmp_path: Path) -> None:
    session.datasets.put("digits", x=X, y=Y)
    (folder,) = (p for p in tmp_path.glob("*/datasets"))
    digits = Catalog(folder).open("local", "digits")

    rows = permuted(range(4), rows=digits.rows, seed=3, epoch=1)
    batch = digits.batch(rows)

    np.testing.assert_array_equal(batch["x"], X[rows])
    np.testing.assert_array_equal(batch["y"], rows)


# ---- over gRPC


def test_what_is_there_is_not_sent_again(server: Server) -> None:
    proxy = Proxy(server.port)
    array = np.random.default_rng(0).standard_normal(1_000_000)
    with tg.connect(proxy.address, new=True) as session:
        session.datasets.put("one", x=array)
        before = proxy.bytes_up
        session.datasets.put("two", pixels=array, y=np.arange(1_000_000, dtype=np.int8))

        assert proxy.bytes_up - before < 1_200_000
    proxy.close()


def test_an_upload_goes_on_after_each_cut_and_sends_little_twice(server: Server) -> None:
    proxy = Proxy(server.port)
    array = np.random.default_rng(0).standard_normal(4_000_000)  # 32 MB
    cuts = [6_000_000, 14_000_000, 22_000_000]

    def cut() -> None:
        for at in cuts:
            wait_until(lambda: proxy.bytes_up > at)  # noqa: B023  # waited for at once
            proxy.cut()

    with tg.connect(proxy.address, new=True) as session:
        cutter = threading.Thread(target=cut)
        cutter.start()
        d = session.datasets.put("d", x=array)
        cutter.join()

        np.testing.assert_array_equal(d[:1000]["x"], array[:1000])
        d.verify()
        assert proxy.bytes_up < array.nbytes + 3 * 6_000_000  # what is on its way at a cut is lost
    proxy.close()


def test_an_upload_goes_on_with_a_server_that_was_killed(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start("--data-dir", str(tmp_path))
    array = np.random.default_rng(0).standard_normal(4_000_000)
    proxy = Proxy(server.port)
    with tg.connect(proxy.address, new=True) as session:
        datasets, result = session.datasets, list[object]()
        putter = threading.Thread(target=lambda: result.append(datasets.put("d", x=array)))
        putter.start()
        wait_until(lambda: proxy.bytes_up > 8_000_000)
        server.kill()
        start("--data-dir", str(tmp_path), port=server.port)
        putter.join(timeout=60)

        assert len(result) == 1
        assert proxy.bytes_up < array.nbytes * 2
        np.testing.assert_array_equal(datasets["d"][-5:]["x"], array[-5:])
        with pytest.raises(tg.TelegradError):
            session.synchronize()  # its tensors are lost, its datasets are not
    proxy.close()


def test_a_server_without_a_folder_says_so(start: Callable[..., Server]) -> None:
    with tg.connect(start().address, new=True) as session:
        for call in (
            session.datasets.list,
            lambda: session.datasets.put("d", x=X),
            lambda: session.datasets["d"],
        ):
            with pytest.raises(ResourceError) as caught:
                call()
            assert caught.value.reason == "STORAGE_MISSING"


def test_quotas_and_tenants_are_apart(start: Callable[..., Server], tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("telegrad_token_of_alice alice\ntelegrad_token_of_bob__ bob\n")
    tokens.chmod(0o600)
    server = start(
        "--data-dir", str(tmp_path / "data"), "--token-file", str(tokens), "--max-tenant-dataset-bytes", "400"
    )
    with (
        tg.connect(server.address, token="telegrad_token_of_alice", new=True) as alice,
        tg.connect(server.address, token="telegrad_token_of_bob__", new=True) as bob,
    ):
        put = alice.datasets.put("d", x=X, y=Y)

        assert bob.datasets.list() == []
        for call in (lambda: bob.datasets["d"], lambda: bob.datasets.delete("d"), lambda: bob.datasets.describe("d")):
            with pytest.raises(NotFound):
                call()
        with pytest.raises(QuotaExceeded) as caught:
            alice.datasets.put("e", x=X + 1)
        assert caught.value.reason == "QUOTA_DATASET_BYTES"
        assert bob.datasets.put("d", x=X, y=Y) == put  # sent, though alice has it

    stub = services.DatasetsStub(channel := grpc.insecure_channel(server.address.removeprefix("grpc://")))
    with pytest.raises(grpc.RpcError) as refused:
        stub.ListDatasets(pb.ListDatasetsRequest())
    assert error_of(refused.value).reason == "TOKEN_MISSING"
    channel.close()


# ---- what no client of ours sends


def test_bad_uploads_are_refused_and_leave_the_server_well(server: Server) -> None:
    column = column_of("x", X)
    header = pb.UploadColumnRequest(header=pb.ColumnHeader(type=type_to_proto(column.type), digest=column.digest))
    chunk = pb.UploadColumnRequest(chunk=bytes(X.nbytes))
    beyond = pb.UploadColumnRequest(
        header=pb.ColumnHeader(type=type_to_proto(column.type), digest=column.digest, offset_bytes=7)
    )
    path = pb.UploadColumnRequest(header=pb.ColumnHeader(type=type_to_proto(column.type), digest="../../x"))
    with grpc.insecure_channel(server.address.removeprefix("grpc://")) as channel:
        stub = services.DatasetsStub(channel)
        for parts, reason in (
            ([], "MALFORMED_MESSAGE"),
            ([chunk], "MALFORMED_MESSAGE"),
            ([pb.UploadColumnRequest()], "MALFORMED_MESSAGE"),
            ([header, header], "DATA_LENGTH"),
            ([header], "DATA_TRUNCATED"),
            ([header, chunk, chunk], "DATA_LENGTH"),
            ([beyond, chunk], "UNAVAILABLE"),
            ([path, chunk], "GRAPH_INVALID"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                stub.UploadColumn(iter(parts), timeout=10)
            assert error_of(caught.value).reason == reason
    with tg.connect(server.address, new=True) as session:
        np.testing.assert_array_equal(session.datasets.put("d", x=X)[:]["x"], X)


def test_too_much_at_once_and_rows_that_are_not_there_are_refused(server: Server) -> None:
    with tg.connect(server.address, new=True) as session:
        d = session.datasets.put("d", x=np.zeros((2, 1 << 20), np.float32))
    with grpc.insecure_channel(server.address.removeprefix("grpc://")) as channel:
        stub = services.DatasetsStub(channel)
        for rows, reason in (([0] * 17, "MESSAGE_TOO_LARGE"), ([2], "INDEX_RANGE"), ([2**64 - 1], "INDEX_RANGE")):
            with pytest.raises(grpc.RpcError) as caught:
                list(stub.ReadDataset(pb.ReadDatasetRequest(name="d", digest=d.digest, rows=rows)))
            assert error_of(caught.value).reason == reason


def test_chunks_are_what_the_proto_says() -> None:
    data = memoryview(bytes(range(256)))

    assert stream.encode_upload_chunk(data) == pb.UploadColumnRequest(chunk=bytes(data)).SerializeToString()
    assert stream.encode_download_chunk(data) == pb.ReadDatasetResponse(chunk=bytes(data)).SerializeToString()


def test_an_upload_that_makes_no_progress_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telegrad.datasets.PATIENCE_SECONDS", 0.3)
    with tg.connect(server.address, new=True) as session:
        monkeypatch.setattr(
            "telegrad.transport.remote_datasets.RemoteDatasets.upload",
            lambda *_: (_ for _ in ()).throw(ServerUnavailable("cut")),
        )

        with pytest.raises(ServerUnavailable):
            session.datasets.put("d", x=X)
