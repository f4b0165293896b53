"""Where the text that goes with another one ranks among all, by the product of vectors."""

from __future__ import annotations

import numpy as np


def ranks(a: np.ndarray, items: np.ndarray, right: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The rank (N,) of each text's item among all by the product of vectors; ties count half.

    a: (N, D); items: (I, D); right: (N,) the items' rows; own: (N,) rows left out, -1: none
    """
    found = np.empty(len(a))
    for at in range(0, len(a), 512):
        part = slice(at, at + 512)
        scores = a[part] @ items.T
        rows = np.arange(len(scores))
        target = scores[rows, right[part]][:, None]
        out = own[part] >= 0
        scores[rows[out], own[part][out]] = -np.inf
        found[part] = 1 + (scores > target).sum(1) + ((scores == target).sum(1) - 1) / 2
    return found


def place_among(some: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Where each text (N,) is in `some`, which are in order; -1: it is not there."""
    at = np.minimum(np.searchsorted(some, texts), len(some) - 1)
    return np.where(some[at] == texts, at, -1)
