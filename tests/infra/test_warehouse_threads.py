"""Several threads on one warehouse, asked of each kind: nobody waits without need, or for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from infra.warehouse import Warehouse, WarehouseError
from online.step import Step
from tests.infra.samples import delivery, write

SOON_S = 20  # what must end at all ends long before
TABLES = ("events", "items", "recommendations", "slates", "metrics", "dead_letters")


def started(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)  # one that hangs must not hang the tests
    thread.start()
    return thread


def until_running(warehouse: Warehouse, statement: str) -> None:
    """Wait until the engine works on what starts with `statement`."""
    deadline = time.monotonic() + SOON_S
    sql = "SELECT count() FROM system.processes WHERE startsWith(query, %(statement)s)"
    while not warehouse.query(sql, {"statement": statement}).rows[0][0]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_writers_and_readers_share_a_warehouse(warehouse: Warehouse) -> None:
    faults: list[BaseException] = []

    def work(task: int) -> None:
        try:
            for n in range(10):
                if task % 2:
                    write(warehouse, Step(accepted=[delivery(task * 100 + n, f"u{task}")]))
                else:
                    warehouse.query("SELECT count() FROM live_events")
                    warehouse.read(["u1"], {}, 5)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert warehouse.query("SELECT count() FROM live_events").rows == [(20,)]


def test_a_slow_insert_delays_neither_another_nor_a_query(warehouse: Warehouse) -> None:
    warehouse.query("CREATE MATERIALIZED VIEW slow ENGINE = Memory AS SELECT sleep(2) FROM slates")
    slow = started(lambda: warehouse.insert("slates", ["user_id"], [("ann",)]))
    until_running(warehouse, "INSERT INTO slates")
    write(warehouse, Step(accepted=[delivery(1)]))
    assert warehouse.query("SELECT count() FROM live_events").rows == [(1,)]
    assert slow.is_alive()
    slow.join(SOON_S)
    assert warehouse.query("SELECT count() FROM slates").rows == [(1,)]


@pytest.mark.parametrize("before", [1, len(TABLES)])
def test_closing_ends_what_is_under_way_and_refuses_the_rest(
    warehouse: Warehouse, before: int
) -> None:
    """While one reads, threads write into tables that are new to them, `before` before closing."""
    said: list[str] = []

    def insert(table: str) -> None:
        try:
            for _ in range(10_000):
                warehouse.insert(table, ["written_ms"], [(1,)])
        except WarehouseError as fault:
            said.append(str(fault))

    calls: list[Callable[[], object]] = [partial(insert, table) for table in TABLES]
    calls[before:before] = [warehouse.close, warehouse.close]
    threads = [started(partial(warehouse.query, "SELECT sleep(1)"))]
    for call in calls:
        time.sleep(0.05)  # so that they come in this order
        threads.append(started(call))
    for thread in threads:
        thread.join(SOON_S)
    assert not [t for t in threads if t.is_alive()]
    assert len(said) == len(TABLES)
    assert all("is closed" in fault for fault in said), said


def test_a_closed_warehouse_says_so(warehouse: Warehouse) -> None:
    warehouse.close()
    warehouse.close()
    with pytest.raises(WarehouseError, match="closed"):
        warehouse.query("SELECT 1")
    with pytest.raises(WarehouseError, match="closed"):
        warehouse.insert("metrics", ["name"], [("x",)])
