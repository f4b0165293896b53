"""The policy: from scores to slates. Greedy for now: the best k, each with propensity 1."""

from __future__ import annotations

import numpy as np

from online.compiled import brief


@brief
def _before(scores: np.ndarray, items: np.ndarray, r: int, other: int) -> bool:
    return scores[r] > scores[other] or (scores[r] == scores[other] and items[r] < items[other])


@brief
def choose(
    scores: np.ndarray, start: np.ndarray, items: np.ndarray, showable: np.ndarray, out: np.ndarray
) -> None:
    """Rows of the best of each list, best first; ties by slot, so that equal scores give equal
    slates.

    scores, items (slots), showable: (N,); start: (L + 1,) the lists' bounds; out: (L, k), filled
    with -1 where fewer than k may be shown.

    >>> out = np.zeros((1, 2), np.int64)
    >>> scores, items = np.array([0.1, 0.9, 0.9], np.float32), np.array([7, 9, 8], np.int32)
    >>> choose(scores, np.array([0, 3]), items, np.ones(3, np.bool_), out)
    >>> out.tolist()
    [[2, 1]]
    """
    k = out.shape[1]
    for e in range(len(start) - 1):
        n = 0
        for r in range(start[e], start[e + 1]):
            if not showable[r] or (n == k and not _before(scores, items, r, out[e, k - 1])):
                continue
            at = min(n, k - 1)
            while at > 0 and _before(scores, items, r, out[e, at - 1]):
                out[e, at] = out[e, at - 1]
                at -= 1
            out[e, at] = r
            n = min(n + 1, k)
        out[e, n:] = -1
