"""What the sequence encoder says of a list's candidates, as features."""

from __future__ import annotations

import math

import numpy as np

from online.compiled import compiled
from online.features import LAST_RANK, LEAST, NAMES, SEQUENCE_FEATURES, Scratch
from online.sequence import NOWHERE, Sequences, newest_item

FIRST = len(NAMES) - SEQUENCE_FEATURES
SCORE, SHARE, RANK, LAST, RECENT = range(FIRST, len(NAMES))
NEWEST = 5  # items whose mean direction counts for RECENT
TOP_10 = -math.log(10.5)  # what RANK exceeds for the ten best


@compiled
def _directions(q: Sequences, s: Scratch, length: int, to: np.ndarray) -> None:
    """Columns of `to` (D, 3): the query, the newest item's direction, the newest few ones' mean."""
    items, inverse, vector = s.items, q.inverse, q.vector
    m, p = min(length, NEWEST), newest_item(s, 0, length)
    last = items[p if p < length else 0]
    for k in range(len(to)):
        to[k, 0] = s.query[k]
        to[k, 1] = vector[last, k] * inverse[last]
        mean = np.float32(0.0)
        for p in range(m):
            mean += vector[items[p], k] * inverse[items[p]]
        to[k, 2] = mean / np.float32(m)


@compiled
def write(
    q: Sequences, s: Scratch, asked: bool, length: int, cand: np.ndarray, rows: int, x: np.ndarray
) -> None:
    """Fill the last columns of x (rows, FEATURES) for the candidates `cand[:rows]`.

    asked: `s.query` holds the user's query; length: events of the user in `s.items`.
    """
    if not asked:
        for c in range(rows):
            x[c, SCORE], x[c, SHARE], x[c, RANK] = LEAST, 0.0, LAST_RANK
            x[c, LAST], x[c, RECENT] = 0.0, 0.0
        return
    width = q.vector.shape[1]
    block, to = np.empty((rows, width), np.float32), np.empty((width, 3), np.float32)
    vector, bias, inverse = q.vector, q.bias, q.inverse
    for c in range(rows):
        for k in range(width):
            block[c, k] = vector[cand[c], k]
    _directions(q, s, length, to)
    products = np.dot(block, to)
    score = np.empty(rows, np.float32)
    top = NOWHERE
    for c in range(rows):
        nowhere = bias[cand[c]] == NOWHERE
        score[c] = NOWHERE
        if not nowhere:
            score[c] = products[c, 0] + bias[cand[c]]
        top = max(top, score[c])
    total = np.float32(0.0)
    for c in range(rows):
        total += np.exp(score[c] - top)
    normal = np.log(total)
    order = np.argsort(-score)
    for rank in range(rows):
        c = order[rank]
        x[c, SCORE] = max(score[c] - top - normal, LEAST)
        x[c, SHARE] = np.exp(np.float32(0.5) * (score[c] - top))
        x[c, RANK] = -math.log(1.0 + rank)
        x[c, LAST] = products[c, 1] * inverse[cand[c]]
        x[c, RECENT] = products[c, 2] * inverse[cand[c]]
