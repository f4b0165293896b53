"""Learning from the stream: it learns, it repeats, it forgets items, it goes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from encoders.loss import logits, sampled_softmax_loss
from encoders.replay import Replay
from encoders.table import Table
from encoders.trainer import NOWHERE, Learned
from tests.encoders.streams import CPU, SHAPE, small_trainer, walk


def lessons(trainer, events: tuple[np.ndarray, ...], every: int = 250, steps: int = 10):  # type: ignore[no-untyped-def]
    """What came of each lesson."""
    for n in range(0, len(events[0]), every):
        yield trainer.learn(n // every + 1, steps, *(c[n : n + every] for c in events))


def test_it_learns_what_comes_next() -> None:
    trainer = small_trainer()
    made = list(lessons(trainer, walk(3_000)))
    assert made[-1].loss < 0.6 * made[0].loss
    windows = trainer.replay.windows(np.arange(2_900, 3_000))
    rows = trainer.table.rows_of(windows.item, windows.item)
    trainer.model.eval()
    with torch.no_grad():
        place = np.arange(len(trainer.table.key))
        queries = trainer.learner.queries(windows, rows, trainer.table.values, place)
        queries = queries[np.cumsum(windows.valid[:, :-1].sum(1)) - 1]
        given = np.flatnonzero(trainer.table.key >= 0)
        best = logits(queries, trainer.table.values[given]).argsort(1, descending=True)[:, :5]
    hits = (torch.from_numpy(given)[best].numpy() == rows[:, -1:]).any(1)
    assert hits.mean() > 0.5  # of 60 items; nine of ten moves can be told


def test_what_is_learned_is_what_serves() -> None:
    """The loss's scores are those of the published vectors and biases, as `online` takes them."""
    trainer = small_trainer()
    made = list(lessons(trainer, walk(1_000)))[-1]
    queries = torch.randn(7, SHAPE.width, generator=torch.Generator().manual_seed(0))
    keys = made.item.astype(np.int64)
    values = trainer.table.values[torch.from_numpy(trainer.table.rows_of(keys, keys))]
    served = queries.numpy() @ made.vector.T + made.bias
    np.testing.assert_allclose(logits(queries, values).numpy(), served, atol=1e-4)
    nobody = torch.arange(len(keys) - 1), torch.zeros(len(keys) - 1)
    target = torch.full((7,), len(keys) - 1)
    losses = (
        sampled_softmax_loss(queries, values, target, *nobody),
        torch.nn.functional.cross_entropy(torch.from_numpy(served), target),
    )
    torch.testing.assert_close(*losses)


def test_the_same_lessons_make_the_same_weights() -> None:
    first, second = (list(lessons(small_trainer(), walk(750)))[-1] for _ in range(2))
    assert all(np.array_equal(first.dense[name], second.dense[name]) for name in first.dense)
    assert np.array_equal(first.vector, second.vector)
    other = list(lessons(small_trainer(seed=1), walk(750)))[-1]
    assert not np.array_equal(first.vector, other.vector)


def test_it_can_be_again_as_it_was_some_lessons_ago() -> None:
    trainer, events = small_trainer(), walk(3_000)
    taught = lessons(trainer, events)
    states: dict[int, dict[str, np.ndarray]] = {}
    for number in range(1, 12):
        next(taught)
        states[number] = {n: a.copy() for n, a in trainer.learner.state().items()}
    trainer.roll_back(5)
    for name, array in trainer.learner.state().items():
        if name != "table.count":  # events were counted: they did happen
            assert np.array_equal(array, states[5][name]), name
    after = trainer.learn(12, 10, *(c[2_750:] for c in events))
    assert np.isfinite(after.loss)
    with pytest.raises(ValueError, match="lesson 1 cannot be returned to"):
        trainer.roll_back(1)


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    trainer = small_trainer()
    next(lessons(trainer, walk(250)))
    before = {n: a.copy() for n, a in trainer.learner.state().items()}
    trainer.model.sharpness.data[:] = torch.nan
    made: Learned = trainer.learn(2, 3, *walk(50, seed=9))
    assert made.skipped == 3 and np.isnan(made.loss)
    after = trainer.learner.state()
    for name in ("table.values", "model.drive.weight"):
        assert np.array_equal(before[name], after[name][: len(before[name])]), name


def test_a_state_that_is_restored_goes_on_bit_for_bit() -> None:
    ours, events = small_trainer(), walk(1_000)
    *_, _ = lessons(ours, tuple(c[:750] for c in events))
    theirs = small_trainer()
    keys = ours.table.key[ours.table.key >= 0]
    made = theirs.restore(ours.learner.state(), keys)
    assert sorted(made.item.tolist()) == sorted(keys.tolist())
    one, other = ours.learner.state(), theirs.learner.state()
    order = np.argsort(theirs.table.rows_of(keys, keys))
    for name, array in one.items():
        there = other[name] if not name.startswith("table") else other[name][np.argsort(order)]
        assert np.array_equal(array, there), name
    with pytest.raises(ValueError, match="weights 'kind' are missing"):
        small_trainer().restore({}, keys)


def test_items_that_are_seldom_used_lose_their_rows_and_come_back_new() -> None:
    table = Table(rows=1_024, width=4, device=CPU.torch, seed=0)
    often = np.repeat(np.arange(10), 200)
    assert not len(table.admit(often, often, 0))
    lost: list[int] = []
    for n in range(10, 1_500):
        lost += table.admit(np.array([n]), np.array([n]), 2_000 + n).tolist()
        assert len(table) <= 1_024
    assert lost and not set(lost) & set(range(10))  # old, but frequent
    assert (table.rows_of(np.array(lost), np.array(lost)) == -1).all()
    table.admit(np.array(lost[:1]), np.array(lost[:1]), 9_999)
    row = int(table.rows_of(np.array(lost[:1]), np.array(lost[:1]))[0])
    assert table.count[row] == 1 and not table.square[row].any()


def test_a_slot_that_is_given_to_another_item_forgets_the_old_one() -> None:
    trainer, mask = small_trainer(), (1 << 24) - 1
    next(lessons(trainer, walk(250)))
    old, new = np.array([5]), np.array([5 | 1 << 24])
    events = np.zeros(1, np.int64), new, np.ones(1, np.int8), np.zeros(1, np.int8), np.ones(1)
    trainer.learn(2, 0, *events)
    assert trainer.table.rows_of(old, old & mask)[0] == -1
    assert trainer.table.rows_of(new, new & mask)[0] >= 0


def test_lost_items_are_published_as_nowhere() -> None:
    trainer = small_trainer()
    item = np.arange(1_200)
    columns = item, item, np.ones(1_200, np.int8), np.zeros(1_200, np.int8), item * 1_000
    made = trainer.learn(1, 0, *columns)
    gone = made.item[made.bias == np.float32(NOWHERE)]
    assert len(gone) >= 200
    assert (trainer.table.rows_of(gone, gone) == -1).all()


def test_replay_draws_whole_sequences_of_one_user() -> None:
    replay = Replay(size=512, reservoir=32, length=6, seed=0)
    user, item, *rest = walk(5_000, users=7)
    replay.append(user, user * 1_000 + item, *rest)  # the key tells whose event it is
    for _ in range(5):
        drawn = replay.draw(64, recent=0.5, recency=100)
        for keys, valid in zip(drawn.item, drawn.valid, strict=True):
            assert valid[-1] and len(set((keys[valid] // 1_000).tolist())) == 1
            assert (keys[~valid] == -1).all()


def test_the_reservoir_keeps_what_the_ring_has_lost() -> None:
    replay = Replay(size=256, reservoir=64, length=4, seed=0)
    n = np.arange(8_000)
    replay.append(n % 5, n, n * 0, n * 0, n * 1_000)  # the item's number is the event's
    ends = np.concatenate([replay.draw(64, 0.0, 1.0).item[:, -1] for _ in range(20)])
    assert (ends < 4_000).mean() > 0.3 and (ends >= 4_000).mean() > 0.3
