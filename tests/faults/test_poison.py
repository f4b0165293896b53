"""Events on which the core raises: they alone are put aside, also after a kill and a restart."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from online.events import Event
from tests.faults.load import journal
from tests.faults.shop import Shop, events

EVERY = 97  # so many events, one of them poison


def poisoned() -> Iterator[Event]:
    for n, event in enumerate(events(10**6, seed=8)):
        yield msgspec.structs.replace(event, item_id="poison") if n % EVERY == 50 else event


def until(shop: Shop, found: tuple[int, int, int]) -> None:
    deadline = time.monotonic() + 60
    while journal(shop) != found:
        assert time.monotonic() < deadline, journal(shop)
        time.sleep(0.1)


@pytest.mark.timeout(240)
def test_poison_is_put_aside_also_after_a_kill(open_shop: Callable[[int], Shop]) -> None:
    shop = open_shop(1)
    worker = shop.worker(encoder="off", batch="128", checkpoint_s="60", kind="touchy")
    worker.start()
    first, all_ = 10 * EVERY, 14 * EVERY
    shop.produce(itertools.islice(poisoned(), first))
    until(shop, (first - 10, first - 10, 10))
    worker.kill()  # nothing was acknowledged: all of it comes again

    shop.produce(itertools.islice(poisoned(), first, all_))
    worker.start()
    until(shop, (all_ - 14, all_ - 14, 14))
    health = worker.until(lambda health: not sum(health["lag"].values()))
    assert health["redelivered"] == first - 10 and health["rejects"] == 14
    assert f"recovered events={first - 10}" in worker.words(100_000)
    assert worker.stop() == 0
    warehouse = shop.warehouse()
    letters = warehouse.query("SELECT offset, reason, raw FROM live_dead_letters ORDER BY offset")
    lost = warehouse.query("SELECT count() FROM live_events WHERE item_id = 'poison'")
    warehouse.close()
    assert [offset for offset, _, _ in letters.rows] == list(range(50, all_, EVERY))
    for offset, reason, raw in letters.rows:
        assert reason == "poison: ZeroDivisionError: no such thing"
        assert f'"event_id":"e{offset}"' in str(raw)
    assert lost.rows == [(0,)]
