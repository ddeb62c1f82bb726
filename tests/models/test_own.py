"""The models without a published form: what they promise, and that they learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import models, nn, optim

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _session() -> Any:
    with tg.connect(backend="numpy", new=True, seed=1) as session:
        yield session


def test_places_are_sines_and_cosines() -> None:
    found = models.sinusoidal_positions(7, 5, dtype=tg.float64).numpy()

    for place in range(7):
        for i in range(5):
            angle = place / 10000 ** (2 * (i // 2) / 5)
            assert math.isclose(found[place, i], (math.cos if i % 2 else math.sin)(angle), abs_tol=1e-12)


@pytest.mark.slow
def test_an_encoder_decoder_learns_to_turn_a_sequence_round() -> None:
    """Digits 3 to 8 of two to four places, filled up with 0; 1 starts an answer and 2 ends it."""
    model = models.EncoderDecoder(9, d_model=32, nhead=2, num_layers=1, dim_feedforward=64, dropout=0.0)
    optimizer = optim.Adam(model.parameters(), lr=5e-3)

    def batch(n: int) -> tuple[Any, Any]:
        source, target = np.zeros((n, 4), np.int64), np.zeros((n, 6), np.int64)
        for i in range(n):
            word = RNG.integers(3, 9, RNG.integers(2, 5))
            source[i, : len(word)] = word
            target[i, : len(word) + 2] = [1, *word[::-1], 2]
        return source, target

    @tg.function
    def step(source: tg.Tensor, target: tg.Tensor) -> tg.Tensor:
        loss = model.loss(source, target)
        optimizer.minimize(loss)
        return loss

    for _ in range(250):
        loss = step(*batch(32))
    source, target = batch(64)
    found = model.generate(tg.asarray(source), start_token=1, max_new_tokens=5).numpy()

    wanted = target[:, 1:]
    ends = np.cumsum(wanted == 2, axis=1) - (wanted == 2) > 0  # what comes behind the end is nobody's business
    right = ((found == wanted) | ends).all(axis=1).mean()
    assert right > 0.9, (right, loss.item())


def test_filling_changes_no_score_and_no_loss() -> None:
    model = models.EncoderDecoder(9, d_model=16, nhead=2, num_layers=2, dim_feedforward=32, dtype=tg.float64).eval()
    source, target = RNG.integers(3, 9, (3, 5)), RNG.integers(3, 9, (3, 4))
    wide = np.concatenate([source, np.zeros((3, 2), np.int64)], axis=1)
    long = np.concatenate([target, np.zeros((3, 2), np.int64)], axis=1)

    narrow_scores = model(tg.asarray(source), tg.asarray(target)).numpy()
    scores = model(tg.asarray(wide), tg.asarray(long)).numpy()

    np.testing.assert_allclose(scores[:, :4], narrow_scores, rtol=1e-10)
    losses = [model.loss(tg.asarray(s), tg.asarray(t)).item() for s, t in ((source, target), (wide, long))]
    assert math.isclose(*losses, rel_tol=1e-12)


def test_no_target_token_is_seen_before_its_time() -> None:
    model = models.EncoderDecoder(9, d_model=16, nhead=2, num_layers=2, dim_feedforward=32, dtype=tg.float64).eval()
    source, target = RNG.integers(3, 9, (1, 5)), RNG.integers(3, 8, (1, 6))
    changed = target.copy()
    changed[0, 4] += 1

    a, b = (model(tg.asarray(source), tg.asarray(t)).numpy() for t in (target, changed))

    np.testing.assert_array_equal(a[0, :4], b[0, :4])
    assert not np.allclose(a[0, 4:], b[0, 4:])


def test_two_towers_find_what_belongs_together() -> None:
    """Users like the items of their own tenth; one item is in a third of all rows."""
    users, items = 60, 50
    model = models.TwoTower(
        models.Tower([users], numbers=1, embedding_dim=8, hidden=(32,), out_features=8),
        models.Tower([items, 5], embedding_dim=8, hidden=(32,), out_features=8),
        temperature=0.1,
    )
    optimizer = optim.Adam(model.parameters(), lr=1e-2)

    def item_features(item: Any) -> Any:
        return np.stack([item, item % 5], axis=1)

    @tg.function
    def step(user: tg.Tensor, numbers: tg.Tensor, item: tg.Tensor, log_frequency: tg.Tensor) -> tg.Tensor:
        loss = model.loss(model.query(user, numbers), model.item(item), item[:, 0], log_frequency)
        optimizer.minimize(loss)
        return loss

    log_frequency = np.log(np.full(items, 2 / 3 / items) + np.eye(items)[7] / 3)
    for _ in range(200):
        user = RNG.integers(0, users, 64)
        item = np.where(RNG.uniform(size=64) < 1 / 3, 7, user % 10 * 5 + RNG.integers(0, 5, 64))
        numbers = RNG.normal(size=(64, 1)).astype(np.float32)
        step(user[:, None], numbers, item_features(item), log_frequency[item].astype(np.float32))

    everyone = tg.asarray(np.arange(users)[:, None])
    queries = model.query(everyone, tg.zeros((users, 1)))
    rows, scores = (
        x.numpy() for x in model.retrieve(queries, model.item(tg.asarray(item_features(np.arange(items)))), k=5)
    )
    np.testing.assert_allclose(np.linalg.norm(queries.numpy(), axis=1), 1, rtol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()
    own = rows // 5 == (np.arange(users) % 10)[:, None]
    assert own.mean() > 0.7, own.mean()


def test_the_same_item_is_no_wrong_answer_and_frequency_is_taken_off() -> None:
    model = models.TwoTower(nn.Identity(), nn.Identity(), temperature=0.5)
    q, v = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))
    ids, frequency, weight = np.array([5, 6, 5, 7]), RNG.normal(size=4), np.array([1.0, 2.0, 0.0, 1.0])

    found = model.loss(*(tg.asarray(x) for x in (q, v, ids, frequency, weight))).item()

    losses = []
    for i in range(4):
        scores = [
            q[i] @ v[j] / 0.5 - frequency[j] if j == i or ids[j] != ids[i] else -np.inf for j in range(4)
        ]  # fmt: skip
        losses.append(np.log(np.exp(scores).sum()) - scores[i])
    assert math.isclose(found, (np.array(losses) * weight).sum() / weight.sum(), rel_tol=1e-12)


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    tower = models.Tower([5], numbers=2, hidden=(4,), out_features=3)
    model = models.EncoderDecoder(9, 16, 2, 1, 32, max_length=8)
    tokens = tg.ones((2, 9), dtype=tg.int64)
    for make, words in (
        (lambda: models.Tower([]), "one category or number"),
        (lambda: tower(tg.ones((3, 1), dtype=tg.int64)), "takes 1 categories and 2 numbers"),
        (lambda: models.TwoTower(tower, tower, temperature=0.0), "must be positive"),
        (lambda: models.TwoTower(tower, tower).loss(tg.ones((2, 3)), tg.ones((3, 3))), r"two tensors of \[n, d\]"),
        (lambda: model(tokens, tokens), "at most 8"),
        (lambda: model.generate(tokens[:, :3], 1, 8), "over 8"),
    ):
        with pytest.raises(tg.TelegradError, match=words):
            make()
