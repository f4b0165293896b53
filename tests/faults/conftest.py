"""Shops to break."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.broker import EmbeddedBroker
from tests.clickhouse_server import ClickhouseServer
from tests.faults.shop import Shop

_numbers = itertools.count(1)


@pytest.fixture
def open_shop(
    tmp_path: Path, clickhouse_server: ClickhouseServer
) -> Iterator[Callable[[int], Shop]]:
    """Opens shops with so many partitions; they close after the test."""
    shops: list[Shop] = []
    brokers: list[EmbeddedBroker] = []

    def open_one(partitions: int = 1) -> Shop:
        broker = EmbeddedBroker()
        broker.start()
        brokers.append(broker)
        number = next(_numbers)
        folder = tmp_path / f"shop-{number}"
        folder.mkdir()
        shop = Shop(folder, broker, clickhouse_server, f"shop_{number}", partitions)
        shops.append(shop)
        return shop

    yield open_one
    for shop in shops:
        shop.close()
        clickhouse_server.run(f"DROP DATABASE {shop.database}")
    for broker in brokers:
        broker.stop()
