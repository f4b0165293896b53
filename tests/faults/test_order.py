"""Events out of order, late and twice: the same journal and the same histories as in order."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from infra.settings import Settings
from online.core import Recommender
from online.events import Event
from online.tables import PAGE, SLOT_MASK
from streams.core_config import config_of
from tests.faults.load import nothing_lost_or_doubled
from tests.faults.shop import Shop, events, newest_state

LATE_MS = 600_000
EVENTS = 1500  # the busiest user's history must not be full: what is older would be too late


def shuffled(some: list[Event], rng: random.Random) -> list[Event]:
    """Each comes up to ten minutes of event time late, and one in twenty once more."""
    again = rng.sample(some, len(some) // 20)
    return sorted([*some, *again], key=lambda event: event.ts + rng.random() * LATE_MS)


def held(shop: Shop) -> dict[str, list[tuple[Any, ...]]]:
    """What the core's pages hold of each user, newest first."""
    state, _ = newest_state(shop)
    environ = {f"FRESHREC_{k.upper()}": v for k, v in shop.settings(encoder="off").items()}
    core = Recommender(config_of(Settings.from_env(environ, dotenv=None)))
    core.resume(state["core"], "")
    memory = core._memory
    t, histories = memory.tables, {}
    for slot, user in enumerate(memory.users.ids):
        history: list[tuple[Any, ...]] = []
        page, left = t.user_page[slot], int(t.user_n[slot])
        while page >= 0 and left > 0:
            for at in range((left - 1) % PAGE, -1, -1):
                item = memory.items.ids[t.page_item[page, at] & SLOT_MASK]
                columns = (t.page_type, t.page_price, t.page_ts, t.page_event, t.page_session)
                history.append((item, *(int(column[page, at]) for column in columns)))
            left -= (left - 1) % PAGE + 1
            page = t.page_older[page]
        histories[user] = history
    return histories


@pytest.mark.timeout(240)
def test_order_and_duplicates_do_not_matter(open_shop: Callable[[int], Shop]) -> None:
    in_order = list(events(EVENTS, seed=6))
    users = sorted({event.user_id for event in in_order})
    clean, messy = open_shop(1), open_shop(1)
    late = shuffled(in_order, random.Random(7))
    assert clean.produce(in_order) == EVENTS < messy.produce(late) and late != in_order
    workers = {}
    for shop in (clean, messy):
        workers[shop.database] = shop.worker(encoder="off", batch="128")
        workers[shop.database].launch()
    found = []
    for shop in (clean, messy):
        worker = workers[shop.database]
        health = worker.until(
            lambda h: h.get("events_total") == EVENTS and not sum(h["lag"].values())
        )
        assert health["duplicates"] == (0 if shop is clean else EVENTS // 20)
        nothing_lost_or_doubled(shop, worker, EVENTS)
        warehouse = shop.warehouse()
        journal = warehouse.query("SELECT event_id, type, user_id, item_id, ts, price FROM events")
        found.append((sorted(journal.rows), warehouse.read(users, {}, 2000), held(shop)))
        warehouse.close()
    (journal_clean, read_clean, held_clean), (journal_messy, read_messy, held_messy) = found
    assert journal_clean == journal_messy
    assert read_clean == read_messy
    assert [e.ts for e in read_clean["u1"]] == [e.ts for e in in_order if e.user_id == "u1"]
    assert held_clean == held_messy
    assert {user: len(h) for user, h in held_clean.items()} == {
        user: len(history) for user, history in read_clean.items()
    }
