"""The warehouse under test: every contract runs over the embedded engine and a real server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from infra.warehouse import Warehouse, connect
from tests.clickhouse_server import ClickhouseServer

_numbers = itertools.count(1)


@pytest.fixture(params=["chdb", "clickhouse"])
def warehouse(request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    """A migrated, empty warehouse of either kind, reading broker-1."""
    if request.param == "chdb":
        yield request.getfixturevalue("chdb_warehouse")
        return
    server: ClickhouseServer = request.getfixturevalue("clickhouse_server")
    database = f"test_{next(_numbers)}"
    made = connect(server.url(database, "shop", "s%27ecret"), "broker-1")
    made.migrate()
    yield made
    made.close()
    server.run(f"DROP DATABASE {database}")
