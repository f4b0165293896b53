"""SIGTERM under load: the stop is quick, and the next start has nothing to do again."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.faults.load import Load, nothing_lost_or_doubled
from tests.faults.shop import Shop


@pytest.mark.timeout(240)
def test_a_stop_under_load_leaves_nothing_to_learn_again(open_shop: Callable[[int], Shop]) -> None:
    shop = open_shop(2)
    worker = shop.worker(encoder="off", checkpoint_s="60").start()  # no mark before the stop
    with Load(shop.address, rate=800) as load:
        worker.until(lambda health: health.get("events_total", 0) > 1500)
        assert worker.stop(within_s=10) == 0, worker.words()
        worker.start()
        assert re.findall(r"recovered .*events=(\d+)", worker.words()) == ["0"]
        assert worker.health()["redelivered"] == 0
        sent = load.stop()
    nothing_lost_or_doubled(shop, worker, sent)
