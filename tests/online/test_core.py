"""The core as its drivers see it: batches in; slates, rejects and metrics out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from online.core import Recommender, RecommenderConfig
from online.events import Delivery, Event, Item
from online.memory import MemoryConfig
from online.step import PastEvent, Step

SMALL = MemoryConfig(users=10_000, items=1_000, pages=20_000, pairs=20_000, history=64)


def deliveries(n: int, seed: int = 0, users: int = 20, items: int = 60) -> list[Delivery]:
    """A shop in which people walk through the items more or less in order."""
    rng = np.random.default_rng(seed)
    at = rng.integers(items, size=users)
    out = []
    for k in range(n):
        u = int(rng.integers(users))
        at[u] = (at[u] + rng.choice([1, 1, 1, 2, 7])) % items
        event = Event(
            event_id=f"e{k}",
            type="purchase",
            user_id=f"u{u}",
            item_id=f"i{at[u]}",
            ts=1_000_000 + k * 60_000,
        )
        out.append(Delivery(event, "events", 0, k, event.ts))
    return out


def run(core: Recommender, log: list[Delivery], batch: int = 50) -> list[Step]:
    return [
        core.step(log[i : i + batch], log[min(i + batch, len(log)) - 1].event.ts)
        for i in range(0, len(log), batch)
    ]


def ranks(steps: list[Step]) -> list[float]:
    return [rank for step in steps for _, rank in step.ranks]


def one(core: Recommender, ts: int = 10**9, **fields: object) -> Step:
    values = {"event_id": "x", "type": "click", "user_id": "u1", "item_id": "i1", "ts": ts} | fields
    return core.step([Delivery(Event(**values), "events", 0, 10**6, ts)], ts)  # type: ignore[arg-type]


def test_it_learns_what_follows_what() -> None:
    core = Recommender()
    run(core, deliveries(3000))
    quality = core.quality()
    assert quality["targets"] == 3000
    assert quality["hr@10"] > 2 * quality["popularity_hr@10"]


def test_results_do_not_depend_on_how_batches_are_cut() -> None:
    log = deliveries(700)
    cut = [ranks(run(Recommender(), log, batch)) for batch in (1, 7, 64, 700)]
    assert cut[0] == cut[1] == cut[2] == cut[3]


def test_same_log_and_seed_give_the_same_slates_and_another_seed_others() -> None:
    log = deliveries(400)

    def slates(seed: int) -> list[object]:
        return [s.slates for s in run(Recommender(RecommenderConfig(seed=seed)), log)]

    assert slates(1) == slates(1)
    assert slates(1) != slates(2)


def test_an_event_that_comes_twice_is_learned_once() -> None:
    log = deliveries(200)
    clean, doubled = Recommender(), Recommender()
    run(clean, log)
    steps = run(doubled, [d for d in log for _ in range(2)])
    assert sum(s.duplicates for s in steps) == len(log)
    assert clean.quality() == doubled.quality()
    assert clean.recommend("u1", 10**9) == doubled.recommend("u1", 10**9)


def test_every_event_is_accepted_rejected_or_a_duplicate() -> None:
    log = deliveries(50)
    bad = log[3]._replace(event=Event(event_id="b", type="click", user_id="u", item_id="i", ts=-1))
    step = Recommender().step([*log, bad, log[0]], log[-1].event.ts)
    assert (len(step.accepted), len(step.rejects), step.duplicates) == (50, 1, 1)
    assert "ts=-1" in step.rejects[0].reason


def test_events_older_than_a_full_history_are_refused_as_too_late() -> None:
    core = Recommender(RecommenderConfig(memory=SMALL))
    for n in range(80):
        one(core, ts=1000 + n, event_id=f"e{n}", item_id=f"i{n % 9}")
    step = one(core, ts=3, event_id="late")
    assert step.rejects[0].reason.startswith("too_late")
    assert one(core, ts=1075, event_id="a little late").accepted


def test_late_events_take_their_place_in_the_sequence() -> None:
    """The same user state, whether events come in order or shuffled."""
    log = [d for d in deliveries(120, users=2) if d.event.user_id == "u1"][:40]
    shuffled = [log[i] for i in np.random.default_rng(3).permutation(len(log))]
    histories = []
    for order in (log, shuffled):
        core = Recommender()
        now = log[-1].event.ts
        for d in order:
            core.step([d], now)
        t, slot = core._memory.tables, core._memory.users.get("u1")
        page, items = t.user_page[slot], []
        left = int(t.user_n[slot])
        while left:
            fill = (left - 1) % 16 + 1
            items += [core._memory.items.ids[k] for k in t.page_item[page, :fill][::-1]]
            left -= fill
            page = t.page_older[page]
        histories.append(items)
    assert histories[0] == histories[1] == [d.event.item_id for d in reversed(log)]


def test_a_user_who_was_evicted_and_restored_gets_the_same_slate() -> None:
    log = deliveries(600)
    core = Recommender()
    run(core, log)
    before = core.recommend("u3", 10**9)
    past = [
        PastEvent(d.event.event_id, d.event.type, d.event.item_id, d.event.ts)
        for d in log
        if d.event.user_id == "u3"
    ]
    core._memory.drop_user("u3")
    probe = [d for d in log if d.event.user_id == "u3"][:1]
    assert core.missing(probe) == ["u3"]
    core.restore({"u3": past})
    assert core.missing(probe) == []
    assert core.recommend("u3", 10**9) == before
    assert core.step(probe, 10**9).duplicates == 1


def test_a_stranger_gets_what_is_popular_and_is_not_remembered() -> None:
    core = Recommender()
    run(core, deliveries(300))
    slate = core.recommend("stranger", 10**9)
    assert len(slate) == 10
    assert core.missing(deliveries(1)[:0] + [_of("stranger")]) == ["stranger"]


def _of(user: str) -> Delivery:
    return Delivery(Event(event_id="q", type="click", user_id=user, item_id="i", ts=1), "", 0, 0, 1)


def test_exclude_seen_never_shows_what_the_user_had() -> None:
    core = Recommender(RecommenderConfig(exclude_seen=True))
    had: dict[str, set[str]] = {}
    for step in run(core, deliveries(400)):
        for d in step.accepted:
            had.setdefault(d.event.user_id, set()).add(d.event.item_id)
        for slate in step.slates:
            shown = {r.item_id for r in slate.recommendations}
            assert not shown & had[slate.user_id]


def test_items_out_of_stock_withdrawn_or_not_yet_available_are_not_shown() -> None:
    core = Recommender()
    run(core, deliveries(300, items=30))
    user = "u1"
    first, second, third = (r.item_id for r in core.recommend(user, 10**9)[:3])
    core.announce([Item(item_id=first, stock=0), Item(item_id=second, available_from=2 * 10**9)])
    core.withdraw([third])
    shown = {r.item_id for r in core.recommend(user, 10**9)}
    assert not shown & {first, second, third}
    core.announce([Item(item_id=first, stock=3)])
    assert first in {r.item_id for r in core.recommend(user, 10**9)}
    assert second in {r.item_id for r in core.recommend(user, 2 * 10**9)}


def test_reasons_name_the_title_of_an_item_that_the_user_had() -> None:
    core = Recommender()
    core.announce([Item(item_id=f"i{n}", title=f"TEAPOT {n}") for n in range(60)])
    log = deliveries(2000)
    run(core, log)
    had = {f"TEAPOT {d.event.item_id[1:]}" for d in log if d.event.user_id == "u2"}
    reasons = [r.reason for r in core.recommend("u2", 10**9)]
    named = [reason for reason in reasons if "TEAPOT" in reason]
    assert named
    assert all(any(title in reason for title in had) for reason in named)


def test_memory_is_bounded_and_slots_that_changed_hands_leave_no_trace() -> None:
    core = Recommender(RecommenderConfig(memory=SMALL))
    rng = np.random.default_rng(5)
    for b in range(30):
        batch = []
        for k in range(500):
            n = b * 500 + k
            event = Event(
                event_id=f"e{n}",
                type="click",
                user_id=f"u{rng.integers(20_000)}",
                item_id=f"i{int(rng.zipf(1.3)) % 4000 if k % 2 else n % 9000}",
                ts=n * 1000,
            )
            batch.append(Delivery(event, "events", 0, n, n))
        step = core.step(batch, b * 500_000 + 500_000)
        known = set(core._memory.items.ids)
        for slate in step.slates:
            assert {r.item_id for r in slate.recommendations} <= known - {""}
    memory = core._memory
    assert len(memory.items) <= 1_000
    assert len(memory.users) <= 10_000
    assert sum(array.nbytes for array in memory.tables) <= SMALL.bytes_at_most()


def test_too_small_a_memory_is_refused_with_the_key() -> None:
    with pytest.raises(ValueError, match=r"memory.users=5: at least"):
        MemoryConfig(users=5)


def test_forget_erases_the_history_that_slates_are_made_from() -> None:
    core = Recommender()
    run(core, deliveries(500))
    assert core.recommend("u1", 10**9) != core.recommend("stranger", 10**9)
    step = one(core, type="forget", item_id="", event_id="bye")
    assert step.slates == []
    assert core.recommend("u1", 10**9) == core.recommend("stranger", 10**9)


def test_a_forgotten_past_stays_forgotten() -> None:
    log = deliveries(400)
    bye = Event(event_id="bye", type="forget", user_id="u1", ts=log[199].event.ts)
    log = [*log[:200], Delivery(bye, "events", 0, 999, bye.ts), *log[200:]]
    cut = [Recommender() for _ in range(2)]
    assert ranks(run(cut[0], log, 1)) == ranks(run(cut[1], log, 401))
    core = cut[0]
    slate = core.recommend("u1", 10**9)
    core._memory.drop_user("u1")
    past = [d.event for d in log if d.event.user_id == "u1"]
    core.restore({"u1": [PastEvent(e.event_id, e.type, e.item_id, e.ts) for e in past]})
    assert core.recommend("u1", 10**9) == slate
    assert core.step([Delivery(bye, "events", 0, 1000, bye.ts)], 10**9).duplicates == 1
    assert core.step([Delivery(past[0], "events", 0, 1001, bye.ts)], 10**9).rejects
    assert core.recommend("u1", 10**9) == slate


def test_what_was_only_shown_is_not_the_users_own() -> None:
    core = Recommender(RecommenderConfig(exclude_seen=True))
    run(core, deliveries(300))
    before = core.recommend("u1", 10**9)
    for n, shown in enumerate(before):
        one(core, ts=10**8, event_id=f"s{n}", type="impression", item_id=shown.item_id)
    one(core, ts=10**8, event_id="unknown", type="impression", item_id="never announced")
    assert core.recommend("u1", 10**9) == before
    assert one(core, item_id=before[0].item_id).ranks[0][1] < 100


def test_an_event_with_an_early_time_gets_the_slate_of_now() -> None:
    core = Recommender()
    run(core, deliveries(300))
    core.announce([Item(item_id=f"i{n}", available_from=1_000) for n in range(60)])
    assert len(one(core, ts=0, event_id="late").slates[0].recommendations) == 10


def test_a_slate_does_not_depend_on_whose_slates_are_made_with_it() -> None:
    core = Recommender()
    run(core, deliveries(1500))
    asked = [(f"u{n}", 10**9, "") for n in range(16)]
    assert core._slates.make(asked) == [core._slates.make([one])[0] for one in asked]


def test_a_withdrawn_item_stays_hidden_whatever_is_forgotten_of_it() -> None:
    core = Recommender(RecommenderConfig(memory=SMALL))
    core.withdraw(["gone"])
    for n in range(40):
        one(core, ts=1000 + n, event_id=f"g{n}", user_id=f"u{n}", item_id="gone")
        one(core, ts=1000 + n, event_id=f"i{n}", user_id=f"u{n}", item_id=f"i{n % 3}")
    assert "gone" not in {r.item_id for r in core.recommend("u1", 10**9)}
    for _ in range(4):
        core._memory.expire_item()
    one(core, ts=5000, event_id="again", item_id="gone")
    assert "gone" not in {r.item_id for r in core.recommend("u1", 10**9)}
    core.announce([Item(item_id="gone")])
    assert "gone" in {r.item_id for r in core.recommend("u1", 10**9)}


def test_who_gets_the_slot_of_another_user_is_not_taken_for_that_one() -> None:
    core = Recommender()
    run(core, deliveries(300))
    core._memory.drop_user("u1")
    for n in (3, 9, 4):
        one(core, ts=10**8 + n, event_id=f"x{n}", user_id="new", item_id=f"i{n}")
    t, slot = core._memory.tables, core._memory.users.get("new")
    assert (t.recent == t.user_key[slot]).sum() == 3
    assert (t.recent == slot).sum() > 3  # what u1 left: nobody's by now


def test_impressions_and_searches_are_kept_but_are_no_targets() -> None:
    core = Recommender()
    one(core, event_id="a", type="purchase")
    step = one(core, event_id="b", type="impression")
    assert (len(step.accepted), step.slates, step.metrics) == (1, [], [])
    step = one(core, event_id="c", type="search", item_id="", query="tea")
    assert (len(step.accepted), len(step.slates), step.metrics) == (1, 1, [])
    assert one(core, event_id="b", type="impression").duplicates == 1


def test_views_teach_but_are_measured_only_when_they_are_targets() -> None:
    core = Recommender(RecommenderConfig(targets=("view",)))
    assert one(core, type="view").ranks and not one(core, type="click", event_id="y").ranks


def test_metrics_are_the_means_of_the_steps_targets() -> None:
    core = Recommender()
    for step in run(core, deliveries(200)):
        found = {m.name: m for m in step.metrics}
        assert found["ndcg@10"].count == len(step.ranks)
        hits = np.mean([rank <= 10 for _, rank in step.ranks])
        assert math.isclose(found["hr@10"].value, hits)
