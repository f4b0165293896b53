"""`kill -9` at random moments: nothing lost, nothing doubled, and what was learned is the same."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.load import journal
from tests.faults.shop import Shop, events, newest_state, undisturbed, unlike
from tests.streams.worker_process import WorkerProcess

KILLS = int(os.environ.get("FRESHREC_TEST_KILLS", "15"))
EVENTS = int(os.environ.get("FRESHREC_TEST_EVENTS", "30000"))


def kill_at_random(worker: WorkerProcess, rng: random.Random, kills: int) -> None:
    """Start, and kill after a while, often before it is ready, over and over; then let it live."""
    for _ in range(kills):
        worker.launch()
        moment = rng.random() * 2.0
        if rng.random() < 0.2:  # while it starts
            time.sleep(1.0 + 2.0 * moment)
        else:
            worker.until(lambda health: health.get("status") == "ok", 60)
            time.sleep(moment)
        worker.kill()
    worker.launch()


def caught_up(health: dict[str, Any]) -> bool:
    return health.get("status") == "ok" and not sum(health["lag"].values())


@pytest.mark.timeout(1800)
def test_a_worker_that_is_killed_learns_the_same(open_shop: Callable[[int], Shop]) -> None:
    shop = open_shop(1)
    sent = shop.produce(events(EVENTS, seed=1))
    worker = shop.worker(batch="128", checkpoint_events="1000")
    kill_at_random(worker, random.Random(2), KILLS)
    worker.until(
        lambda health: health.get("status") == "ok" and not sum(health["lag"].values()), 300
    )
    assert worker.stop() == 0, worker.words()

    assert journal(shop) == (sent, sent, 0)
    warehouse = shop.warehouse()

    reference = undisturbed(shop, batch="128")
    state, _ = newest_state(shop)
    assert unlike(state, reference.state) == []
    found = {
        user: (slate, list(items))
        for user, slate, items in warehouse.query(
            "SELECT user_id, slate_id, item_ids FROM recommendations FINAL"
        ).rows
    }
    assert found == reference.slates
    ((targets,),) = warehouse.query(
        "SELECT sum(count) FROM metrics FINAL WHERE name = 'hr@10'"
    ).rows
    assert targets == reference.quality["targets"] == sent
    warehouse.close()
