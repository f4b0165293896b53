"""Partitions that are added to `events` while a worker runs: it reads them soon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.broker import EmbeddedBroker
from tests.clickhouse_server import ClickhouseServer
from tests.faults.hiding import Hiding
from tests.faults.load import Load, nothing_lost_or_doubled
from tests.faults.shop import Shop

SOON_S = 30.0  # the metadata are read every 10 s; then the group is joined again


@pytest.fixture
def hiding() -> Iterator[Hiding]:
    made = Hiding()
    yield made
    made.close()


@pytest.mark.timeout(240)
def test_added_partitions_are_read(
    tmp_path: Path, hiding: Hiding, clickhouse_server: ClickhouseServer
) -> None:
    broker = EmbeddedBroker()
    broker.advertised = f"127.0.0.1:{hiding.port}"
    broker.start()
    hiding.to = broker.port
    shop = Shop(tmp_path, broker, clickhouse_server, "partitions", 3)
    try:
        worker = shop.worker(encoder="off", broker=f"kafka://{broker.advertised}").start()
        with Load(shop.address, rate=200) as load:
            health = worker.until(lambda health: health["events_total"] > 200)
            assert "events/0" in health["lag"] and "events/2" not in health["lag"]
            hiding.shown = 3
            worker.until(lambda health: "events/2" in health["lag"], SOON_S)
            sent = load.stop()
        nothing_lost_or_doubled(shop, worker, sent)
    finally:
        shop.close()
        broker.stop()
