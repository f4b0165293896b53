"""Several workers, killed and started again: events, sequences and counts are those of one."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import pytest

from infra.checkpoints import about_state
from streams.recovery import Recovery
from tests.faults.load import journal
from tests.faults.shop import Shop, events, part_of
from tests.streams.worker_process import WorkerProcess

KILLS = int(os.environ.get("FRESHREC_TEST_KILLS", "15")) // 3
EVENTS = int(os.environ.get("FRESHREC_TEST_EVENTS", "30000")) // 3


def ready(health: dict[str, Any]) -> bool:
    return health.get("status") == "ok"


def written(shop: Shop) -> int:
    warehouse = shop.warehouse()
    try:
        return int(warehouse.query("SELECT uniqExact(event_id) FROM events").rows[0][0])
    finally:
        warehouse.close()


def counts(shop: Shop, shard: int) -> dict[str, int]:
    """Events by item, as the newest state of a stopped worker has them."""
    folder = shop.folder / "checkpoints" / f"shard-{shard}"
    newest = sorted(folder.glob("state-*"))[-1]
    about_state(newest)
    state = part_of(newest, "core")
    items, taken = state["memory"]["items"], state["memory"]["tables"]["taken"]
    return {
        item: int(taken[slot])
        for item, slot in zip(items["order"], items["slot"].tolist(), strict=True)
        if taken[slot]
    }


@pytest.mark.timeout(1800)
def test_three_workers_that_are_killed_count_the_same(open_shop: Callable[[int], Shop]) -> None:
    shop = open_shop(3)
    some = list(events(EVENTS, seed=4))
    rng = random.Random(5)
    workers = [
        shop.worker(f"worker-{n}", batch="128", checkpoint_events="1000", memory_mb="1024",
                    encoder="off")
        for n in range(3)
    ]  # fmt: skip
    for worker in workers:
        worker.launch()
    for worker in workers:
        worker.until(ready, 120)
    sent = shop.produce(some)
    for _ in range(KILLS):
        worker = rng.choice(workers)
        time.sleep(rng.random() * 2.0)
        worker.kill()
        time.sleep(rng.random())
        worker.launch()
    for worker in workers:
        worker.until(ready, 120)
    deadline = time.monotonic() + 180
    while written(shop) < sent and time.monotonic() < deadline:
        time.sleep(0.5)
    settle(shop, workers)
    for worker in workers:
        assert worker.stop() == 0, worker.words()

    assert journal(shop) == (sent, sent, 0)
    expected = dict(Counter(e.item_id for e in some))
    for shard in range(3):
        assert counts(shop, shard) == expected


def settle(shop: Shop, workers: list[WorkerProcess]) -> None:
    """Until every worker has heard everything, in bounded time."""
    warehouse = shop.warehouse()
    newest = Recovery(cast(Any, None), warehouse).newest_of_shards()
    warehouse.close()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        sharing = [w.health().get("sharing", {}) for w in workers]
        if all(
            said and said["heard"].get(str(shard), 0) >= batch
            for said in sharing
            for shard, batch in newest.items()
            if said.get("shard") != shard
        ):
            return
        time.sleep(0.5)
    raise AssertionError(f"{sharing} {newest}")
