"""A warehouse that is gone, frozen, slow, or takes rows without saying so: under load."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.clickhouse_server import ClickhouseServer
from tests.faults.load import Load, nothing_lost_or_doubled
from tests.faults.proxy import Proxy
from tests.faults.shop import Shop
from tests.faults.worker import MESSAGES
from tests.streams.worker_process import WorkerProcess

AWAY_S = 60 if os.environ.get("FRESHREC_TEST_FULL") else 6
BATCH = 128
# being learned, being written, and each queue's last one
MOST_UNDER_WAY = MESSAGES + 10 * BATCH


@pytest.fixture
def proxy(clickhouse_server: ClickhouseServer) -> Iterator[Proxy]:
    made = Proxy(clickhouse_server.tcp)
    yield made
    made.close()


def away(worker: WorkerProcess, ended: Callable[[], Any]) -> None:
    """/health, /metrics and the log say it; memory stays bounded; then it goes on."""
    began = time.monotonic()
    health = worker.until(lambda health: health["warehouse"]["status"] == "away", 30)
    assert health["status"] == "degraded" and "does not answer" in health["warehouse"]["error"]
    page = worker.page("/metrics")
    assert 'freshrec_away{part="warehouse"} 1.0' in page and "freshrec_healthy 0.0" in page
    time.sleep(max(0.0, began + AWAY_S - time.monotonic()))
    health = worker.until(lambda health: sum(health["lag"].values()) > 0, 30)
    assert health["messages_taken"] - health["events_total"] < MOST_UNDER_WAY
    ended()
    worker.until(lambda health: health["status"] == "ok", 90)
    assert 'freshrec_away{part="warehouse"} 0.0' in worker.page("/metrics")


def lost_answers(worker: WorkerProcess, proxy: Proxy, count: int) -> None:
    proxy.answers_lost = count
    worker.until(lambda _: not proxy.answers_lost, 30)
    worker.until(lambda health: health["status"] == "ok", 30)


def slow(worker: WorkerProcess, proxy: Proxy) -> None:
    proxy.insert_s = 1.0
    health = worker.until(lambda health: sum(health["lag"].values()) > MOST_UNDER_WAY, 60)
    assert health["messages_taken"] - health["events_total"] < MOST_UNDER_WAY
    assert health["events_per_second"] > 0
    proxy.insert_s = 0.0


@pytest.mark.timeout(600)
def test_a_warehouse_that_is_away_or_slow_loses_and_doubles_nothing(
    open_shop: Callable[[int], Shop], proxy: Proxy, clickhouse_server: ClickhouseServer
) -> None:
    shop = open_shop(2)
    by_proxy = shop.url.replace(str(clickhouse_server.tcp), str(proxy.port))
    url = f"{by_proxy}?timeout=2&connect_timeout=2"
    worker = shop.worker(encoder="off", batch=str(BATCH), warehouse=url, kind="narrow")
    worker.start()
    with Load(shop.address, rate=500) as load:
        worker.until(lambda health: health["events_total"] > 500)
        clickhouse_server.signal(signal.SIGSTOP)
        try:
            away(worker, lambda: clickhouse_server.signal(signal.SIGCONT))
        finally:
            clickhouse_server.signal(signal.SIGCONT)
        clickhouse_server.stop()
        try:
            away(worker, clickhouse_server.start)
        finally:
            if not clickhouse_server.alive():
                clickhouse_server.start()
        lost_answers(worker, proxy, 3)
        slow(worker, proxy)
        sent = load.stop()
    nothing_lost_or_doubled(shop, worker, sent, 90)
    assert "warehouse_away" in worker.words(100_000) and "warehouse_back" in worker.words(100_000)
