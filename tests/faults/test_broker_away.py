"""A broker that cannot be reached, is frozen, or comes back with another log: under load."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.address import BrokerAddress
from infra.broker import EmbeddedBroker
from streams.topics import connect_admin
from tests.clickhouse_server import ClickhouseServer
from tests.faults.load import Load, journal, nothing_lost_or_doubled
from tests.faults.proxy import Proxy
from tests.faults.shop import Shop, events
from tests.streams.worker_process import WorkerProcess

AWAY_S = 60 if os.environ.get("FRESHREC_TEST_FULL") else 5  # a session lasts 2 s


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.close()


@pytest.fixture
def broker(proxy: Proxy) -> Iterator[EmbeddedBroker]:
    """Clients come to it through the proxy: it tells them so."""
    made = EmbeddedBroker()
    made.advertised = f"127.0.0.1:{proxy.port}"
    made.start()
    proxy.to = made.port
    yield made
    made.stop()


def away(worker: WorkerProcess, began: Callable[[], Any], ended: Callable[[], Any]) -> None:
    began()
    started = time.monotonic()
    try:
        worker.until(lambda health: health["broker"]["status"] == "away", 20)
        assert 'freshrec_away{part="broker"} 1.0' in worker.page("/metrics")
        time.sleep(max(0.0, started + AWAY_S - time.monotonic()))
    finally:
        ended()
    taken = worker.health()["messages_taken"]
    worker.until(lambda h: h["status"] == "ok" and h["messages_taken"] > taken, 60)


@pytest.mark.timeout(600)
def test_a_broker_that_is_away_and_then_another_one(
    tmp_path: Path, broker: EmbeddedBroker, proxy: Proxy, clickhouse_server: ClickhouseServer
) -> None:
    address = BrokerAddress.at(broker.advertised)
    shop = Shop(tmp_path, broker, clickhouse_server, "broker_away", 2)
    worker = shop.worker(encoder="off", broker=f"kafka://{broker.advertised}").start()
    with Load(address, rate=300, patience_s=2 * AWAY_S + 60) as load:
        worker.until(lambda health: health["events_total"] > 300)
        away(worker, proxy.refuse, proxy.accept)
        process = broker.pid
        assert process is not None
        away(worker, partial(os.kill, process, signal.SIGSTOP),
             partial(os.kill, process, signal.SIGCONT))  # fmt: skip
        sent = load.stop()
    worker.until(lambda _: journal(shop)[1] == sent, 60)

    then = worker.running.cluster_id
    broker.stop()
    broker.start(broker.port)
    worker.until(lambda health: health.get("broker", {}).get("cluster_id", then) != then
                 and health["status"] == "ok", 60)  # fmt: skip
    said = worker.words(100_000)
    assert "log_gone" in said and "beginning_again" in said and "offsets_dropped" in said
    assert "state_restored" in said and "recovered events=0" in said
    # 100 of them for the second time
    shop.produce(itertools.islice(events(10**9, seed=1), sent - 100, sent + 500))
    worker.until(lambda _: journal(shop)[1] == sent + 500, 60)

    admin = connect_admin(address)
    admin.delete_topics(["events"])
    admin.close()
    worker.until(lambda _: worker.words(100_000).count("worker_ready") == 3, 60)
    shop.produce(itertools.islice(events(10**9, seed=1), sent + 500, sent + 900))
    nothing_lost_or_doubled(shop, worker, sent + 900)
