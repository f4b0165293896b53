"""The products of all items' vectors with a query, quickly.

BLAS multiplies a matrix that lies by items with one query at a third of the processor's speed, for
each item's sum has to be gathered from its lanes. Here vectors lie across, component by component
for 64 items at a time, so each lane keeps an item's sum for itself. A product's bits depend on the
item and the query alone, whatever lies beside them.
"""

from __future__ import annotations

import numpy as np

from online.compiled import compiled, fused
from online.sequence import NOWHERE

WIDE = 64  # items of a block
GROWTH = 1.25  # of blocks, when there are too few


@compiled
def _lay(vector: np.ndarray, slots: np.ndarray, rows: int, blocks: np.ndarray) -> None:
    for j in slots:
        if j < rows:
            block, lane = blocks[j // WIDE], j % WIDE
            for d in range(vector.shape[1]):
                block[d, lane] = vector[j, d]


@fused
def _multiply(block: np.ndarray, query: np.ndarray, products: np.ndarray) -> None:
    """products (WIDE,) of the items of a block (D, WIDE). Four components at a time: to read and
    write the sums costs more than to multiply."""
    products[:] = np.float32(0.0)
    fours = len(query) // 4 * 4
    for d in range(0, fours, 4):
        p, q, r, s = query[d], query[d + 1], query[d + 2], query[d + 3]
        for i in range(WIDE):
            products[i] = (
                products[i] + p * block[d, i] + q * block[d + 1, i]
                + r * block[d + 2, i] + s * block[d + 3, i]
            )  # fmt: skip
    for d in range(fours, len(query)):
        for i in range(WIDE):
            products[i] += query[d] * block[d, i]


@compiled
def _any(items: np.ndarray, n: int, item: int) -> bool:
    for k in range(n):
        if items[k] == item:
            return True
    return False


@compiled
def _insert(
    value: np.float32, name: int, score: np.ndarray, near: np.ndarray, n: int
) -> int:  # fmt: skip
    """Put an item among the n best; of equal ones who came first stays before. How many there are
    then."""
    at = min(n, len(near) - 1)
    while at > 0 and score[at - 1] < value:
        score[at], near[at] = score[at - 1], near[at - 1]
        at -= 1
    score[at], near[at] = value, name
    return min(n + 1, len(near))


@compiled
def select(
    blocks: np.ndarray, bias: np.ndarray, key: np.ndarray, items: int, query: np.ndarray,
    own: np.ndarray, owned: np.ndarray, near: np.ndarray,
) -> None:  # fmt: skip
    """Keep the keys of the best of all items, best first, in near (n, NEAR); -1 beyond them.

    query: (n, D); best: by product and bias; own: (n, H) items that are left out, the first
    owned (n,) of each. A block serves all users while it is in the processor's cache.
    """
    value, score = np.empty(WIDE, np.float32), np.full(near.shape, NOWHERE, np.float32)
    held = np.zeros(len(query), np.int64)
    for b in range((items + WIDE - 1) // WIDE):
        first = b * WIDE
        lanes = min(WIDE, items - first)
        for e in range(len(query)):
            _multiply(blocks[b], query[e], value)
            over, least = 0, score[e, -1]
            for i in range(lanes):
                value[i] += bias[first + i]
                over += value[i] > least
            if over == 0:  # as in most blocks: to look at each item by itself takes longer
                continue
            for i in range(lanes):
                if value[i] <= score[e, -1] or _any(own[e], owned[e], first + i):
                    continue
                held[e] = _insert(value[i], key[first + i], score[e], near[e], held[e])
    for e in range(len(query)):
        near[e, held[e] :] = -1


class Across:
    """Vectors (I, D), as far as they were asked for, lying across."""

    def __init__(self) -> None:
        self._vector = np.zeros((0, 0), np.float32)
        self._blocks = np.zeros((0, 0, WIDE), np.float32)
        self._rows = 0

    def changed(self, vector: np.ndarray, slots: np.ndarray) -> None:
        """These (N,) are new."""
        if vector is self._vector:
            _lay(vector, slots, self._rows, self._blocks)

    def blocks(self, vector: np.ndarray, rows: int) -> np.ndarray:
        """(≥ rows / WIDE, D, WIDE): the first rows (or more). Another array is laid anew."""
        if vector is not self._vector:
            self._vector, self._rows = vector, 0
            self._blocks = np.zeros((0, vector.shape[1], WIDE), np.float32)
        if rows > self._rows:
            if rows > len(self._blocks) * WIDE:
                room = -(-int(GROWTH * rows) // WIDE)
                more = np.zeros((room - len(self._blocks), vector.shape[1], WIDE), np.float32)
                self._blocks = np.concatenate([self._blocks, more])
            _lay(vector, np.arange(self._rows, rows), rows, self._blocks)
            self._rows = rows
        return self._blocks
