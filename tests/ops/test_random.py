"""Random numbers: Random123's known answers, the derivation of keys, statistics, and independence of place."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from telegrad.errors import DTypeError, GraphError
from telegrad.ir import Value, new_input
from telegrad.ir import types as t
from telegrad.ir.types import Type
from telegrad.ops import random
from telegrad_server.executors import philox

from tests.ops.checks import Array, call, check_gradients

KEY = np.array([1, 2, 3, 4], np.uint32)


def bits(count: int, *, stream: int = 0, offset: int = 0, dtype: t.DType = t.uint32, key: Array = KEY) -> Array:
    return call(lambda k: random.RandomBits((count,), dtype, stream, offset)(k), key)


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter: str, key: str, answer: str) -> None:
    words = [int(word, 16) for word in counter.split()]

    on_integers = philox.block(words, [int(word, 16) for word in key.split()])
    on_arrays = philox.block(
        [np.array([word], np.uint64) for word in words], [np.uint64(int(word, 16)) for word in key.split()]
    )

    assert " ".join(f"{int(word):08x}" for word in on_integers) == answer
    assert " ".join(f"{int(word.item()):08x}" for word in on_arrays) == answer


def test_the_words_of_an_op_follow_from_seed_call_and_stream() -> None:
    seed, number, stream = (1, 2), (3, 4), 7
    own = philox.block((*number, stream, 0), seed)[:2]
    wanted = [word for i in range(3) for word in philox.block((i, 0, 0, 0), own)]

    assert bits(10, stream=7).tolist() == wanted[:10]


def test_64_bits_are_two_words_the_lower_first() -> None:
    words = bits(8).astype(np.uint64)

    assert bits(4, dtype=t.uint64).tolist() == (words[0::2] | (words[1::2] << np.uint64(32))).tolist()


@pytest.mark.parametrize("op", [random.RandomBits, random.RandomUniform, random.RandomNormal])
@pytest.mark.parametrize("wide", [False, True])
def test_a_replica_with_an_offset_draws_its_part_of_the_whole(op: type, wide: bool) -> None:
    dtype = (
        {False: t.uint32, True: t.uint64}[wide]
        if op is random.RandomBits
        else {False: t.float32, True: t.float64}[wide]
    )
    whole = call(lambda k: op((50,), dtype, 3)(k), KEY)

    parts = [call(lambda k, a=a, b=b: op((b - a,), dtype, 3, a)(k), KEY) for a, b in pairwise((0, 1, 7, 30, 50))]

    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_the_shape_changes_no_bit() -> None:
    flat = call(lambda k: random.RandomNormal((24,))(k), KEY)

    assert call(lambda k: random.RandomNormal((2, 3, 4))(k), KEY).tobytes() == flat.tobytes()


def test_large_draws_are_made_in_pieces_without_seams() -> None:
    assert bits(100_001)[-5:].tolist() == bits(5, offset=99_996).tolist()


def test_streams_calls_and_seeds_are_independent() -> None:
    n = 4000
    draws = [bits(n), bits(n, stream=1)]
    for word in range(4):
        other = KEY.copy()
        other[word] += 1
        draws.append(bits(n, key=other))
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert abs(np.corrcoef(a / 2**32, b / 2**32)[0, 1]) < 4 / math.sqrt(n)


@pytest.mark.parametrize("dtype", [t.float32, t.float64])
def test_uniform_numbers_are_uniform_and_below_one(dtype: t.DType) -> None:
    n = 1 << 16
    u = call(lambda k: random.uniform(k, shape=(n,), dtype=dtype), KEY).astype(np.float64)

    counts = np.histogram(u, bins=64, range=(0, 1))[0]
    chi_squared = float(np.sum((counts - n / 64) ** 2) / (n / 64))

    assert u.min() >= 0.0 and u.max() < 1.0
    assert chi_squared < 63 + 4 * math.sqrt(2 * 63)
    assert abs(u.mean() - 0.5) < 4 * math.sqrt(1 / 12 / n)
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 4 / math.sqrt(n)


@pytest.mark.parametrize("dtype", [t.float32, t.float64])
def test_normal_numbers_have_the_moments_of_the_normal_distribution(dtype: t.DType) -> None:
    n = 1 << 17
    z = call(lambda k: random.normal(k, shape=(n,), dtype=dtype), KEY).astype(np.float64)

    assert np.isfinite(z).all()
    for power, moment, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        assert abs(np.mean(z**power) - moment) < 4 * math.sqrt(variance / n), power
    below = [np.mean(z < x) for x in (-2.0, -1.0, 0.0, 1.0, 2.0)]
    wanted = [0.5 * (1 + math.erf(x / math.sqrt(2))) for x in (-2.0, -1.0, 0.0, 1.0, 2.0)]
    assert np.allclose(below, wanted, atol=4 * math.sqrt(0.25 / n))


@pytest.mark.parametrize("f", [random.uniform, random.normal])
@pytest.mark.parametrize("dtype", [t.float16, t.bfloat16])
def test_16_bit_numbers_are_rounded_from_float32(f: object, dtype: t.DType) -> None:
    wide = call(lambda k: f(k, shape=(9,)), KEY)  # type: ignore[operator]
    narrow = call(lambda k: f(k, shape=(9,), dtype=dtype), KEY)  # type: ignore[operator]

    assert narrow.tolist() == wide.astype(narrow.dtype).tolist()


@pytest.mark.parametrize(
    ("low", "high", "dtype"), [(0, 6, t.int64), (-3, 4, t.int8), (-128, 128, t.int8), (0, 2**63, t.uint64)]
)
def test_integers_are_uniform_over_their_range(low: int, high: int, dtype: t.DType) -> None:
    n = 60_000
    found = call(lambda k: random.integers(k, low, high, shape=(n,), dtype=dtype), KEY).astype(np.float64)

    assert found.min() >= low and found.max() < high
    size = high - low
    assert abs(found.mean() - (low + high - 1) / 2) < 4 * size / math.sqrt(12 * n)
    if size < 300:
        assert sorted(set(found)) == list(range(low, high))


def test_a_permutation_holds_every_number_once_anywhere() -> None:
    draws = np.stack([call(lambda k, s=s: random.permutation(k, 10, stream=s), KEY) for s in range(500)])

    assert (np.sort(draws, axis=1) == np.arange(10)).all()
    places = np.stack([(draws == i).sum(0) for i in range(10)])
    assert np.abs(places - 50).max() < 5 * math.sqrt(50)


def test_bernoulli_has_its_probability() -> None:
    found = call(lambda k: random.bernoulli(k, 0.3, shape=(40_000,)), KEY)

    assert found.dtype == bool and abs(found.mean() - 0.3) < 4 * math.sqrt(0.21 / 40_000)
    assert not call(lambda k: random.bernoulli(k, 0.0, shape=(99,)), KEY).any()
    assert call(lambda k: random.bernoulli(k, 1.0, shape=(99,)), KEY).all()


def test_dropout_keeps_the_mean_and_its_gradient_has_the_same_mask() -> None:
    x = np.random.default_rng(0).uniform(1.0, 2.0, 20_000)
    y = call(lambda v, k: random.dropout(v, k, p=0.25), x, KEY)

    dropped = y == 0.0
    assert abs(dropped.mean() - 0.25) < 4 * math.sqrt(0.1875 / x.size)
    np.testing.assert_allclose(y[~dropped], x[~dropped] / 0.75)
    check_gradients(lambda v, k: random.dropout(v, k, p=0.4, stream=2), [x[:8], KEY], name="dropout")


def test_dropout_at_its_ends() -> None:
    x = np.array([1.0, np.inf, np.nan])

    assert call(lambda v, k: random.dropout(v, k, p=0.0), x, KEY).tobytes() == x.tobytes()
    assert call(lambda v, k: random.dropout(v, k, p=1.0), x, KEY).tolist() == [0.0, 0.0, 0.0]


# ---- refusals

KEY_VALUE = new_input(Type((4,), t.uint32))


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda k: random.RandomBits((2,))(new_input(Type((4,), t.int64))), DTypeError, r"the key must be uint32\[4\]"),
        (lambda k: random.RandomUniform((2,), t.int32)(k), DTypeError, "dtype int32 is not drawn"),
        (lambda k: random.RandomBits((2,), t.float32)(k), DTypeError, "dtype float32 is not drawn"),
        (lambda k: random.RandomBits((2,), t.uint32, -1)(k), GraphError, "stream -1"),
        (lambda k: random.RandomBits((2,), t.uint32, 0, -1)(k), GraphError, "offset -1"),
        (lambda k: random.RandomBits((-2,))(k), GraphError, "negative size"),
        (lambda k: random.integers(k, 3, 3, shape=()), GraphError, "must be above low"),
        (lambda k: random.integers(k, 0, 300, shape=(), dtype=t.uint8), DTypeError, "299 does not fit uint8"),
        (lambda k: random.dropout(k, k, p=1.5), GraphError, "p 1.5 must be from 0 to 1"),
        (lambda k: random.bernoulli(k, -0.1, shape=()), GraphError, "p -0.1 must be from 0 to 1"),
    ],
)
def test_bad_arguments_are_refused(f: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        f(KEY_VALUE)  # type: ignore[operator]


def test_random_numbers_have_no_gradient() -> None:
    def shifted(x: Value, key: Value) -> Value:
        return x + random.normal(key, shape=(3,), dtype=t.float64)

    check_gradients(shifted, [np.zeros(3), KEY], name="noise")


def fold(key: Array, index: int) -> Array:
    return call(lambda k, i: random.FoldIn()(k, i), key, np.asarray(index, np.int64))


@pytest.mark.parametrize("index", [0, 1, 2**32, 2**62 + 5])
def test_a_key_folded_with_a_number_is_a_block_of_philox(index: int) -> None:
    key = np.array([7, 8, 9, 10], np.uint32)
    expected = philox.block((9, 10, index & 0xFFFFFFFF, (index >> 32) ^ 0x80000000), (7, 8))

    found = fold(key, index)

    assert found.tolist() == list(expected)
    assert found.dtype == np.uint32


def test_folded_keys_have_streams_of_their_own() -> None:
    key = np.array([1, 2, 3, 4], np.uint32)
    folded = [fold(key, i) for i in range(50)]

    drawn = [bits(4, stream=s, key=k).tobytes() for k in [key, *folded] for s in (0, 1, 2)]

    assert len(set(drawn)) == len(drawn)
