"""The query endpoint over HTTP, attacked: nothing is changed, read, reached or used up."""

from __future__ import annotations

import gzip
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import chdb_reader, sql_http
from infra.chdb_warehouse import ChdbWarehouse
from online.step import Step
from tests.infra.samples import delivery, slate, write
from tests.infra.test_sql_http import Listening

MARK = "the-content-of-a-private-file"


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbWarehouse]:
    made = ChdbWarehouse(tmp_path_factory.mktemp("attacked") / "warehouse")
    made.migrate()
    write(made, Step(accepted=[delivery(n) for n in range(3)], slates=[slate(2)]))
    yield made
    made.close()


@pytest.fixture(scope="module")
def endpoint(warehouse: ChdbWarehouse) -> Iterator[Listening]:
    made = Listening(warehouse)
    yield made
    made.close()


class Canary:
    """A server and a folder that a refused query must never touch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.private = folder / "private.csv"
        self.private.write_text(MARK + "\n")
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/"

    def check(self) -> None:
        with pytest.raises(TimeoutError):
            self._socket.accept()
        assert [path.name for path in self.folder.iterdir()] == ["private.csv"]
        assert self.private.read_text() == MARK + "\n"

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    folder = tmp_path / "private"
    folder.mkdir()
    made = Canary(folder)
    yield made
    made.close()


def content(warehouse: ChdbWarehouse) -> list[tuple[object, ...]]:
    tables = warehouse.query("SELECT name, create_table_query FROM system.tables "
                             "WHERE database = currentDatabase() ORDER BY name").rows  # fmt: skip
    rows = [warehouse.query(f"SELECT count() FROM {name}").rows[0] for name, _ in tables]
    return [*tables, *rows, *warehouse.query("SELECT * FROM events ORDER BY offset").rows]


ATTACKS = {
    "write": (
        "INSERT INTO events (user_id) VALUES ('x')",
        "INSERT INTO events SELECT * FROM events",
        "INSERT INTO FUNCTION file('{folder}/out.csv') SELECT 1",
        "INSERT INTO FUNCTION url('{url}', 'CSV', 'a String') SELECT 'x'",
        "ALTER TABLE events DELETE WHERE 1",
        "ALTER TABLE events UPDATE user_id = 'x' WHERE 1",
        "DELETE FROM events WHERE 1",
        "OPTIMIZE TABLE events FINAL",
    ),
    "create": (
        "CREATE TABLE x (a Int8) ENGINE = Memory",
        "CREATE TEMPORARY TABLE x (a Int8)",
        "CREATE VIEW x AS SELECT 1",
        "CREATE TABLE x (a String) ENGINE = File(CSV, '{folder}/out.csv')",
        "CREATE TABLE x (a String) ENGINE = URL('{url}', CSV)",
        "CREATE DATABASE x",
        "CREATE USER x",
        "CREATE FUNCTION x AS (a) -> a",
        "CREATE NAMED COLLECTION x AS a = 1",
        "ATTACH TABLE x FROM '{folder}' (a Int8) ENGINE = MergeTree ORDER BY a",
        "GRANT ALL ON *.* TO default",
    ),
    "drop": (
        "DROP TABLE events",
        "DROP VIEW live_events",
        "DROP DATABASE default",
        "TRUNCATE TABLE events",
        "DETACH TABLE events PERMANENTLY",
        "RENAME TABLE events TO gone",
        "SELECT 1; DROP TABLE events",
    ),
    "kill": (
        "KILL QUERY WHERE 1",
        "KILL MUTATION WHERE 1",
        "SYSTEM SHUTDOWN",
        "SYSTEM KILL",
        "SYSTEM STOP MERGES",
    ),
    "read a file": (
        "SELECT * FROM file('{file}', 'LineAsString')",
        "SELECT file('{file}')",
        "SELECT arrayMap(x -> file(x), ['{file}'])",
        "WITH (SELECT file('{file}')) AS x SELECT x",
        "SELECT * FROM '{file}'",
        "SELECT * FROM `{file}`",
        "SELECT 1 IN (SELECT * FROM file('{file}', 'LineAsString'))",
        "SELECT * FROM executable('cat {file}', 'TSV', 'a String')",
        "SELECT * FROM sqlite('{file}', 't')",
        "SELECT * FROM filesystem('{folder}')",
        "DESCRIBE TABLE file('{file}')",
    ),
    "reach a server": (
        "SELECT * FROM url('{url}', 'LineAsString')",
        "SELECT * FROM urlCluster('default', '{url}', 'LineAsString')",
        "SELECT * FROM s3('{url}x', 'CSV')",
        "SELECT * FROM '{url}x.csv'",
        "SELECT * FROM `{url}x.csv`",
        "SELECT * FROM remote('{place}', 'system.one')",
        "SELECT * FROM mysql('{place}', 'd', 't', 'u', 'p')",
        "SELECT * FROM postgresql('{place}', 'd', 't', 'u', 'p')",
        "SELECT * FROM mongodb('{place}', 'd', 't', 'u', 'p', 'a String')",
        "SELECT * FROM redis('{place}', 'a', 'a String')",
        "SELECT * FROM deltaLake('{url}x')",
        "SELECT * FROM iceberg('{url}x')",
        "SELECT * FROM hdfs('hdfs://{place}/x', 'CSV')",
    ),
    "write a file": (
        "SELECT 1 INTO OUTFILE '{folder}/out'",
        "SELECT 1 INTO OUTFILE '{folder}/out' FORMAT CSV",
        "SELECT 1 FORMAT CSV INTO OUTFILE '{folder}/out'",
        "BACKUP TABLE events TO File('{folder}/out')",
        "RESTORE TABLE events FROM File('{folder}/private.csv')",
    ),
    "change settings": (
        "SET readonly = 0",
        "SET max_memory_usage = 0",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_execution_time = 0",
        "SELECT * FROM (SELECT 1 SETTINGS allow_ddl = 1)",
        "SELECT 1 FORMAT CSV SETTINGS max_threads = 8",
        "USE system",
    ),
}


@pytest.mark.parametrize("kind", ATTACKS)
def test_refused(endpoint: Listening, warehouse: ChdbWarehouse, canary: Canary, kind: str) -> None:
    before = content(warehouse)
    names = {
        "folder": str(canary.folder), "file": str(canary.private), "url": canary.url,
        "place": canary.url.removeprefix("http://").rstrip("/"),
    }  # fmt: skip
    for text in ATTACKS[kind]:
        sql = text.format_map(names)
        for said in (endpoint.ask(sql), endpoint.ask(body=sql.encode())):
            status, headers, body = said
            assert 400 <= status < 500, f"{sql}: {status} {body!r}"
            assert headers["X-ClickHouse-Exception-Code"] != "0"
            assert MARK.encode() not in body and b"Traceback" not in body
    canary.check()
    assert content(warehouse) == before


def test_a_file_s_content_does_not_come_through_a_parameter(
    endpoint: Listening, canary: Canary
) -> None:
    file = str(canary.private)
    assert endpoint.ask("SELECT {f:Identifier}({p:String})", param_f="file", param_p=file)[0] in (
        400,
        403,
    )
    assert endpoint.ask("SELECT * FROM {t:Identifier}", param_t=file)[0] >= 400
    assert endpoint.ask("SELECT {p:String}", param_p=f"file('{file}')")[2] == (
        b"file(\\'%s\\')\n" % file.encode()
    )
    canary.check()


def test_settings_beside_the_query_change_nothing(endpoint: Listening) -> None:
    many = "SELECT number FROM numbers(2000000)"
    given = {"max_result_rows": "0", "max_memory_usage": "0", "readonly": "0", "profile": "default",
             "allow_ddl": "1", "session_id": "s", "role": "default"}  # fmt: skip
    assert endpoint.ask(many, **given)[1]["X-ClickHouse-Exception-Code"] == "396"
    assert endpoint.ask("DROP TABLE events", **given)[0] == 403
    assert endpoint.ask("SELECT 1", **given)[2] == b"1\n"


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT number FROM numbers(1000001)", "396"),  # rows
        ("SELECT repeat('x', 1000) FROM numbers(300000)", "241"),  # bytes
        ("SELECT groupArray(number) FROM numbers(1000000000)", "241"),  # memory
        ("SELECT number, count() FROM numbers(100000000) GROUP BY number", "241"),
        ("SELECT number FROM numbers(100000000) ORDER BY rand() LIMIT 1, 90000000", "241"),
        ("SELECT repeat('\\0', 1000) FROM numbers(100000) FORMAT JSON", "241"),  # the text of it
        ("SELECT sleep(3)", "497"),
    ],
)
def test_answers_have_limits(endpoint: Listening, sql: str, code: str) -> None:
    status, headers, _ = endpoint.ask(sql)
    assert (headers["X-ClickHouse-Exception-Code"], status >= 400) == (code, True)
    assert endpoint.ask("SELECT count() FROM live_events")[2] == b"3\n"


def test_requests_have_a_size(endpoint: Listening) -> None:
    assert endpoint.ask(body=b"x" * (sql_http.MAX_BODY + 1))[0] == 413
    bomb = gzip.compress(b"SELECT 1" + b" " * (200 << 20))
    assert len(bomb) < sql_http.MAX_BODY
    assert endpoint.ask(body=bomb, headers={"Content-Encoding": "gzip"})[0] in (400, 413)
    assert endpoint.ask("SELECT '" + "x" * 20_000 + "'")[0] in (400, 414)
    assert endpoint.ask(body=b"SELECT '" + b"x" * 300_000 + b"'")[0] == 400
    assert endpoint.ask("SELECT 1")[2] == b"1\n"


def test_queries_have_a_time(warehouse: ChdbWarehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(chdb_reader._LIMITS, "max_execution_time", 1)
    listening = Listening(warehouse)
    try:
        began = time.monotonic()
        sql = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1"
        status, headers, _ = listening.ask(sql, max_execution_time="0")
        assert (status, headers["X-ClickHouse-Exception-Code"]) == (408, "159")
        assert time.monotonic() - began < 10
    finally:
        listening.close()


def test_who_asks_gets_an_answer_in_time_whatever_the_engine_does(
    warehouse: ChdbWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine looks at its clock between blocks only; this query is one block, for seconds."""
    monkeypatch.setattr(sql_http, "ANSWER_S", 0.5)
    listening = Listening(warehouse)
    try:
        sql = "SELECT arrayCount(x -> has(range(1000000), x + 1000000), range(1000))"
        status, headers, body = listening.ask(sql)
        assert (status, headers["X-ClickHouse-Exception-Code"]) == (408, "159")
        assert b"No answer within 0.5 s" in body
        assert listening.ask("SELECT 1")[2] == b"1\n"  # by the other reader
    finally:
        listening.close()


def test_a_request_that_never_arrives_is_given_up(
    warehouse: ChdbWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_http, "BODY_S", 0.3)
    listening = Listening(warehouse)
    try:
        slow = http.client.HTTPConnection("127.0.0.1", listening.port, timeout=10)
        slow.putrequest("POST", "/")
        slow.putheader("Content-Length", "100")
        slow.endheaders(b"SELECT")
        assert slow.getresponse().status == 408
        slow.close()
    finally:
        listening.close()


def test_queries_at_a_time_are_few(
    warehouse: ChdbWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_http, "WAITING", 1)
    listening = Listening(warehouse)
    answers: list[int] = []
    heavy = "SELECT count() FROM numbers(50000000) WHERE sipHash64(number) = 1"
    try:
        asking = [
            threading.Thread(target=lambda: answers.append(listening.ask(heavy)[0]))
            for _ in range(sql_http.READERS + 4)
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        assert sorted(answers) == [200] * answers.count(200) + [503] * answers.count(503)
        assert answers.count(200) >= 1 and answers.count(503) >= 1
        assert listening.ask("SELECT 1")[2] == b"1\n"
    finally:
        listening.close()
