"""What only the warehouse on a server does: networks that fail, users, databases, TLS options."""

from __future__ import annotations

import threading

import pytest

from infra.clickhouse_warehouse import ClickhouseWarehouse, options
from infra.warehouse import (
    Warehouse,
    WarehouseError,
    WarehouseUnavailable,
    connect,
    without_password,
)
from tests.clickhouse_server import ClickhouseServer

SECRET = "hunter2"


def test_no_server_is_worth_another_try() -> None:
    warehouse = connect(f"clickhouse://ann:{SECRET}@127.0.0.1:1/shop?connect_timeout=1")
    for ask in (
        lambda: warehouse.query("SELECT 1"),
        lambda: warehouse.insert("events", ["user_id"], [("x",)]),
        warehouse.migrate,
        lambda: warehouse.read(["x"], {}, 1),
        warehouse.catalogue,
    ):
        with pytest.raises(WarehouseUnavailable, match="127.0.0.1:1/shop does not answer") as said:
            ask()
        assert SECRET not in str(said.value)
    warehouse.close()


def test_a_server_that_comes_back_is_used_again(clickhouse_server: ClickhouseServer) -> None:
    warehouse = connect(clickhouse_server.url("comeback"))
    warehouse.migrate()
    warehouse.insert("metrics", ["name"], [("before",)])
    clickhouse_server.stop()
    with pytest.raises(WarehouseUnavailable):
        warehouse.insert("metrics", ["name"], [("lost",)])
    with pytest.raises(WarehouseUnavailable):
        warehouse.query("SELECT 1")
    clickhouse_server.start()
    warehouse.insert("metrics", ["name"], [("after",)])
    assert warehouse.query("SELECT name FROM metrics ORDER BY name").rows == [
        ("after",),
        ("before",),
    ]
    warehouse.close()


def test_a_wrong_password_is_told_and_not_shown(clickhouse_server: ClickhouseServer) -> None:
    warehouse = connect(clickhouse_server.url("default", "shop", SECRET))
    with pytest.raises(WarehouseError, match="shop") as said:
        warehouse.migrate()
    assert SECRET not in str(said.value)
    assert not isinstance(said.value, WarehouseUnavailable)
    warehouse.close()


def test_the_http_port_is_no_port_for_us(clickhouse_server: ClickhouseServer) -> None:
    warehouse = connect(f"clickhouse://127.0.0.1:{clickhouse_server.http}/default?timeout=2")
    with pytest.raises(WarehouseError, match=str(clickhouse_server.http)):
        warehouse.query("SELECT 1")
    warehouse.close()


def test_two_workers_migrate_at_the_same_time(clickhouse_server: ClickhouseServer) -> None:
    workers: list[Warehouse] = [connect(clickhouse_server.url("together")) for _ in range(3)]
    faults: list[Exception] = []

    def start(worker: Warehouse) -> None:
        try:
            worker.migrate()
        except Exception as fault:
            faults.append(fault)

    threads = [threading.Thread(target=start, args=(w,)) for w in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert workers[0].migrate() == []
    for worker in workers:
        worker.close()


def test_what_an_old_server_cannot_do_is_left_out(clickhouse_server: ClickhouseServer) -> None:
    warehouse = connect(clickhouse_server.url("old"))
    applied = ["0001_tables", "0002_views", "0005_vectors", "0006_journal", "0008_erasures",
               "0009_texts", "0010_opinions"]  # fmt: skip
    assert warehouse.migrate() == applied
    warehouse.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "unknown kind ''"),
        ("mysql://h/d", "unknown kind 'mysql'"),
        ("clickhouse://", "names no host"),
        ("clickhouse://h:99999/d", "ort"),
        ("clickhouse://h:x/d", "ort"),
        ("clickhouse://h/a-b", "database 'a-b'"),
        ("clickhouse://h/a/b", "database 'a/b'"),
        ("clickhouse://h/d?secure=maybe", "secure='maybe': true or false"),
        ("clickhouse://h/d?timeout=-1", "timeout='-1'"),
        ("clickhouse://h/d?compress=1", "unknown options ['compress']"),
        ("chdb://state/warehouse", "absolute path"),
        ("chdb://", "absolute path"),
        ("chdb:///", "absolute path"),
    ],
)
def test_a_url_that_makes_no_sense_is_explained(url: str, words: str) -> None:
    with pytest.raises(WarehouseError) as said:
        connect(url)
    assert words in str(said.value)
    assert "FRESHREC_WAREHOUSE=" in str(said.value)


def test_a_password_is_not_shown_by_a_refusal() -> None:
    for url in (f"mysql://ann:{SECRET}@h/d", f"clickhouse://ann:{SECRET}@h:x/d"):
        with pytest.raises(WarehouseError) as said:
            connect(url)
        assert SECRET not in str(said.value) and "ann" in str(said.value)
    assert without_password("clickhouse://h/d") == "clickhouse://h/d"


def test_urls_become_options() -> None:
    given = options("clickhouse://a%40b:p%3Aw@db.example/shop?secure=true&verify=0&timeout=5", "X")
    expected = {
        "host": "db.example", "port": 9440, "user": "a@b", "password": "p:w", "database": "shop",
        "secure": True, "verify": False, "send_receive_timeout": 5.0,
    }  # fmt: skip
    assert {name: given[name] for name in expected} == expected
    plain = options("clickhouse://h", "X")
    assert (plain["port"], plain["user"], plain["database"]) == (9000, "default", "default")


def test_a_closed_warehouse_stays_closed() -> None:
    warehouse = ClickhouseWarehouse("clickhouse://127.0.0.1:1/d")
    warehouse.close()
    with pytest.raises(WarehouseError, match="closed"):
        warehouse.migrate()
