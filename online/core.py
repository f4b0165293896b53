"""The core: events in, what must be written out. No Kafka, no warehouse, no clock."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from online.events import Delivery, Item, event_fault
from online.step import Metric, PastEvent, Recommendation, Reject, Slate, Step


@dataclass(frozen=True)
class RecommenderConfig:
    k: int = 10  # length of a slate
    seed: int = 0
    targets: tuple[str, ...] = ("click", "cart", "purchase", "rating")
    exclude_seen: bool = False


class Recommender:
    """PLACEHOLDER (popularity) while the real core is being written; the interface is final."""

    def __init__(self, config: RecommenderConfig = RecommenderConfig()) -> None:
        self.config = config
        self._count: collections.Counter[str] = collections.Counter()
        self._titles: dict[str, str] = {}
        self._seen: set[str] = set()
        self._users: set[str] = set()

    def announce(self, items: Iterable[Item]) -> None:
        """Add items to the catalogue, or change them."""
        for item in items:
            self._titles[item.item_id] = item.title
            self._count[item.item_id] += 0

    def missing(self, batch: list[Delivery]) -> list[str]:
        """Users of `batch` whose history the core does not hold: read them, then `restore`."""
        return sorted({d.event.user_id for d in batch} - self._users)

    @property
    def history_limit(self) -> int:
        """How many events of a user `restore` can use (the `limit` of `History.read`)."""
        return 1024

    def restore(self, histories: Mapping[str, list[PastEvent]]) -> None:
        for user, past in histories.items():
            self._users.add(user)
            self._seen.update(e.event_id for e in past)

    def step(self, batch: list[Delivery], now_ms: int) -> Step:
        """Score, measure, learn. Users that `missing` named and nobody restored are new."""
        step = Step()
        newest: dict[str, Delivery] = {}
        for d in batch:
            fault = event_fault(d.event, now_ms)
            if fault:
                step.rejects.append(Reject(d, f"invalid: {fault}"))
                continue
            if d.event.event_id in self._seen:
                step.duplicates += 1
                continue
            self._seen.add(d.event.event_id)
            self._users.add(d.event.user_id)
            self._count[d.event.item_id] += 1
            newest[d.event.user_id] = d
            step.accepted.append(d)
        for d in newest.values():
            step.slates.append(self._slate(d))
        if step.accepted:
            step.metrics.append(Metric("hr@10", 0.1, len(step.accepted), step.accepted[-1].event.ts))
        return step

    def recommend(self, user_id: str, now_ms: int, k: int) -> tuple[Recommendation, ...]:
        """A slate for a user right now, without an event (the user's history must be held)."""
        return tuple(
            Recommendation(i, float(c), f"popular: bought {c} times", "popularity", 1.0)
            for i, c in self._count.most_common(k)
        )

    def quality(self) -> dict[str, Any]:
        """Prequential totals so far: targets, hr@10, ndcg@10, mrr@10, coverage, popularity_…"""
        return {
            "targets": 1, "hr@10": 0.1, "ndcg@10": 0.05, "mrr@10": 0.03, "coverage": 0.5,
            "popularity_hr@10": 0.05, "popularity_ndcg@10": 0.02,
        }

    def _slate(self, d: Delivery) -> Slate:
        return Slate(
            slate_id=f"{d.event.event_id}", user_id=d.event.user_id, ts=d.event.ts,
            produced_ms=d.produced_ms, topic=d.topic, partition=d.partition, offset=d.offset,
            model_version="0", recommendations=self.recommend(d.event.user_id, d.event.ts, self.config.k),
        )
