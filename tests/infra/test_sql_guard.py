"""What strangers may and may not ask of the embedded engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.chdb_reader import GuardedReader
from infra.chdb_warehouse import ChdbWarehouse
from infra.sql_guard import MAX_QUERY, Guard
from infra.warehouse_types import WarehouseError
from online.step import Step
from tests.infra.samples import delivery, slate, write


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbWarehouse]:
    made = ChdbWarehouse(tmp_path_factory.mktemp("guard") / "warehouse")
    made.migrate()
    write(made, Step(accepted=[delivery(n) for n in range(3)], slates=[slate(2)]))
    yield made
    made.close()


@pytest.fixture(scope="module")
def reader(warehouse: ChdbWarehouse) -> Iterator[GuardedReader]:
    made = GuardedReader(warehouse.connection)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("sql", "answer"),
    [
        ("SELECT 1", "1\n"),
        ("select 1 as a, ';' -- end;\n ; ", "1\t;\n"),
        ("SELECT count() FROM events", "3\n"),
        ("SELECT COUNT(*), Max(offset), sumIf(offset, offset > 1), uniqExactOrNullIf(ts, 0) "
         "FROM events", "3\t2\t2\t\\N\n"),
        ("SELECT item_id FROM live_recommendations WHERE user_id = {u:String} AND position = 1",
         "a\n"),
        ("SELECT item_id, row_number() OVER (ORDER BY offset DESC) r FROM default.events "
         "ORDER BY r LIMIT 1", "i2\t1\n"),
        ("WITH x AS (SELECT 1 AS n) SELECT n FROM x UNION ALL SELECT n FROM x", "1\n1\n"),
        ("SELECT {n:Int8} + {m:Int8}, {l:Array(String)}", "7\t['p','q']\n"),
        ("SELECT arrayMap(x -> x * 2, [1, 2]), multiIf(1, 'a', 'b'), LOWER('Q'), 1 IN (1, 2), "
         "CAST('3', 'Int8'), [7][1], (1, 2).2, map('k', 1)['k'], toDate('2024-01-02')",
         "[2,4]\ta\tq\t1\t3\t7\t2\t1\t2024-01-02\n"),
        ("SELECT 1 WHERE EXISTS (SELECT 1) AND 2 IN (SELECT number FROM numbers(3))", "1\n"),
        ("SELECT * EXCEPT (b) FROM (SELECT 1 AS a, 2 AS b)", "1\n"),
        ("SELECT a.offset FROM events a JOIN events b USING event_id ORDER BY 1", "0\n1\n2\n"),
        ("SELECT count() > 10 FROM system.columns WHERE table = 'events'", "1\n"),
        ("SELECT timezone(), currentDatabase()", "UTC\tdefault\n"),
        ("EXISTS TABLE events", "1\n"),
        ("SELECT 1 FORMAT CSV", "1\n"),
        ("SELECT count() FROM {t:Identifier}", "3\n"),
    ],
)  # fmt: skip
def test_questions_are_answered(reader: GuardedReader, sql: str, answer: str) -> None:
    given = {"u": "ann", "t": "events", "n": "3", "m": "4", "l": "['p','q']"}
    assert reader.answer(sql, given)[1].decode() == answer


def test_tables_are_listed_and_described(reader: GuardedReader) -> None:
    assert b"live_recommendations\n" in reader.answer("SHOW TABLES", {})[1]
    assert b"item_id\tString" in reader.answer("DESCRIBE TABLE live_recommendations", {})[1]


@pytest.mark.parametrize(
    "sql",
    [
        # files, networks, programs and Python objects, as functions and as tables
        "SELECT file('/etc/hostname')",
        "SELECT `file`('/etc/hostname')",
        "SELECT FILE('/etc/hostname')",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM `passwd.csv`",
        "SELECT 1 IN `/etc/passwd`",
        "SELECT * FROM url('http://127.0.0.1:1')",
        "SELECT * FROM s3('http://127.0.0.1:1/x')",
        "SELECT * FROM remote('127.0.0.1', 'system.one')",
        "SELECT * FROM mysql('h', 'd', 't', 'u', 'p')",
        "SELECT * FROM executable('ls', 'TSV', 'a String')",
        "SELECT * FROM python('x')",
        "SELECT * FROM Python(os)",
        "SELECT dictGet('a', 'b', 1)",
        "SELECT joinGet('a', 'b', 1)",
        "SELECT aiGenerate('x')",
        "SELECT catboostEvaluate('/etc/passwd', 1)",
        # the same, hidden
        "SELECT arrayMap(x -> file(x), ['/etc/passwd'])",
        "WITH (SELECT file('/etc/passwd')) AS x SELECT x",
        "SELECT 1 UNION ALL SELECT file('/etc/passwd')",
        "SELECT 1 WHERE 'x' IN (SELECT file('/etc/passwd'))",
        "SELECT 'x' IN file('/etc/passwd')",
        "SELECT * REPLACE (file('/etc/passwd') AS ts) FROM events",
        "SELECT * APPLY (x -> file(x)) FROM events",
        "SELECT * APPLY file FROM events",
        "SELECT 1 ORDER BY file('/etc/passwd')",
        "SELECT sum(1) OVER (PARTITION BY file('/etc/passwd'))",
        "SELECT * FROM view(SELECT file('/etc/passwd'))",
        "SELECT 1 AS `x\n Function file`",
        "SELECT {f:Identifier}('/etc/passwd')",
        "SELECT * FROM {s:Identifier}",
        # results to files
        "SELECT 1 INTO OUTFILE '{folder}/out'",
        "SELECT 1 INTO OUTFILE '{folder}/out' FORMAT CSV",
        "SELECT 1 FORMAT CSV INTO OUTFILE '{folder}/out'",
        "EXPLAIN AST SELECT 1 INTO OUTFILE '{folder}/out'",
        # anything but one SELECT
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE events",
        "DROP TABLE events",
        "INSERT INTO events (user_id) VALUES ('x')",
        "INSERT INTO events SELECT * FROM events",
        "CREATE TABLE x ENGINE = Memory AS SELECT 1",
        "CREATE TEMPORARY TABLE x (a Int8)",
        "ALTER TABLE events DELETE WHERE 1",
        "TRUNCATE TABLE events",
        "OPTIMIZE TABLE events FINAL",
        "KILL QUERY WHERE 1",
        "SYSTEM SHUTDOWN",
        "SYSTEM STOP MERGES",
        "SET readonly = 0",
        "USE system",
        "GRANT ALL ON *.* TO default",
        "BACKUP TABLE events TO File('x')",
        "ATTACH DATABASE x",
        "EXPLAIN SELECT 1",
        "SELECT * FROM (EXPLAIN SELECT 1)",
        "DESCRIBE TABLE file('/etc/passwd')",
        "SHOW CREATE TABLE system.processes",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 FORMAT CSV SETTINGS max_threads = 8",
        "SELECT * FROM (SELECT 1 SETTINGS max_execution_time = 0)",
        # other people's queries, and the machine
        "SELECT * FROM system.processes",
        "SELECT * FROM `system`.`query_log`",
        "SELECT 1 IN system.processes",
        "SELECT 1 IN (system.processes)",
        "SELECT * FROM merge('system', '.*')",
        "SELECT * FROM loop('system', 'processes')",
        "SELECT getSetting('max_threads'), filesystemAvailable()",
        "SELECT addressToLine(1)",
        "SELECT showCertificate()",
        "SELECT sleep(3)",
        "SELECT sumMerge(CAST(unhex('00'), 'AggregateFunction(sum, Int8)'))",
        "SELECT CAST(unhex('00'), 'AggregateFunction(sum, Int8)')",
        "SELECT CAST(unhex('00'), concat('Aggregate', 'Function(sum, Int8)'))",
        "SELECT arrayReduce('sumMerge', [1])",
        "SELECT {a:AggregateFunction(sum, Int8)}",
        "SELECT formatRow('Template', 1)",
        "SELECT 1 FORMAT Template",
        "SELECT 1 FORMAT Protobuf",
        # no query at all
        "",
        ";",
        "--",
        "/*",
        "SELECT '",
        "SELECT 1)",
        "SELECT 1) UNION ALL SELECT (2",
        "\0",
        "SELECT 1\0; DROP TABLE events",
        "SELECT '" + "x" * MAX_QUERY + "'",
        "SELECT " + "(" * 5000 + "1" + ")" * 5000,
    ],
)
def test_everything_else_is_refused(reader: GuardedReader, tmp_path: Path, sql: str) -> None:
    parameters = {"f": "file", "s": "system.processes", "a": "x"}
    with pytest.raises(WarehouseError):
        reader.answer(sql.replace("{folder}", str(tmp_path)), parameters)
    assert list(tmp_path.iterdir()) == []
    assert reader.answer("SELECT count() FROM live_events", {})[1] == b"3\n"


def test_a_refusal_names_what_is_refused(reader: GuardedReader) -> None:
    for sql, words in {
        "SELECT file('/etc/hostname')": "function file is not allowed here",
        "SELECT * FROM url('http://h')": "table function url is not allowed",
        "DROP TABLE events": "only a single SELECT",
        "SELECT 1 SETTINGS max_threads = 3": "SETTINGS cannot be changed here",
        "SELECT * FROM system.processes": "table system.processes is not open here",
    }.items():
        with pytest.raises(WarehouseError, match=words):
            reader.answer(sql, {})


def test_a_connection_by_itself_cannot_write_either(reader: GuardedReader) -> None:
    """Should an examination ever fail, the connection still refuses."""
    for sql in ("DROP TABLE events", "SET readonly = 0", "SELECT * FROM file('/etc/passwd')"):
        with pytest.raises(WarehouseError, match="readonly"):
            reader._connection.run(sql, "TSV")


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT number FROM numbers(2000000)", 396),
        ("SELECT repeat('x', 1000000000)", 241),
        ("SELECT nonsense", 47),
    ],
)
def test_a_failed_query_leaves_nothing_behind(reader: GuardedReader, sql: str, code: int) -> None:
    """chdb gives what a failed query had produced to the next one: other people's rows."""
    for form in ("TSV", "Native", "JSON"):
        with pytest.raises(WarehouseError) as caught:
            reader.answer(sql, {}, form)
        assert caught.value.code == code
        assert reader.answer("SELECT 5", {}, "CSV") == ("CSV", b"5\n")


def test_nothing_is_left_behind_in_the_warehouse_either(warehouse: ChdbWarehouse) -> None:
    with pytest.raises(WarehouseError):
        warehouse.query("SELECT throwIf(number = 900000) FROM numbers(1000000)")
    assert warehouse.query("SELECT 5").rows == [(5,)]


def test_parameters_are_values(reader: GuardedReader) -> None:
    for value in ("x' OR 1 = 1 --", "{u:String}", "%(u)s", "; DROP TABLE events"):
        assert reader.answer("SELECT {u:String} FORMAT RawBLOB", {"u": value})[1] == value.encode()


def test_only_functions_of_known_kinds_are_allowed(reader: GuardedReader) -> None:
    guard: Guard = reader._guard
    for name in ("sum", "sumIf", "quantilesTDigestArrayIf", "avgOrDefault", "count", "toString",
                 "JSONExtractString", "cityHash64", "ln", "power", "LENGTH", "if"):  # fmt: skip
        assert guard.allows(name), name
    for name in ("ifSum", "noSuchThing", "sumMerge", "fileIf", "file", "sleepEachRow", "dictGetAll",
                 "tcpPort", "regionToName", "mergeTreePartInfo", "serverUUID", ""):  # fmt: skip
        assert not guard.allows(name), name
