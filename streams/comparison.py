"""Is B better than A, for whom, and could it be chance? Statistics of paired backtests.

Method: every target was ranked by both, so each gives one difference of gains. Targets of one
user are alike, hence whole users are drawn with replacement, as many as there are, and the mean
difference of the targets drawn is taken; the interval is from the 2.5th to the 97.5th percentile
of many such means (Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13).

It tells how much hangs on who happened to be in the log. It does not know how much hangs on the
seed: the rankers learn from all users together, and each backtest is one run of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from online.contest import ndcg
from streams.pairing import Pairs

RESAMPLES = 2_000
CONFIDENCE = 0.95
FEW = 10  # users; percentiles of fewer are too narrow (Cameron, Gelbach & Miller 2008)
HOUR_MS = 3_600_000
MONTH_MS = 30 * 24 * HOUR_MS
MEASURES = ("ndcg@10", "hr@10")
Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """Means over the targets of a segment. No interval: too few users for one."""

    a: float
    b: float
    difference: float  # b - a
    interval: Interval | None


@dataclass(frozen=True)
class Segment:
    """Some of the targets. Those of one group have no target in common; `same time` is a part."""

    group: str
    name: str
    targets: int
    users: int
    measures: dict[str, Difference]  # empty without targets


def segments(pairs: Pairs) -> Iterator[tuple[str, str, np.ndarray]]:
    """Group, name and (N,) mask of each segment. A user's very first event is in no gap."""
    first, rare, gap = pairs.user_events < 3, pairs.item_events <= 4, pairs.gap_ms
    yield "all", "all targets", np.full(len(gap), True)
    yield "user", "first 3 of a user", first
    yield "user", "later ones", ~first
    yield "item", "rare items (0-4)", rare
    yield "item", "other items", ~rare
    yield "gap", "gap over 30 days", gap > MONTH_MS
    yield "gap", "gap 1 h to 30 days", (gap >= HOUR_MS) & (gap <= MONTH_MS)
    yield "gap", "gap under 1 h", (gap >= 0) & (gap < HOUR_MS)
    yield "tie", "at the same time", pairs.same_time


def compare(pairs: Pairs, seed: int = 0, resamples: int = RESAMPLES) -> list[Segment]:
    """All targets and every segment, each with its means, differences and intervals."""
    chosen = list(segments(pairs))
    a, b = gains(pairs.a), gains(pairs.b)
    sums = np.stack([_user_sums(pairs.user, mask, b - a) for *_, mask in chosen])
    drawn = resampled(sums.reshape(-1, sums.shape[2]), seed, resamples)
    drawn = drawn.reshape(resamples, len(chosen), -1)
    found = []
    for n, (group, name, mask) in enumerate(chosen):
        users = int(np.count_nonzero(sums[n, 0]))
        measures = {}
        for m, measure in enumerate(MEASURES if mask.any() else ()):
            interval = _interval(drawn[:, n, 1 + m], drawn[:, n, 0]) if users >= FEW else None
            means = float(a[m, mask].mean()), float(b[m, mask].mean())
            difference = float(sums[n, 1 + m].sum() / sums[n, 0].sum())
            measures[measure] = Difference(*means, difference, interval)
        found.append(Segment(group, name, int(mask.sum()), users, measures))
    return found


def gains(rank: np.ndarray) -> np.ndarray:
    """(M, N) NDCG@10 and HR@10 of each target, as the backtest's report has them.

    >>> gains(np.array([1.0, 3.0, np.inf])).tolist()
    [[1.0, 0.5, 0.0], [1.0, 1.0, 0.0]]
    """
    return np.stack([ndcg(rank), (rank <= 10).astype(float)])


def resampled(sums: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """(R, C) totals over users drawn with replacement, from (C, U) sums of each user."""
    rng = np.random.default_rng(seed)
    users = sums.shape[1]
    by_user = np.ascontiguousarray(sums.T)
    out = np.empty((resamples, len(sums)))
    for r in range(resamples):  # one by one: all draws at once would not fit for a million users
        times = np.bincount(rng.integers(users, size=users), minlength=users)
        out[r] = times.astype(float) @ by_user
    return out


def _user_sums(user: np.ndarray, mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(1 + M, U) how many targets each user has in the segment, then sums of (M, N) values."""
    users, chosen = int(user.max()) + 1, user[mask]
    weights = [np.ones(len(chosen)), *values[:, mask]]
    return np.stack([np.bincount(chosen, w, minlength=users) for w in weights])


def _interval(sums: np.ndarray, targets: np.ndarray) -> Interval:
    """Percentiles of the means of resamples; one that drew nobody of the segment has none."""
    means = sums[targets > 0] / targets[targets > 0]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
