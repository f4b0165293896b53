"""Prequential quality: each event's item was ranked before it was learned (Gama et al. 2013)."""

from __future__ import annotations

import numpy as np
from river import stats

from online.contest import ndcg
from online.state import State
from online.step import Metric

NAMES = ("hr@10", "ndcg@10", "mrr@10", "popularity_hr@10", "popularity_ndcg@10")


def measures(rank: np.ndarray, popular: np.ndarray) -> dict[str, np.ndarray]:
    """HR@10, NDCG@10 and MRR@10 per target, and the first two for plain popularity.

    rank, popular: (N,) ranks from 1; inf for an item that was not known.

    >>> measures(np.array([1.0, 3.0, 11.0]), np.array([2.0, 9.0, np.inf]))["ndcg@10"].tolist()
    [1.0, 0.5, 0.0]
    """
    hit, popular_hit = rank <= 10, popular <= 10
    return {
        "hr@10": hit.astype(float),
        "ndcg@10": ndcg(rank),
        "mrr@10": np.where(hit, 1.0 / np.maximum(rank, 1.0), 0.0),
        "popularity_hr@10": popular_hit.astype(float),
        "popularity_ndcg@10": ndcg(popular),
    }


class Quality:
    """Totals over all targets so far."""

    def __init__(self) -> None:
        self._means = {name: stats.Mean() for name in NAMES}
        self.targets = 0

    def update(self, rank: np.ndarray, popular: np.ndarray, ts: int) -> list[Metric]:
        """Add targets; their own means as metrics at event time `ts`."""
        if len(rank) == 0:
            return []
        self.targets += len(rank)
        found = []
        for name, values in measures(rank, popular).items():
            found.append(Metric(name, float(values.mean()), len(rank), ts))
            for value in values.tolist():  # one by one: the same sum however batches are cut
                self._means[name].update(value)
        return found

    def state(self) -> State:
        means = {name: [mean.n, mean._mean] for name, mean in self._means.items()}
        return {"targets": self.targets, "means": means}

    def restore(self, state: State) -> None:
        self.targets = state["targets"]
        for name, (n, mean) in state["means"].items():
            self._means[name].n, self._means[name]._mean = n, mean

    def totals(self) -> dict[str, float]:
        return {name: float(mean.get()) for name, mean in self._means.items()}
