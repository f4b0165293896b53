"""Fixtures that every test may ask for."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.chdb_warehouse import ChdbWarehouse
from infra.log import ROOT
from tests.certificates import certificates
from tests.clickhouse_server import clickhouse_server

__all__ = ["certificates", "clickhouse_server"]

# A language model takes seconds to start and hundreds of MB: tests that need one say so.
os.environ.setdefault("FRESHREC_TEXT", "off")


@pytest.fixture
def chdb_warehouse(tmp_path: Path) -> Iterator[ChdbWarehouse]:
    """A migrated embedded warehouse in a folder of its own."""
    warehouse = ChdbWarehouse(tmp_path / "warehouse", broker_id="broker-1")
    warehouse.migrate()
    yield warehouse
    warehouse.close()


@pytest.fixture(autouse=True)
def levels_of_logs() -> Iterator[None]:
    """A command that ran in this process sets levels, which the next test must not inherit."""
    loggers = [logging.getLogger(name) for name in ("", ROOT, "kafka")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
