"""Three workers that are killed recommend about as well as three that are left alone."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable

import pytest

from tests.faults.shop import Shop, events
from tests.faults.test_workers import ready, written

# Each kill costs some seconds in which events wait and are then learned in a burst. In the short
# run that is a third of all events: measured -0.9 %, and it varies.
FULL = os.environ.get("FRESHREC_TEST_FULL") == "1"
KILLS, EVENTS, WITHIN = (6, 60_000, 0.99) if FULL else (2, 12_000, 0.97)
RATE = 250  # events/s


def paced(shop: Shop) -> int:
    began, some, sent = time.monotonic(), events(EVENTS, seed=6), 0
    batch = []
    for event in some:
        batch.append(event)
        if len(batch) == 25:
            sent += shop.produce(batch)
            batch = []
            time.sleep(max(sent / RATE - (time.monotonic() - began), 0))
    return sent + shop.produce(batch)


def ndcg(shop: Shop, kills: int) -> float:
    workers = [shop.worker(f"worker-{n}", memory_mb="1024", encoder="off") for n in range(3)]
    for worker in workers:
        worker.launch()
    for worker in workers:
        worker.until(ready, 120)
    rng, sent = random.Random(7), []
    producing = threading.Thread(target=lambda: sent.append(paced(shop)))
    producing.start()
    for _ in range(kills):
        time.sleep(EVENTS / RATE / (kills + 1))
        worker = rng.choice(workers)
        worker.kill()
        worker.launch()
    producing.join()
    for worker in workers:
        worker.until(ready, 120)
    deadline = time.monotonic() + 120
    while written(shop) < sent[0] and time.monotonic() < deadline:
        time.sleep(0.5)
    for worker in workers:
        assert worker.stop() == 0, worker.words()
    warehouse = shop.warehouse()
    sums = "sum(value * count) / sum(count), sum(count)"
    sql = f"SELECT {sums} FROM metrics FINAL WHERE name = 'ndcg@10'"
    ((found, targets),) = warehouse.query(sql).rows
    warehouse.close()
    assert targets == sent[0]
    return float(found)


@pytest.mark.timeout(1800)
def test_kills_hardly_cost_quality(open_shop: Callable[[int], Shop]) -> None:
    calm = ndcg(open_shop(3), 0)
    killed = ndcg(open_shop(3), KILLS)
    said = f"NDCG@10 {calm:.4f} undisturbed, {killed:.4f} with {KILLS} kills"
    print(f"{said}: {killed / calm - 1:+.2%}")
    assert killed >= WITHIN * calm, said
