"""The index over item vectors: what it finds while items come, move and go."""

from __future__ import annotations

import numpy as np
import pytest

from encoders.index import ApproximateIndex, IndexConfig
from online.sequence import NOWHERE
from streams.bench.index import WIDTH, clustered, moved, recall_at, wishes

QUICK = IndexConfig(links=16, adding=64)
NOTHING = (np.arange(0), np.zeros((0, WIDTH), np.float32), np.zeros(0, np.float32))


def settle(index: ApproximateIndex) -> None:
    while index.waiting:
        index.update(*NOTHING)


def world(items: int, config: IndexConfig = QUICK, seed: int = 0):
    """Vectors, biases, an index that holds them, and what further chance comes from."""
    rng = np.random.default_rng(seed)
    vectors, bias = clustered(items, rng)
    index = ApproximateIndex(WIDTH, config)
    index.update(np.arange(items), vectors, bias)
    return vectors, bias, index, rng


def move(index: ApproximateIndex, vectors, bias, some: np.ndarray, step: float, rng) -> None:
    vectors[some] = moved(vectors[some], step, rng)
    index.update(some, vectors[some], bias[some])


def test_an_empty_index_finds_nothing() -> None:
    index = ApproximateIndex(WIDTH)
    assert index.search(np.ones((2, WIDTH), np.float32), 3).tolist() == [[-1] * 3] * 2
    index.update(*NOTHING)
    assert index.search(np.ones((0, WIDTH), np.float32), 3).shape == (0, 3)


@pytest.mark.parametrize("settled", [False, True])
def test_a_few_items_are_all_found_best_first(settled: bool) -> None:
    vectors, bias, index, rng = world(20, IndexConfig(at_once=5))
    if settled:
        settle(index)
    for query, found in zip(q := wishes(vectors, 8, rng), index.search(q, 30), strict=True):
        best = np.argsort(-(vectors @ query + bias))
        assert found.tolist() == [*best.tolist(), *[-1] * 10]


def test_large_biases_are_found_too() -> None:
    vectors, bias, index, rng = world(3_000, IndexConfig())
    bias *= 6.0
    index.update(np.arange(3_000), vectors, bias)
    settle(index)
    assert recall_at(index, vectors, bias, wishes(vectors, 64, rng), 50) >= 0.95


def test_recall_while_all_items_drift() -> None:
    vectors, bias, index, rng = world(8_000, IndexConfig())
    least = recall_at(index, vectors, bias, wishes(vectors, 32, rng), 100)  # most still wait
    settle(index)
    for turn in range(24):
        move(index, vectors, bias, rng.choice(8_000, 1_200, replace=False), 0.1, rng)
        for _ in range(8):
            index.search(wishes(vectors, 4, rng), 100)
        if turn % 4 == 3:
            recall = recall_at(index, vectors, bias, wishes(vectors, 96, rng), 100)
            least = min(least, recall)
    assert index.added > 10_000  # they moved far enough that many were added again
    assert least >= 0.95


def test_new_vectors_serve_at_once() -> None:
    vectors, bias, index, rng = world(2_000)
    settle(index)
    move(index, vectors, bias, np.arange(2_000), 2.0, rng)
    assert index.waiting > 1_900
    assert recall_at(index, vectors, bias, wishes(vectors, 64, rng), 50) >= 0.99


def test_a_small_move_costs_no_node() -> None:
    vectors, bias, index, rng = world(2_000)
    settle(index)
    move(index, vectors, bias, np.arange(2_000), 0.05, rng)
    assert index.waiting == 0 and index.added == 2_000
    for _ in range(40):  # but many small ones add up
        move(index, vectors, bias, np.arange(2_000), 0.05, rng)
    assert index.added > 2_500


def test_what_vanished_is_never_found() -> None:
    vectors, bias, index, rng = world(1_500, IndexConfig(at_once=16, links=16, adding=64))
    gone = np.zeros(1_500, np.bool_)
    for _ in range(150):
        move(index, vectors, bias, np.flatnonzero(~gone)[:200], 0.3, rng)
        some = rng.integers(0, 1_500, 12)
        gone[some] = True
        bias[some] = NOWHERE
        index.update(some, np.zeros((12, WIDTH), np.float32), bias[some])
        back = rng.integers(0, 1_500, 5)
        gone[back] = False
        bias[back] = 0.0
        assert index.search(np.zeros((0, WIDTH), np.float32), 64).shape == (0, 64)
        index.update(back, vectors[back], bias[back])
        found = index.search(wishes(vectors, 4, rng), 64)
        assert not gone[found[found >= 0]].any()
        assert all(len(set(row)) == len(row) for row in found.tolist())
    assert index.rebuilt


def test_all_may_vanish() -> None:
    vectors, bias, index, rng = world(300)
    settle(index)
    bias[:] = NOWHERE
    index.update(np.arange(300), vectors, bias)
    for _ in range(20):
        assert (index.search(wishes(vectors, 2, rng), 5) == -1).all()
    assert index.entries == 0


def test_no_call_adds_more_than_its_bound_and_memory_stays_bounded() -> None:
    items = 1_500
    vectors, bias, index, rng = world(items, IndexConfig(at_once=24, links=16, adding=64))
    added, most = index.added, 0
    for turn in range(600):
        queries = turn % 3  # 0: an update
        if queries:
            index.search(wishes(vectors, queries, rng), 10)
        else:
            move(index, vectors, bias, rng.choice(items, 20, replace=False), 0.3, rng)
        assert index.added - added <= (8 * queries if queries else 24)
        assert index.waiting <= items
        added, most = index.added, max(most, index.entries)
    assert index.rebuilt >= 2
    assert items * 1.5 < most <= items * 3
    settle(index)
    assert recall_at(index, vectors, bias, wishes(vectors, 64, rng), 50) >= 0.95


def test_the_same_calls_give_the_same_answers() -> None:
    def answers() -> list[list[list[int]]]:
        vectors, bias, index, rng = world(1_200)
        found = []
        for _ in range(60):
            move(index, vectors, bias, rng.integers(0, 1_200, 80), 0.3, rng)
            found.append(index.search(wishes(vectors, 3, rng), 32).tolist())
        assert index.rebuilt
        return found

    assert answers() == answers()


def test_an_answer_does_not_depend_on_who_else_asks() -> None:
    vectors, bias, index, rng = world(1_000)
    settle(index)
    queries = wishes(vectors, 16, rng)
    together = index.search(queries, 32)
    alone = [index.search(one[None], 32)[0] for one in queries]
    assert (together == np.array(alone)).all()
