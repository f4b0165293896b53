"""Parts that the tests of `streams` share: a real broker, a real warehouse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.address import BrokerAddress
from infra.broker import EmbeddedBroker
from infra.warehouse import Warehouse, connect


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    """An embedded broker of its own: an empty log."""
    with EmbeddedBroker() as started:
        yield started


@pytest.fixture
def address(broker: EmbeddedBroker) -> BrokerAddress:
    return BrokerAddress.at(broker.address)


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[Warehouse]:
    """An empty, migrated chdb."""
    opened = connect(f"chdb://{tmp_path}/warehouse", "broker-1")
    opened.migrate()
    yield opened
    opened.close()
