"""The HTTP interface, as ClickHouse's own client and plain HTTP see it."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from infra import sql_http
from infra.chdb_warehouse import ChdbWarehouse
from infra.clickhouse_warehouse import ClickhouseWarehouse
from infra.warehouse_types import Warehouse, WarehouseError
from online.step import Step
from tests.infra.samples import delivery, slate, write


class Listening:
    """The endpoint on an event loop of its own, as in a worker."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.runner = self.wait(sql_http.serve(warehouse, "127.0.0.1", 0))
        self.port = self.runner.addresses[0][1]

    def wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def close(self) -> None:
        self.wait(self.runner.cleanup())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def ask(
        self, sql: str = "", body: bytes | None = None, headers: Any = None, **query: str
    ) -> tuple[int, Any, bytes]:
        asked = urllib.parse.urlencode(query | ({"query": sql} if sql else {}))
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/?{asked}", data=body, headers=headers or {}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as said:
                return said.status, said.headers, said.read()
        except urllib.error.HTTPError as said:
            return said.code, said.headers, said.read()


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbWarehouse]:
    made = ChdbWarehouse(tmp_path_factory.mktemp("http") / "warehouse")
    made.migrate()
    write(made, Step(accepted=[delivery(n) for n in range(3)], slates=[slate(2)]))
    yield made
    made.close()


@pytest.fixture(scope="module")
def endpoint(warehouse: ChdbWarehouse) -> Iterator[Listening]:
    made = Listening(warehouse)
    yield made
    made.close()


@pytest.fixture
def client(endpoint: Listening) -> Iterator[Any]:
    made = clickhouse_connect.get_client(host="127.0.0.1", port=endpoint.port)
    yield made
    made.close()


def test_the_official_client_reads_rows_with_parameters(client: Any) -> None:
    answer = client.query(
        "SELECT position, item_id, score, event_time FROM live_recommendations "
        "WHERE user_id = {user:String} ORDER BY position LIMIT {n:UInt8}",
        parameters={"user": "ann", "n": 2},
    )
    assert answer.column_names == ("position", "item_id", "score", "event_time")
    assert [row[:3] for row in answer.result_rows] == [(1, "a", 1.0), (2, "b", 0.9)]
    assert answer.result_rows[0][3].second == 1


def test_the_official_client_makes_a_data_frame(client: Any) -> None:
    frame = client.query_df("SELECT event_id, ts, price FROM live_events ORDER BY ts")
    assert list(frame["event_id"]) == ["e0", "e1", "e2"]
    assert str(frame["ts"].dtype) == "int64" and frame["price"].isna().all()


def test_the_official_client_binds_strange_values(client: Any) -> None:
    for value in ("it's", "back\\slash", "tab\tand\nline", "é漢🙂", "x' OR 1=1 --"):
        assert client.query("SELECT {v:String}", parameters={"v": value}).first_row == (value,)
        assert client.query("SELECT %(v)s", parameters={"v": value}).first_row == (value,)


def test_the_official_client_gets_columns_without_rows(client: Any) -> None:
    answer = client.query("SELECT user_id, ts FROM events WHERE 0")
    assert answer.column_names == ("user_id", "ts") and answer.result_rows == []


def test_the_official_client_reads_every_common_type(client: Any) -> None:
    answer = client.query(
        "SELECT 1::UInt64 a, [1.5, 2] b, NULL c, toNullable(3) d, ('x', 1) e, map('k', 2) f, "
        "toDate('2024-01-02') g, true h, toLowCardinality('l') i, generateUUIDv4() j"
    )
    row = answer.first_row
    assert row[:6] == (1, [1.5, 2.0], None, 3, ("x", 1), {"k": 2})
    assert row[6].isoformat() == "2024-01-02" and row[7] is True and row[8] == "l"


def test_the_official_client_commands_and_arrow(client: Any) -> None:
    assert client.command("SELECT count() FROM events") == 3
    assert "live_metrics" in client.command("SHOW TABLES")
    assert client.query_arrow("SELECT item_id FROM events").num_rows == 3
    assert client.ping()


def test_the_official_client_sees_errors_as_errors(client: Any) -> None:
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
        client.query("SELECT * FROM no_such_table")
    with pytest.raises(DatabaseError, match="not allowed"):
        client.command("SELECT file('/etc/hostname')")
    with pytest.raises(DatabaseError):
        client.insert("events", [["x"]], column_names=["user_id"])
    assert client.command("SELECT count() FROM events") == 3


def test_curl_get_and_post(endpoint: Listening) -> None:
    assert endpoint.ask("SELECT 1")[2] == b"1\n"
    form = {"Content-Type": "application/x-www-form-urlencoded"}  # curl --data
    assert endpoint.ask(body=b"SELECT 2", headers=form)[2] == b"2\n"
    assert endpoint.ask("SELECT 1 +", body=b"2")[2] == b"3\n"
    assert endpoint.ask("SELECT {a:Int8} + {b:Int8}", param_a="3", param_b="4")[2] == b"7\n"
    packed = {"Content-Encoding": "gzip"}
    assert endpoint.ask(body=gzip.compress(b"SELECT 5"), headers=packed)[2] == b"5\n"


def test_formats_come_from_query_header_or_setting(endpoint: Listening) -> None:
    status, headers, body = endpoint.ask("SELECT 1 AS x FORMAT JSONEachRow", default_format="CSV")
    assert (status, headers["X-ClickHouse-Format"]) == (200, "JSONEachRow")
    assert json.loads(body) == {"x": 1}
    status, headers, body = endpoint.ask("SELECT 'a', 1", default_format="CSV")
    assert (headers["Content-Type"], body) == ("text/csv; charset=UTF-8", b'"a",1\n')
    asked = {"X-ClickHouse-Format": "JSON"}
    status, headers, body = endpoint.ask("SELECT 1 AS x", headers=asked)
    assert headers["Content-Type"].startswith("application/json")
    assert json.loads(body)["data"] == [{"x": 1}]


def test_answers_are_compressed_when_asked(endpoint: Listening) -> None:
    asked = {"Accept-Encoding": "gzip"}
    sql = "SELECT number FROM numbers(5000)"
    _, headers, body = endpoint.ask(sql, headers=asked, enable_http_compression="1")
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body).endswith(b"4999\n")


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("SELEC 1 FROM", 400, "62"),
        ("SELECT * FROM nowhere", 404, "60"),
        ("SELECT nothing", 404, "47"),
        ("SELECT noSuchFunction(1)", 403, "497"),
        ("DROP TABLE events", 403, "164"),
        ("SELECT file('/etc/hostname')", 403, "497"),
        ("SELECT number FROM numbers(2000000)", 500, "396"),
        ("SELECT 1 FORMAT NoSuchFormat", 404, "73"),
        ("SELECT {a:Int8}", 400, "456"),
    ],
)
def test_errors_carry_clickhouse_s_codes(
    endpoint: Listening, sql: str, status: int, code: str
) -> None:
    said, headers, body = endpoint.ask(sql)
    assert (said, headers["X-ClickHouse-Exception-Code"]) == (status, code)
    assert body.startswith(f"Code: {code}. DB::Exception: ".encode())
    assert b"Traceback" not in body


def test_unknown_databases_formats_and_bytes_are_refused(endpoint: Listening) -> None:
    assert endpoint.ask("SELECT 1", database="default")[0] == 200
    assert endpoint.ask("SELECT 1", database="system")[0] == 404
    assert endpoint.ask("SELECT 1", default_format="Template")[0] == 404
    assert endpoint.ask(body=b"SELECT '\xff'")[0] == 400
    assert endpoint.ask(body=b"x" * (sql_http.MAX_BODY + 1))[0] == 413
    assert endpoint.ask("")[2] == b"Ok.\n"


def test_settings_of_a_client_are_ignored(endpoint: Listening) -> None:
    sql = "SELECT number FROM numbers(2000000)"
    status, _, _ = endpoint.ask(
        sql, max_result_rows="0", readonly="0", result_overflow_mode="break"
    )
    assert status == 500


def test_a_web_page_of_another_name_is_refused(endpoint: Listening) -> None:
    assert endpoint.ask("SELECT 1", headers={"Host": "evil.example:8123"})[0] == 403
    for host in ("localhost:8123", "127.0.0.1", "[::1]:8123"):
        assert endpoint.ask("SELECT 1", headers={"Host": host})[0] == 200


def test_ping(endpoint: Listening) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/ping") as said:
        assert said.read() == b"Ok.\n"


def test_many_readers_at_once_while_rows_are_written(
    endpoint: Listening, warehouse: ChdbWarehouse
) -> None:
    answers: list[int] = []

    def work() -> None:
        for _ in range(5):
            answers.append(endpoint.ask("SELECT count() FROM slates")[0])

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for n in range(10):
        write(warehouse, Step(slates=[slate(n, "bob")]))
    for thread in threads:
        thread.join()
    assert answers == [200] * 30


def test_more_queries_than_may_wait_are_refused(
    endpoint: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_http, "WAITING", 0)
    status, headers, body = endpoint.ask("SELECT 1")
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (503, "202")
    assert b"Too many queries" in body


def test_over_a_server_the_endpoint_sends_people_there() -> None:
    listening = Listening(ClickhouseWarehouse("clickhouse://127.0.0.1:1/default"))
    try:
        status, _, body = listening.ask("SELECT 1")
        assert status == 501 and b"ClickHouse server" in body
    finally:
        listening.close()


def test_an_address_in_use_is_named(endpoint: Listening, warehouse: ChdbWarehouse) -> None:
    with pytest.raises(WarehouseError, match=f"FRESHREC_HTTP=127.0.0.1:{endpoint.port}"):
        endpoint.wait(sql_http.serve(warehouse, "127.0.0.1", endpoint.port))
