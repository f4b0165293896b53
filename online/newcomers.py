"""A share of the places for items that nobody took yet.

What has never been taken is hardly ever taken next, so a ranker that learns what is taken puts it
last, and it stays there: the rich get richer (Chaney et al. 2018). So one of `every` places goes to
the newcomer that suits the user best, unless one is among the best anyhow. Which suits best is
learned too, by a ranker of its own, from the lists whose target was a newcomer, against the other
newcomers of the list.
"""

from __future__ import annotations

import math

import numpy as np

from online.compiled import brief
from online.features import NAMES
from online.listwise import softmax
from online.ranker import Array, LinearRanker, RankerConfig
from online.state import State

TAKEN = NAMES.index("popularity")  # the logarithm of 1 + how often
MOST_EVERY = 64
LEAST = 0.15  # chance among the newcomers of the list that the best one must have


@brief
def _lift(
    score: np.ndarray, suits: np.ndarray, candidate: np.ndarray, start: np.ndarray, every: int,
    least: float,
) -> None:  # fmt: skip
    """Give the best candidate of each list place `every`, if none has a better one, and if its
    chance among them is `least`.

    score, suits: (N,) f4; candidate: (N,) bool; start: (L + 1,).
    """
    best = np.empty(every, np.float32)
    for e in range(len(start) - 1):
        n, newcomer, suited = 0, -1, np.float32(-np.inf)
        for r in range(start[e], start[e + 1]):
            if candidate[r] and suits[r] > suited:
                newcomer, suited = r, suits[r]
            if n == every and score[r] <= best[every - 1]:
                continue
            at = min(n, every - 1)
            while at > 0 and best[at - 1] < score[r]:
                best[at] = best[at - 1]
                at -= 1
            best[at] = score[r]
            n = min(n + 1, every)
        if newcomer < 0 or n < every:
            continue
        total = 0.0
        for r in range(start[e], start[e + 1]):
            if candidate[r]:
                total += math.exp(suits[r] - suited)
        if total * least > 1.0:
            continue
        there = False
        for r in range(start[e], start[e + 1]):
            there = there or (candidate[r] and score[r] >= best[every - 1])
        if not there:
            score[newcomer] = np.nextafter(best[every - 1], np.float32(np.inf))


class Newcomers:
    """every: one of so many places is for a newcomer; 0: none is."""

    def __init__(self, config: RankerConfig, every: int) -> None:
        self.ranker = LinearRanker(config)
        self._every = every

    def lift(self, raw: Array, x: Array, start: Array, score: Array, shown: Array) -> None:
        """Move newcomers up, in place. raw: rows (N, FEATURES) with logarithms taken; x: scaled;
        score: (N,); shown: (N,) which may be."""
        candidate = (raw[:, TAKEN] == 0.0) & shown
        if self._every and candidate.any():
            suits = np.empty(len(raw), np.float32)
            self.ranker.score(x, np.array([0, len(raw)]), suits)
            _lift(score, suits, candidate, start - start[0], self._every, LEAST)

    def learn(self, raw: Array, x: Array, start: Array, proposed: Array, place: Array) -> None:
        """Learn from those lists whose target is a newcomer that was proposed. What was not
        proposed resembles less than what was: learned from, it would teach the opposite.

        proposed: (L,) how many rows were; place: (L,) rows of targets, -1.
        """
        for e in np.flatnonzero((place >= 0) & (place < start[:-1] + proposed)).tolist():
            if raw[place[e], TAKEN] != 0.0:
                continue
            some_raw = raw[start[e] : start[e] + proposed[e]]
            rows = start[e] + np.flatnonzero(some_raw[:, TAKEN] == 0.0)
            if len(rows) < 2:
                continue
            some, bounds = np.ascontiguousarray(x[rows]), np.array([0, len(rows)])
            p = np.empty(len(rows), np.float32)
            self.ranker.score(some, bounds, p)
            softmax(p, bounds, p)
            target = np.searchsorted(rows, place[e : e + 1])
            self.ranker.learn(some, bounds, p, target, np.ones(1, np.float32))

    def state(self) -> State:
        return self.ranker.state()

    def restore(self, state: State) -> None:
        self.ranker.restore(state)
