"""Commands that talk to a broker, a worker and a warehouse: the real ones."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer

from infra.address import BrokerAddress
from infra.broker import EmbeddedBroker
from infra.rows import Announcement, BatchId, item_rows, rows_of
from infra.warehouse import connect
from online.events import Delivery, Event, Item
from online.step import Recommendation, Slate, Step
from streams import cli, sample
from streams.bench.child import BenchWorker
from tests.clickhouse_server import ClickhouseServer

CLICK = '{"type": "click", "user_id": "ann", "item_id": "22423"}'


@pytest.fixture
def outside(address: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A broker of one's own, named by the settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRESHREC_BROKER", f"kafka://{address.servers[0]}")
    return tmp_path


def records(address: BrokerAddress, topic: str, count: int) -> list[Any]:
    """At least `count` records of a topic, as an independent client reads them."""
    consumer = KafkaConsumer(
        topic, bootstrap_servers=list(address.servers), auto_offset_reset="earliest",
        group_id=None, fetch_max_wait_ms=20, metadata_max_age_ms=500,
    )  # fmt: skip
    found: list[Any] = []
    try:
        deadline = time.monotonic() + 30
        while len(found) < count and time.monotonic() < deadline:
            for batch in consumer.poll(timeout_ms=200).values():
                found += batch
    finally:
        consumer.close()
    return found


def test_a_log_is_produced_keyed_by_user(
    outside: Path, address: BrokerAddress, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["produce", str(sample.EVENTS), "--from", "11", "--limit", "500"]
    assert cli.main(arguments) == 0
    assert "500 delivered to topic events" in capsys.readouterr().err
    found = records(address, "events", 500)
    sent = [json.loads(record.value) for record in found]
    assert len(sent) == 500
    assert all(r.key.decode() == e["user_id"] for r, e in zip(found, sent, strict=True))
    from streams.logfile import EventLog

    with EventLog(sample.EVENTS) as log:
        wanted = {e.event_id for b in log.batches(500, start=10, limit=500) for e in b}
    assert {e["event_id"] for e in sent} == wanted


def test_from_a_time_and_items(
    outside: Path, address: BrokerAddress, capsys: pytest.CaptureFixture[str]
) -> None:
    log = outside / "log.csv"
    log.write_text(
        "type,user_id,item_id,ts\nclick,u,a,2024-05-01\nclick,u,b,2024-05-02\nclick,u,c,2024-05-03\n"
    )
    command = ["produce", str(log), "--ts-unit", "iso", "--from", "2024-05-02", "--speed", "1000"]
    assert cli.main(command) == 0
    assert [json.loads(r.value)["item_id"] for r in records(address, "events", 2)] == ["b", "c"]
    items = outside / "items.jsonl"
    items.write_text('{"item_id": "1", "title": "Lamp"}\n{"item_id": "2"}\n')
    assert cli.main(["produce", str(items), "--topic", "items"]) == 0
    assert {r.key for r in records(address, "items", 2)} == {b"1", b"2"}
    assert cli.main([*command[:4], "--from", "99"]) == 1
    assert "none is left" in capsys.readouterr().err


def test_a_typed_event_gets_an_id_and_a_time(
    outside: Path, address: BrokerAddress, capsys: pytest.CaptureFixture[str]
) -> None:
    before_ms = time.time() * 1000 - 1
    assert cli.main(["produce", "--event", CLICK, "--event", CLICK]) == 0
    first, second = (json.loads(r.value) for r in records(address, "events", 2))
    assert first["event_id"] != second["event_id"]
    assert before_ms <= first["ts"] <= time.time() * 1000
    wrong = '{"type": "rating", "user_id": "ann", "item_id": "1"}'
    assert cli.main(["produce", "--event", CLICK, "--event", wrong]) == 1
    assert "event 2: a rating event needs a rating" in capsys.readouterr().err
    assert len(records(address, "events", 2)) == 2  # the good one was not sent either


class Typed:
    """Standard input."""

    def __init__(self, text: str) -> None:
        self.buffer = io.BytesIO(text.encode())


def test_lines_from_standard_input_until_one_is_wrong(
    outside: Path,
    address: BrokerAddress,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", Typed(f"{CLICK}\n\n{CLICK}\nnonsense\n{CLICK}\n"))
    assert cli.main(["produce", "-"]) == 1
    told = capsys.readouterr().err
    assert "event 3: " in told and "2 events before it were sent" in told
    assert len(records(address, "events", 2)) == 2


def test_a_faulty_log_sends_nothing(
    outside: Path, address: BrokerAddress, capsys: pytest.CaptureFixture[str]
) -> None:
    log = outside / "log.jsonl"
    good = '{"type": "click", "user_id": "u", "item_id": "i", "ts": 1}\n'
    log.write_text(good * 2000 + good.replace('"ts": 1', '"ts": 99999999999999'))
    assert cli.main(["produce", str(log)]) == 2
    assert "column 'ts', row 2001" in capsys.readouterr().err
    assert cli.main(["produce", "--event", CLICK]) == 0
    assert len(records(address, "events", 1)) == 1


def test_ctrl_c_counts_what_was_delivered_and_ends_quietly(
    outside: Path, address: BrokerAddress
) -> None:
    command = [sys.executable, "-m", "streams.cli", "produce", str(sample.EVENTS), "--speed", "50"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert len(records(address, "events", 20)) >= 20
            process.send_signal(signal.SIGINT)
            told = process.communicate(timeout=30)[1]
        finally:
            process.kill()
    assert process.returncode == 130
    assert "delivered to topic events" in told and "Traceback" not in told


def test_without_a_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["produce", "--event", CLICK]) == 1
    assert "start freshrec up first" in capsys.readouterr().err
    monkeypatch.setenv("FRESHREC_BROKER", "kafka://127.0.0.1:1")
    assert cli.main(["produce", "--event", CLICK]) == 1
    assert "no Kafka broker answers at kafka://127.0.0.1:1" in capsys.readouterr().err


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder whose warehouse holds one user's slate and one item's title."""
    monkeypatch.chdir(tmp_path)
    warehouse = connect(f"chdb://{tmp_path}/state/warehouse", "b")
    warehouse.migrate()
    event = Event(event_id="e", type="click", user_id="o'ann", item_id="1", ts=1)
    shown = tuple(
        Recommendation(str(n), 1 / n, f"because [{n}]", "trend", 1.0) for n in range(1, 13)
    )
    slate = Slate("s", "o'ann", 1, 1, "events", 0, 0, "m1", shown)
    step = Step(accepted=[Delivery(event, "events", 0, 0, 1)], slates=[slate])
    now_ms = time.time_ns() // 1_000_000
    lamp = Announcement("1", Item(item_id="1", title="[b]Lamp[/b] 100%"), "items", 0, 0, 1)
    for table, columns, rows in (
        *rows_of(step, BatchId("b", 1), now_ms), *item_rows([lamp], "b", now_ms),
    ):  # fmt: skip
        warehouse.insert(table, columns, rows)
    warehouse.close()
    return tmp_path


def test_recommendations_and_sql_without_a_worker(
    filled: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def told(*arguments: str, code: int = 0) -> str:
        assert cli.main(list(arguments)) == code
        said = capfdbinary.readouterr()
        return (said.err if code else said.out).decode()

    table = told("recommend", "o'ann", "-k", "2")
    assert "[b]Lamp[/b] 100%" in table and "because [2]" in table and "because [3]" not in table
    assert "no recommendations for user 'bob'" in told("recommend", "bob", code=1)
    assert "12" in told("query", "SELECT count() FROM live_recommendations")
    assert (
        told("query", "SELECT 1 AS a, 'x' AS b", "--format", "CSVWithNames") == '"a","b"\n1,"x"\n'
    )
    assert told("query", "SELECT 1 AS a FORMAT JSONEachRow;") == '{"a":1}\n'
    assert "is none" in told("query", "DROP TABLE events", code=1)
    assert "nope" in told("query", "SELECT nope", code=1)
    assert "no rows" in told("query", "SELECT * FROM live_dead_letters")


def test_no_warehouse_is_made_by_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["recommend", "ann"]) == 1
    assert "there is no warehouse in" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_a_server_is_read_through_its_driver(
    clickhouse_server: ClickhouseServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    monkeypatch.chdir(tmp_path)
    clickhouse_server.run("CREATE DATABASE IF NOT EXISTS commands")
    monkeypatch.setenv("FRESHREC_WAREHOUSE", clickhouse_server.url("commands"))
    assert cli.main(["migrate"]) == 0
    capfdbinary.readouterr()
    assert cli.main(["query", "SELECT 1 AS a, 'é' AS b", "--format", "CSVWithNames"]) == 0
    assert capfdbinary.readouterr().out.decode() == '"a","b"\n1,"é"\n'
    assert cli.main(["query", "SELECT 1 AS a FORMAT JSONEachRow"]) == 0
    assert capfdbinary.readouterr().out.decode() == '{"a": 1}\n'
    for arguments, said in (
        (["query", "DROP TABLE events"], b"only reading is allowed"),
        (["query", "SELECT 1", "--format", "Arrow"], b"CSVWithNames"),
        (["recommend", "nobody"], b"no recommendations for user 'nobody'"),
    ):
        assert cli.main(arguments) == 1
        assert said in capfdbinary.readouterr().err
    assert cli.main(["check"]) == 0


@pytest.fixture
def worker(
    address: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BenchWorker]:
    """The real worker around a core that learns nothing: it starts at once."""
    from streams.topics import ensure_topics

    monkeypatch.chdir(tmp_path)
    ensure_topics(address, 4)
    with BenchWorker(tmp_path, address, "live", "streams.bench.nothing") as started:
        started.await_ready()
        monkeypatch.setenv("FRESHREC_STATE", str(started.state))
        monkeypatch.setenv("FRESHREC_BROKER", f"kafka://{address.servers[0]}")
        yield started


def test_with_a_worker_an_event_shows_at_once(
    worker: BenchWorker, broker: EmbeddedBroker, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert cli.main(["produce", "--event", CLICK]) == 0
    worker.until(lambda health: health.get("events_total", 0) == 1, 30, "the event is written")
    capfdbinary.readouterr()
    assert cli.main(["recommend", "ann"]) == 0
    assert b"item-9" in capfdbinary.readouterr().out
    assert cli.main(["query", "SELECT user_id FROM live_events", "--format", "TSV"]) == 0
    assert capfdbinary.readouterr().out == b"ann\n"
    assert cli.main(["query", "SELECT nope"]) == 1
    assert b"nope" in capfdbinary.readouterr().err
    assert cli.main(["check"]) == 0
    told = b" ".join(capfdbinary.readouterr().out.split())
    assert b"held by the worker" in told and b"fault" not in told
