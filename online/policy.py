"""The policy: from scores to a slate. Greedy for now: the best k, each with propensity 1."""

from __future__ import annotations

import numpy as np


def choose(scores: np.ndarray, showable: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """Rows of the slate, best first; ties by slot, so that equal scores give equal slates.

    scores: (N,); showable: (N,) bool; items: (N,) slots. At most k rows, fewer when fewer may be
    shown.

    >>> choose(np.array([0.1, 0.9, 0.9]), np.ones(3, bool), np.array([7, 9, 8]), 2).tolist()
    [2, 1]
    """
    allowed = np.flatnonzero(showable)
    order = np.lexsort((items[allowed], -scores[allowed]))
    rows: np.ndarray = allowed[order[:k]]
    return rows
