"""The backtest's driver: what it feeds to the core, what it reports, and that it repeats."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from infra.rows import BatchId, rows_of
from infra.warehouse import Warehouse
from online.core import Recommender, RecommenderConfig
from online.events import Delivery, Event, Item
from online.step import Metric, PastEvent, Step
from streams import sample
from streams.logfile import EventLog, ItemFile
from streams.options import ConfigError, recommender_config
from streams.ranks import Ranks
from streams.replay import MemoryHistory, Replay, backtest

EVENTS = 1_500


def sample_batches(size: int = 128, limit: int = EVENTS) -> Iterator[list[Event]]:
    with EventLog(sample.EVENTS) as log:
        yield from log.batches(size, limit=limit)


def test_the_report_has_the_keys_that_others_rely_on() -> None:
    report = backtest(sample_batches(), ItemFile(sample.ITEMS), settings={"batch": 128})
    assert report["events"] == EVENTS
    for name in ("hr@10", "ndcg@10", "mrr@10", "coverage"):
        assert 0 <= report[name] <= 1
    assert report["targets"] > 0 and report["events_per_second"] > 0
    assert report["peak_rss_mb"] > 10 and report["version"]
    assert report["seed"] == report["config"]["seed"] == 0
    assert report["config"]["batch"] == 128 and report["config"]["k"] == 10
    assert report["curve"][-1]["events"] == EVENTS
    json.dumps(report, allow_nan=False)


def test_the_same_log_gives_the_same_bytes() -> None:
    def once() -> str:
        report = backtest(sample_batches(), ItemFile(sample.ITEMS))
        del report["events_per_second"], report["peak_rss_mb"]
        return json.dumps(report)

    assert once() == once()


def test_the_curve_adds_up_to_the_totals() -> None:
    counted = []

    def on_step(events: int, step: Step) -> None:
        counted.append(sum(m.count for m in step.metrics if m.name == "hr@10"))

    report = backtest(sample_batches(), on_step=on_step)
    windows = report["curve"]
    assert 10 <= len(windows) <= 20
    assert [w["events"] for w in windows] == sorted(w["events"] for w in windows)
    ends = [w["events"] for w in windows]
    targets = [
        sum(c for n, c in enumerate(counted) if start < min((n + 1) * 128, EVENTS) <= end)
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    mean = sum(w["hr@10"] * t for w, t in zip(windows, targets, strict=True)) / sum(targets)
    assert mean == pytest.approx(report["hr@10"])


def delivery(n: int, user: str = "u", **fields: Any) -> Delivery:
    event = Event(event_id=f"e{n}", type="click", user_id=user, item_id=f"i{n}", ts=n, **fields)
    return Delivery(event, "replay", 0, n, n)


class Forgetful(Recommender):
    """A core that holds nobody from batch to batch."""

    def __init__(self) -> None:
        super().__init__()
        self.restored: list[Mapping[str, list[PastEvent]]] = []

    def missing(self, batch: list[Delivery]) -> list[str]:
        return sorted({d.event.user_id for d in batch})

    def restore(self, histories: Mapping[str, list[PastEvent]]) -> None:
        self.restored.append(histories)

    def step(self, batch: list[Delivery], now_ms: int) -> Step:
        ts = batch[-1].event.ts
        return Step(accepted=list(batch), metrics=[Metric("hr@10", 0.5, len(batch), ts)])


def test_evicted_users_get_the_history_before_the_batch() -> None:
    core = Forgetful()
    replay = Replay(core)
    replay.feed([delivery(n).event for n in range(3)])
    replay.feed([delivery(n).event for n in range(3, 5)])
    replay.feed([delivery(9, "new").event, delivery(10).event])
    ids = [{u: [p.event_id for p in past] for u, past in h.items()} for h in core.restored]
    assert ids == [{}, {"u": ["e0", "e1", "e2"]}, {"u": ["e0", "e1", "e2", "e3", "e4"]}]
    assert replay.curve() == [{"events": n, "hr@10": 0.5, "ndcg@10": 0.0} for n in (3, 5, 7)]


def test_memory_and_warehouse_remember_the_same(chdb_warehouse: Warehouse) -> None:
    rng = random.Random(5)
    memory = MemoryHistory(limit=1000)
    seen: list[Delivery] = []
    for n in range(200):
        event = Event(
            event_id=f"e{n}", type=rng.choice(["click", "purchase"]), user_id=f"u{n % 7}",
            item_id=f"i{rng.randrange(9)}", ts=rng.randrange(40),
            session_id=rng.choice([None, "s"]),
        )  # fmt: skip
        seen.append(Delivery(event, "replay", n % 2, n, n))
    memory.append(seen)
    for table, columns, rows in rows_of(Step(accepted=seen), BatchId("broker-1", 1), 0):
        chdb_warehouse.insert(table, columns, rows)
    users = [f"u{n}" for n in range(9)]
    for before, limit in (
        ({}, 1000), ({}, 5), ({("replay", 0): 100, ("replay", 1): 51}, 8), ({("other", 0): 0}, 3),
    ):  # fmt: skip
        assert memory.read(users, before, limit) == chdb_warehouse.read(users, before, limit)


def test_the_history_in_memory_is_bounded() -> None:
    memory = MemoryHistory(limit=10)
    memory.append(delivery(n) for n in range(100))
    past = memory.read(["u", "stranger"], {}, 50)
    assert [p.event_id for p in past["u"]] == [f"e{n}" for n in range(90, 100)]
    assert "stranger" not in past


class Ranked:
    """What a step says of its targets."""

    def __init__(self, ranks: list[tuple[Delivery, float | None]]) -> None:
        self.ranks = ranks


def test_ranks_are_stored_and_compared_in_pairs(tmp_path: Path) -> None:
    ours, theirs = Ranks(), Ranks()
    for n in range(100):
        ours.add(Ranked([(delivery(n), 1.0)]))  # type: ignore[arg-type]
        theirs.add(Ranked([(delivery(n + 50), 3.0 if n % 2 else None)]))  # type: ignore[arg-type]
    ours.add(Step())  # a core without ranks
    theirs.write(tmp_path / "theirs.parquet")
    read = Ranks.read(tmp_path / "theirs.parquet")
    assert read.events == theirs.events and list(read.ranks) == list(theirs.ranks)
    hit, ndcg, mrr = ours.differences(read)
    assert (hit.mean, hit.pairs) == (0.5, 50)
    assert ndcg.mean == pytest.approx(1 - 0.5 / math.log2(4))
    assert mrr.mean == pytest.approx(1 - 0.5 / 3)
    assert hit.margin == pytest.approx(1.96 * math.sqrt(0.25 * 50 / 49) / math.sqrt(50))
    assert ours.differences(Ranks()) == []


def test_config_is_typed_and_says_what_is_allowed() -> None:
    config = recommender_config({"k": "20", "targets": "click, cart"}, seed=3, exclude_seen=None)
    assert (config.k, config.targets, config.seed) == (20, ("click", "cart"), 3)
    assert recommender_config({"exclude_seen": "true"}).exclude_seen is True
    assert recommender_config({}) == RecommenderConfig()
    nested = recommender_config({"memory.users": "77000", "contest.ranker.hidden": "8"})
    assert (nested.memory.users, nested.contest.ranker.hidden) == (77000, 8)
    assert nested.memory.items == RecommenderConfig().memory.items
    for given, said in (
        ({"zeed": "1"}, "allowed are .*seed"),
        ({"k": "ten"}, "k=ten: a value of type int"),
        ({"targets": "click,clik"}, "clik: allowed are view"),
    ):
        with pytest.raises(ConfigError, match=said):
            recommender_config(given)
    with pytest.raises(ConfigError, match="already set"):
        recommender_config({"seed": "1"}, seed=2)


def test_items_are_announced_before_the_first_event() -> None:
    items = [Item(item_id=f"new{n}", title="T") for n in range(50)]
    without = backtest(sample_batches(limit=200))
    with_items = backtest(sample_batches(limit=200), items)
    assert with_items["events"] == without["events"] == 200
