"""The backtest: the core that runs live, driven by a log instead of Kafka.

Event time is the only clock, so the same log, items, settings and seed give the same figures,
byte for byte; only `events_per_second` and `peak_rss_mb` measure the machine.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from online.columns import item_of
from online.core import Recommender, RecommenderConfig
from online.events import Delivery, Event, Item
from online.step import PastEvent, Step
from online.texts import TextVector
from streams.assembly import make_core
from streams.reviews import judged
from streams.texts import TextReader, queries_of

TOPIC = "replay"
BATCH = 512
WINDOWS = 20  # points of the curve
QUALITY = ("targets", "hr@10", "ndcg@10", "mrr@10", "coverage")


class MemoryHistory:
    """The histories of all users in memory: the newest `limit` events of each.

    It answers for users that the core evicted, as the warehouse does live. Past events are
    kept as the core has judged them: rejected events and duplicates are not part of history.
    """

    def __init__(self, limit: int) -> None:
        self._events: dict[str, list[tuple[str, int, int, PastEvent]]] = {}
        self._limit = limit

    def append(self, accepted: Iterable[Delivery]) -> None:
        for event, topic, partition, offset, _ in accepted:
            past = PastEvent(
                event.event_id,
                event.type,
                item_of(event),
                event.ts,
                event.session_id or "",
                event.price,
                event.sentiment,
            )
            kept = self._events.setdefault(event.user_id, [])
            if event.type == "forget":  # all that came before, whatever its time
                past = past._replace(ts=max([event.ts, *(old.ts for *_, old in kept)]))
                kept.clear()
            kept.append((topic, partition, offset, past))
            if len(kept) >= 2 * self._limit:  # a deque of this length costs a new user 600 bytes
                del kept[: -self._limit]

    def read(
        self, users: list[str], before: dict[tuple[str, int], int], limit: int
    ) -> dict[str, list[PastEvent]]:
        """See `online.step.History`."""
        histories: dict[str, list[PastEvent]] = {}
        for user in users:
            past = [
                event
                for topic, partition, offset, event in self._events.get(user, ())
                if offset < before.get((topic, partition), offset + 1)
            ]
            past.sort(key=lambda event: event.ts)  # stable: ties stay in the order of arrival
            if past:
                histories[user] = past[-min(limit, self._limit) :]
        return histories


class Replay:
    """Feeds batches of events to a core; keeps what the report needs.

    `seconds` is the wall time of the core's work: reading the log, the announcement of the
    items and the compilation on first use are left out.
    """

    def __init__(self, core: Recommender, reader: TextReader | None = None) -> None:
        """reader: makes vectors of what is searched for; None: nobody understands it."""
        self.core = core
        self._reader = reader
        self.history = MemoryHistory(core.history_limit)
        self.offset = 0
        self.events = 0
        self.rejects = 0
        self.duplicates = 0
        self.seconds = 0.0
        self._progress: list[tuple[int, float, float, int]] = []  # events, Σhr, Σndcg, targets

    def feed(self, events: list[Event]) -> Step:
        """Step one batch, whose newest event gives the time."""
        batch = [
            Delivery(judged(event), TOPIC, 0, self.offset + i, event.ts)
            for i, event in enumerate(events)
        ]
        if self._reader is not None and (queries := queries_of(events)):
            self.core.put_texts(self._reader.of_queries(queries))
        start = time.perf_counter()
        missing = self.core.missing(batch)
        if missing:
            before = {(TOPIC, 0): self.offset}
            self.core.restore(self.history.read(missing, before, self.core.history_limit))
        step = self.core.step(batch, max(event.ts for event in events))
        self.history.append(step.accepted)
        self.seconds += time.perf_counter() - start
        self.offset += len(batch)
        self._count(step)
        return step

    def _count(self, step: Step) -> None:
        self.events += len(step.accepted)
        self.rejects += len(step.rejects)
        self.duplicates += step.duplicates
        sums = {"hr@10": 0.0, "ndcg@10": 0.0}
        targets = 0
        for metric in step.metrics:
            if metric.name in sums:
                sums[metric.name] += metric.value * metric.count
                targets += metric.count * (metric.name == "hr@10")
        self._progress.append((self.offset, sums["hr@10"], sums["ndcg@10"], targets))

    def curve(self, windows: int = WINDOWS) -> list[dict[str, float]]:
        """About `windows` points: `events` read so far, quality since the point before."""
        points: list[dict[str, float]] = []
        hits = gain = 0.0
        targets = 0
        for n, (events, hr, ndcg, count) in enumerate(self._progress):
            hits, gain, targets = hits + hr, gain + ndcg, targets + count
            last = n + 1 == len(self._progress)
            if last or events * windows >= self.offset * (len(points) + 1):
                if targets:
                    points.append(
                        {"events": events, "hr@10": hits / targets, "ndcg@10": gain / targets}
                    )
                hits, gain, targets = 0.0, 0.0, 0
        return points


def backtest(
    log: Iterable[list[Event]],
    items: Iterable[Item] = (),
    config: RecommenderConfig | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    on_step: Callable[[int, Step], None] | None = None,
    reader: TextReader | None = None,
    texts: Iterable[TextVector] = (),
) -> dict[str, Any]:
    """Replay `log`, batch by batch, and report the prequential quality and the speed.

    `log` gives lists of events in `ts` order (`EventLog.batches`); `items` are announced first,
    with their `texts`, as `reader` makes them (`config.text.width` is that of its vectors).
    `settings` are the caller's (batch, limit, …): they are reported as part of `config`.
    `on_step(events, step)` is called after every batch with the number of events read.
    """
    config = config or RecommenderConfig()
    core = make_core(config)
    warm_up = getattr(core, "warm_up", None)
    if warm_up is not None:
        warm_up()
    core.announce(items)
    core.put_texts(texts)
    replay = Replay(core, reader)
    try:
        for events in log:
            step = replay.feed(events)
            if on_step is not None:
                on_step(len(events), step)
    finally:
        core.close()
    quality = core.quality()
    report = {
        "events": replay.events,
        **{name: quality[name] for name in QUALITY},
        **{k: v for k, v in quality.items() if k not in QUALITY},
        "rejects": replay.rejects,
        "duplicates": replay.duplicates,
        "events_per_second": round(replay.offset / replay.seconds, 1) if replay.seconds else 0.0,
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "seed": config.seed,
        "version": importlib.metadata.version("freshrec"),
        "config": {**dataclasses.asdict(config), **(settings or {})},
        "curve": replay.curve(),
    }
    return report
