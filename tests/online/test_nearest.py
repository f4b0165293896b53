"""Which items are nearest to a user, among all: as sorting says, whatever lies beside them."""

from __future__ import annotations

import numpy as np
import pytest

from online.across import WIDE, Across, select
from online.sequence import NEAR, NOWHERE

WIDTH = 10  # not a multiple of the four components that are multiplied at a time


def nearest(
    across: Across, vector: np.ndarray, bias: np.ndarray, query: np.ndarray,
    own: list[list[int]] | None = None,
) -> np.ndarray:  # fmt: skip
    """(n, NEAR) keys, which are the slots here."""
    items, had = len(bias), own or [[] for _ in query]
    held = np.full((len(query), 8), -1, np.int32)
    for row, some in zip(held, had, strict=True):
        row[: len(some)] = some
    found = np.full((len(query), NEAR), -7, np.int32)
    select(
        across.blocks(vector, items), bias, np.arange(items, dtype=np.int32), items, query, held,
        np.array([len(some) for some in had]), found,
    )  # fmt: skip
    return found


@pytest.mark.parametrize("items", [1, NEAR, WIDE, WIDE + 1, 1_000])
def test_the_nearest_are_those_that_sorting_puts_first(items: int) -> None:
    rng = np.random.default_rng(items)
    vector = rng.normal(size=(items + 50, WIDTH)).astype(np.float32)  # 50 slots are not in use
    bias, query = rng.normal(size=items).astype(np.float32), rng.normal(size=(3, WIDTH))
    bias[::5] = NOWHERE
    own = [[], [1 % items, 2 % items], [3 % items]]
    found = nearest(Across(), vector, bias, query.astype(np.float32), own)
    for one, mine, keys in zip(query, own, found, strict=True):
        score = vector[:items] @ one.astype(np.float32) + bias
        score[mine] = NOWHERE
        best = [j for j in np.argsort(-score) if score[j] != NOWHERE][:NEAR]
        assert keys.tolist() == best + [-1] * (NEAR - len(best))


def test_who_else_asks_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    vector = np.repeat(rng.normal(size=(40, WIDTH)), 25, axis=0)  # 25 items are quite alike:
    vector = (vector + 1e-7 * rng.normal(size=vector.shape)).astype(np.float32)  # bits decide
    bias, query = np.zeros(1_000, np.float32), rng.normal(size=(8, WIDTH)).astype(np.float32)
    across = Across()
    together = nearest(across, vector, bias, query)
    alone = [nearest(across, vector, bias, query[k : k + 1])[0].tolist() for k in range(8)]
    assert together.tolist() == alone


def test_new_vectors_and_new_items_are_found() -> None:
    rng = np.random.default_rng(2)
    vector, query = np.zeros((300, WIDTH), np.float32), np.ones((1, WIDTH), np.float32)
    vector[:] = rng.normal(size=vector.shape)
    across, bias = Across(), np.zeros(100, np.float32)
    nearest(across, vector, bias, query)
    vector[[7, 150]] = 9.0
    across.changed(vector, np.array([7, 150]))
    assert nearest(across, vector, bias, query)[0, 0] == 7  # 150 is not in use yet
    bias = np.zeros(300, np.float32)
    assert nearest(across, vector, bias, query)[0, :2].tolist() == [7, 150]
    longer = np.concatenate([vector, np.full((1, WIDTH), 99.0, np.float32)])
    across.changed(longer, np.array([300]))  # of an array that was not asked for yet
    assert nearest(across, longer, np.zeros(301, np.float32), query)[0, 0] == 300
