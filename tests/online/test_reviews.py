"""What reviews change: for the item, for who wrote them, and for those like him."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from online.core import Recommender, RecommenderConfig
from online.events import Delivery, Event
from online.memory import MemoryConfig
from online.step import PastEvent
from online.told import SHADOW, Told

SMALL = MemoryConfig(users=10_000, items=1_000, pages=20_000, pairs=100_000, history=64)
CONFIG = RecommenderConfig(memory=SMALL, k=30)
BAD, NEUTRAL, GOOD = -0.8, 0.0, 0.8


def shoppers(seed: int = 0, n: int = 300) -> list[Delivery]:
    """Two groups, each of which takes items of its own; those of `rock` take the amp often."""
    rng = np.random.default_rng(seed)
    out: list[Delivery] = []
    for _ in range(n):
        group = ("rock", "folk")[int(rng.integers(2))]
        item = f"{group}-{rng.integers(12)}"
        if group == "rock" and rng.random() < 0.1:
            item = "amp"
        out.append(bought(len(out), f"{group}-fan-{rng.integers(8)}", item))
    return out


def bought(n: int, user: str, item: str, **fields: Any) -> Delivery:
    values = {"type": "purchase", **fields}
    event = Event(event_id=f"e{n}", user_id=user, item_id=item, ts=1_000 + n * 60_000, **values)
    return Delivery(event, "events", 0, n, event.ts)


def review(n: int, user: str, item: str, sentiment: float | None) -> Delivery:
    return bought(n, user, item, type="rating", rating=3.0, sentiment=sentiment)


def learned(
    log: list[Delivery], batch: int = 50, config: RecommenderConfig = CONFIG
) -> Recommender:
    core = Recommender(config)
    for at in range(0, len(log), batch):
        some = log[at : at + batch]
        core.step(some, some[-1].event.ts)
    return core


def place(core: Recommender, user: str, item: str) -> int:
    shown = [r.item_id for r in core.recommend(user, 10**9)]
    return shown.index(item) if item in shown else len(shown)


def after(sentiment: float | None) -> Recommender:
    """Three who have what rock fans have review the amp, just now."""
    log, n = shoppers(), 300
    # these are like them, and never had the amp
    log += [bought(n + i, f"like-{i % 8}", f"rock-{(3 * i) % 12}") for i in range(32)]
    for k in range(3):
        n = len(log)
        log += [bought(n + i, f"critic-{k}", f"rock-{i + k}") for i in range(6)]
    return learned(
        [*log, *(review(len(log) + k, f"critic-{k}", "amp", sentiment) for k in range(3))]
    )


def test_a_negative_review_lowers_the_items_rank_for_similar_shoppers() -> None:
    neutral, bad, good = after(NEUTRAL), after(BAD), after(GOOD)
    users = [f"like-{k}" for k in range(8)]
    ranks = {
        name: np.array([place(core, user, "amp") for user in users])
        for name, core in (("neutral", neutral), ("bad", bad), ("good", good))
    }
    # one place up or down may be another item's
    assert (ranks["bad"] >= ranks["neutral"] - 1).all() and (ranks["bad"] > ranks["neutral"]).any()
    assert ranks["bad"].mean() >= ranks["neutral"].mean() + 1
    assert (ranks["good"] <= ranks["neutral"] + 1).all()
    assert ranks["good"].sum() < ranks["bad"].sum()


def test_the_evidence_falls_at_once_below_what_it_was() -> None:
    log = shoppers()
    log += [bought(len(log), "critic", "rock-1")]

    def evidence(core: Recommender) -> float:
        t, items = core._memory.tables, core._memory.items
        start, size = t.row_start[items.get("rock-1")], 8 << (2 * t.row_class[items.get("rock-1")])
        row = t.pair_item[start : start + size] == t.key[items.get("amp")]
        return float(t.pair_weight[start : start + size][row].sum())

    before = evidence(learned(log))
    assert evidence(learned([*log, review(len(log), "critic", "amp", BAD)])) < before
    assert evidence(learned([*log, review(len(log), "critic", "amp", GOOD)])) > before


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_who_disliked_an_item_sees_neither_it_nor_what_goes_with_it(exclude_seen: bool) -> None:
    config = dataclasses.replace(CONFIG, exclude_seen=exclude_seen)
    log = shoppers()
    mine = [bought(len(log), "me", "amp"), bought(len(log) + 1, "me", "folk-1")]
    core = learned([*log, *mine], config=config)
    of_rock = [r for r in core.recommend("me", 10**9) if "amp" in r.reason]
    assert of_rock
    core = learned([*log, *mine, review(len(log) + 2, "me", "amp", BAD)], config=config)
    shown = core.recommend("me", 10**9)
    assert "amp" not in [r.item_id for r in shown]
    assert not any("amp" in r.reason for r in shown)
    again = [*log, *mine, review(len(log) + 2, "me", "amp", BAD), bought(len(log) + 3, "me", "amp")]
    shown = learned(again, config=config).recommend("me", 10**9)
    assert any("amp" in r.reason for r in shown)  # it was taken again: it counts again


def reviewed(n: int = 300) -> list[Delivery]:
    """A log in which one event in four is a review."""
    rng = np.random.default_rng(5)
    return [
        d if rng.random() < 0.75
        else d._replace(event=review(k, d.event.user_id, d.event.item_id, rng.uniform(-1, 1)).event)
        for k, d in enumerate(shoppers(1, n))
    ]  # fmt: skip


def test_results_depend_neither_on_cuts_nor_on_restarts() -> None:
    log = reviewed()
    whole, single, copy = learned(log, 300), learned(log, 1), Recommender(CONFIG)
    copy.resume(learned(log[:150], 7).state(), "")
    for at in range(150, 300, 11):
        some = log[at : at + 11]
        copy.step(some, some[-1].event.ts)
    for core in (single, copy):
        assert core.quality() == whole.quality()
        t, other = whole._memory.tables, core._memory.tables
        assert (t.pair_weight == other.pair_weight).all()
    assert single.recommend("rock-fan-1", 10**9) == whole.recommend("rock-fan-1", 10**9)


def test_a_history_that_is_read_again_holds_what_was_disliked() -> None:
    log = shoppers()
    n = len(log)
    mine = [bought(n, "me", "amp"), bought(n + 2, "me", "rock-1"), bought(n + 3, "me", "folk-1")]
    mine += [review(n + 4, "me", "amp", BAD), review(n + 5, "me", "folk-1", GOOD)]
    late = bought(n + 1, "me", "amp")  # before the review, and it comes after it
    core = learned([*log, *mine, late])
    before = core.recommend("me", 10**9)
    assert "amp" not in [r.item_id for r in before]
    core.release(["me"])
    events = sorted((d.event for d in [*mine, late]), key=lambda e: e.ts)
    past = [PastEvent(e.event_id, e.type, e.item_id, e.ts, sentiment=e.sentiment) for e in events]
    core.restore({"me": past})
    assert core.recommend("me", 10**9) == before


def test_a_rating_without_text_is_what_it_was() -> None:
    log = shoppers()
    ratings = [
        d._replace(event=review(n, d.event.user_id, d.event.item_id, None).event)
        for n, d in enumerate(log)
    ]
    core = learned(ratings)
    assert not core._memory.tables.dislikes.any()


def test_other_workers_count_a_review_too() -> None:
    log = [*shoppers(), bought(300, "ann", "rock-1")]
    core = learned(log)
    before = core._memory.tables.taken.copy()
    core.hear([Told("x", "rating", SHADOW + "ann", "amp", 10**9, sentiment=BAD)])
    assert (core._memory.tables.taken == before).all()  # a neutral one makes it more popular
    core.hear([Told("y", "rating", SHADOW + "ann", "amp", 10**9, sentiment=NEUTRAL)])
    assert core._memory.tables.taken.sum() == before.sum() + 1
