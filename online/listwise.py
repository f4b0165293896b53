"""Lists in flat arrays: softmax, loss and ranks of ragged candidate lists.

List e of a batch lies in rows start[e] .. start[e + 1]. `place[e]` is the row of its target, or -1
when it has none. The last row of a list may be a target that no source proposed (`proposed[e]` rows
were): it is learned from, but it never counts as ranked.
"""

from __future__ import annotations

import numpy as np

from online.compiled import brief


@brief
def softmax(scores: np.ndarray, start: np.ndarray, out: np.ndarray) -> None:
    """Probabilities of each list's rows. Shapes: scores, out (N,) f4; start (E + 1,) i8."""
    for e in range(len(start) - 1):
        a, b = start[e], start[e + 1]
        if a == b:
            continue
        top = scores[a]
        for r in range(a + 1, b):
            top = max(top, scores[r])
        total = np.float32(0.0)
        for r in range(a, b):
            out[r] = np.exp(scores[r] - top)
            total += out[r]
        scale = np.float32(1.0) / total
        for r in range(a, b):
            out[r] *= scale


@brief
def gradient(
    p: np.ndarray, start: np.ndarray, place: np.ndarray, weight: np.ndarray, out: np.ndarray
) -> None:
    """d loss / d score of the listwise softmax loss, the mean over all lists with a target.

    weight: (E,) f4, how much each list counts. Cao et al. (2007), "Learning to rank: from pairwise
    approach to listwise approach" (ListNet, with all relevance on the item that the user took).
    """
    lists = 0
    for e in range(len(place)):
        lists += place[e] >= 0
    for e in range(len(place)):
        w = weight[e] / np.float32(max(lists, 1)) if place[e] >= 0 else np.float32(0.0)
        for r in range(start[e], start[e + 1]):
            out[r] = p[r] * w
        if place[e] >= 0:
            out[place[e]] -= w


@brief
def ranks(
    scores: np.ndarray, start: np.ndarray, proposed: np.ndarray, place: np.ndarray,
    unproposed: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    """Rank of each list's target: 1 + better ones + half of the ties; inf for an unknown item.

    A target that was not proposed ties with the `unproposed[e]` items that were not either.
    """
    for e in range(len(place)):
        a, target = start[e], place[e]
        if target < 0:
            out[e] = np.inf
        elif target >= a + proposed[e]:
            out[e] = 1.0 + proposed[e] + 0.5 * max(unproposed[e] - 1, 0)
        else:
            better, ties = 0, 0
            for r in range(a, a + proposed[e]):
                better += scores[r] > scores[target]
                ties += scores[r] == scores[target]
            out[e] = 1.0 + better + 0.5 * (ties - 1)
