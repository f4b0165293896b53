"""What the demo's screen shows, read as any program would: the worker's /health, and SQL.

SQL is asked every few polls only: the embedded warehouse answers on the worker's own processor.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from online.events import Event, Item
from streams.screen import Frame, Line, Shopper
from streams.sql_client import SqlClient

LINES = 8  # recommendations read for each shopper
RECENT_MS = 3_000  # freshness on the screen is that of the last seconds
SQL_EVERY = 4  # polls
RATE_POLLS = 6  # events/s is that of so many polls
SPANS = 10  # of the log: shoppers are chosen who come back in many of them

# of all targets so far: each row is the mean of one batch's
METRICS = """
SELECT name, sum(value * count) / sum(count) FROM metrics FINAL GROUP BY name HAVING sum(count) > 0
"""
MEASURED = "SELECT sum(count) FROM metrics FINAL WHERE name = 'hr@10'"
FRESHNESS = """
SELECT count(), quantile(0.5)(written_ms - produced_ms), quantile(0.99)(written_ms - produced_ms)
FROM events WHERE {clock}_ms >= {{since:Int64}}
"""
SLATES = """
SELECT user_id, item_id, reason, slate_id FROM live_recommendations
WHERE user_id IN {users:Array(String)} AND position <= {lines:UInt8} ORDER BY user_id, position
"""
HISTORIES = """
SELECT user_id, count(), argMax(item_id, (batch, batch_pos)) FROM events
WHERE user_id IN {users:Array(String)} GROUP BY user_id
"""


def choose_shoppers(events: Sequence[Event], count: int) -> list[str]:
    """Users who come back throughout the log, those with few events first; always the same."""
    spans: dict[str, set[int]] = collections.defaultdict(set)
    sizes: collections.Counter[str] = collections.Counter()
    for number, event in enumerate(events):
        spans[event.user_id].add(number * SPANS // len(events))
        sizes[event.user_id] += 1
    return sorted(spans, key=lambda user: (-len(spans[user]), sizes[user], user))[:count]


class Watch:
    """Polls the warehouse and keeps the course of each measurement (one value per poll)."""

    def __init__(
        self,
        health: Callable[[], dict[str, Any]],
        sql: SqlClient,
        items: Mapping[str, Item],
        shoppers: list[str],
        began: float,
    ) -> None:
        self._health = health
        self._sql = sql
        self._polls = 0
        self._fresh: dict[str, float] = {}  # as last read
        self._items = items
        self._shoppers = shoppers
        self._slates: dict[str, tuple[str, list[str], list[str]]] = {}  # id, items, the new ones
        self._began = began  # of the demo, on the monotonic clock
        self._counts = collections.deque([(time.monotonic(), 0)], maxlen=RATE_POLLS)
        self.written = 0
        self.series: dict[str, list[float]] = collections.defaultdict(list)
        self.shoppers: tuple[Shopper, ...] = ()

    def poll(self) -> None:
        """Read everything that is due. Raises SqlError."""
        health = self._health()
        if "events_total" in health:  # else it did not answer: the next poll tells
            self._count(int(health["events_total"]))
            for name, value in health["quality"].items():
                self.series[name].append(float(value))
        if self._polls % SQL_EVERY == 0:
            fresh = self.freshness(time.time_ns() // 1_000_000 - RECENT_MS, clock="written")
            self._fresh = fresh if fresh["rows"] else self._fresh
            self.shoppers = self._read_shoppers()
        if self._fresh:
            self.series["p50"].append(self._fresh["p50_ms"])
            self.series["p99"].append(self._fresh["p99_ms"])
        self._polls += 1

    def _count(self, written: int) -> None:
        self.written = written
        before_s, before = self._counts[0]
        self._counts.append((time.monotonic(), written))
        if written:
            rate = (written - before) / max(self._counts[-1][0] - before_s, 1e-3)
            self.series["rates"].append(rate)

    def freshness(self, since_ms: int, clock: str = "produced") -> dict[str, float]:
        """Written minus produced of the events since `since_ms`: `rows`, `p50_ms`, `p99_ms`."""
        ((rows, p50, p99),) = self._sql.rows(FRESHNESS.format(clock=clock), since=since_ms)
        return {"rows": int(rows), "p50_ms": float(p50 or 0), "p99_ms": float(p99 or 0)}

    def items(self) -> int:
        """Items that the worker has taken into the catalogue."""
        return int(self._health().get("items", 0))

    def metrics(self) -> dict[str, float]:
        """Every metric over all targets so far."""
        return {name: float(value) for name, value in self._sql.rows(METRICS)}

    def await_metrics(self, within_s: float) -> None:
        """Metrics are written a moment after slates: wait until those of all targets are there.

        Raises SqlError."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            targets = self._health().get("quality", {}).get("targets", 0)
            if int(self._sql.rows(MEASURED)[0][0]) >= targets:
                return
            time.sleep(0.1)

    def frame(self, stage: str, total: int, sent: int) -> Frame:
        s = self.series
        return Frame(
            stage=stage,
            elapsed_s=time.monotonic() - self._began,
            total=total,
            sent=sent,
            written=self.written,
            rates=s["rates"],
            hits=s["hr@10"],
            peer_hits=s["popularity_hr@10"],
            ndcgs=s["ndcg@10"],
            peer_ndcgs=s["popularity_ndcg@10"],
            p50s=s["p50"],
            p99s=s["p99"],
            shoppers=self.shoppers,
        )

    def _read_shoppers(self) -> tuple[Shopper, ...]:
        slates: dict[str, list[Any]] = collections.defaultdict(list)
        for user, *row in self._sql.rows(SLATES, users=self._shoppers, lines=LINES):
            slates[user].append(row)
        histories = {
            user: (int(events), latest)
            for user, events, latest in self._sql.rows(HISTORIES, users=self._shoppers)
        }
        shown = []
        for user in self._shoppers:
            if user in slates and user in histories:
                events, latest = histories[user]
                lines = self._lines(user, slates[user])
                shown.append(Shopper(user, events, self._title(latest), lines))
        return tuple(shown)

    def _lines(self, user: str, rows: list[Any]) -> tuple[Line, ...]:
        """The slate as lines; items that were not in the slate before are marked."""
        items = [item for item, _, _ in rows]
        slate_id = rows[0][2]
        before_id, before, new = self._slates.get(user, ("", items, []))
        if slate_id != before_id:
            new = [item for item in items if item not in before]
            self._slates[user] = (slate_id, items, new)
        return tuple(
            Line(self._title(item), self._price(item), reason, item in new)
            for item, reason, _ in rows
        )

    def _title(self, item_id: str) -> str:
        item = self._items.get(item_id)
        return item.title if item and item.title else item_id

    def _price(self, item_id: str) -> float | None:
        item = self._items.get(item_id)
        return item.price if item else None
