"""The demo's pipeline against a real ClickHouse server, and what becomes of a state folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from infra.address import BrokerAddress
from infra.chdb_warehouse import ChdbWarehouse
from infra.checkpoints import About, Checkpoints
from infra.settings import Settings
from infra.warehouse import connect
from streams import sample
from streams.demo_feed import Feed
from streams.demo_worker import MARK, DemoError, claim_state
from streams.logfile import EventLog, ItemFile
from streams.producer import ItemProducer
from tests.clickhouse_server import ClickhouseServer
from tests.streams.worker_process import WorkerProcess

EVENTS = 1_200


@pytest.fixture
def worker(clickhouse_server: ClickhouseServer, tmp_path: Path) -> Iterator[WorkerProcess]:
    clickhouse_server.run("CREATE DATABASE demo")
    process = WorkerProcess(tmp_path / "state", warehouse=clickhouse_server.url("demo"))
    yield process.start()
    process.kill()
    clickhouse_server.run("DROP DATABASE demo")


def test_the_sample_through_kafka_into_a_clickhouse_server(
    worker: WorkerProcess, clickhouse_server: ClickhouseServer
) -> None:
    broker = BrokerAddress.at(worker.running.broker)
    items = list(ItemFile(sample.ITEMS))
    with ItemProducer(broker) as producer:
        for item in items:
            producer.send(item)
        assert producer.flush().ok
    worker.until(lambda health: health["items"] == len(items))
    with EventLog(sample.EVENTS) as log:
        events = [event for batch in log.batches(limit=EVENTS) for event in batch]
    feed = Feed(broker, events, 300, lambda: worker.health().get("events_total", 0))
    feed.start()
    worker.until(lambda health: health["events_total"] == EVENTS)
    feed.join(10)
    assert (feed.error, feed.sent) == (None, EVENTS)
    assert worker.stop() == 0

    warehouse = connect(clickhouse_server.url("demo"))
    try:
        counts = {
            view: warehouse.query(f"SELECT count() FROM {view}").rows[0][0]
            for view in ("live_events", "live_items", "live_dead_letters")
        }
        assert counts == {"live_events": EVENTS, "live_items": len(items), "live_dead_letters": 0}
        users = {event.user_id for event in events}
        slates = warehouse.query(
            "SELECT user_id, count(), min(freshness_ms), max(length(reason))"
            " FROM live_recommendations GROUP BY user_id"
        )
        assert {user for user, *_ in slates.rows} == users
        for _, positions, freshness_ms, reason in slates.rows:
            assert positions == 10 and freshness_ms >= 0 and reason > 0
        metrics = {name for (name,) in warehouse.query("SELECT name FROM live_metrics").rows}
        assert {"hr@10", "ndcg@10", "popularity_hr@10"} <= metrics
    finally:
        warehouse.close()


def leave_events(state: Path, broker_id: str) -> None:
    """A warehouse as a worker leaves it; made by another process, as it always is."""
    script = """
import sys
from pathlib import Path
from infra.chdb_warehouse import ChdbWarehouse
warehouse = ChdbWarehouse(Path(sys.argv[1]), broker_id=sys.argv[2])
warehouse.migrate()
warehouse.insert("events", ["event_id", "user_id", "broker_id"], [["e", "u", sys.argv[2]]])
warehouse.close()
"""
    state.mkdir(exist_ok=True)
    subprocess.run(
        [sys.executable, "-c", script, str(state / "warehouse"), broker_id],
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )


def leave_state(state: Path, broker_id: str) -> Path:
    """What tells whose a state is."""
    folder = state / "checkpoints" / "shard-0" / "state-000000000001"
    folder.mkdir(parents=True)
    about = About(1, "0.1.0", 0, 1, broker_id, {}, 5, {}, {})
    (folder / "about.json").write_bytes(msgspec.json.encode(about))
    return folder


def settings_at(state: Path) -> Settings:
    return Settings.from_env({"FRESHREC_STATE": str(state)}, dotenv=None)


def test_the_demo_starts_anew_where_a_demo_was(tmp_path: Path) -> None:
    state = tmp_path / "state"
    leave_events(state, "embedded-1")
    (state / MARK).write_text(json.dumps({"brokers": ["embedded-1"]}))
    (state / "mine.txt").write_text("not a warehouse")
    leave_state(state, "embedded-1")  # a core that knew the log would skip all of it
    (state / "faust").mkdir()
    claim_state(settings_at(state))
    assert sorted(path.name for path in state.iterdir()) == ["mine.txt"]


@pytest.mark.parametrize("mark", [None, "{}", '{"brokers": ["embedded-0"]}', "broken"])
def test_the_demo_deletes_nothing_that_is_not_its_own(tmp_path: Path, mark: str | None) -> None:
    state = tmp_path / "state"
    leave_events(state, "embedded-1")
    if mark is not None:
        (state / MARK).write_text(mark)
    with pytest.raises(DemoError, match="not the demo's.*FRESHREC_STATE=another-folder"):
        claim_state(settings_at(state))
    warehouse = ChdbWarehouse(state / "warehouse", broker_id="")
    assert warehouse.query("SELECT count() FROM events").rows == [(1,)]
    warehouse.close()


@pytest.mark.parametrize("with_warehouse", [True, False])
def test_the_demo_leaves_the_states_of_a_worker_with_a_warehouse_elsewhere(
    tmp_path: Path, with_warehouse: bool
) -> None:
    """They lie in the same folder, also beside what a demo left."""
    if with_warehouse:
        leave_events(tmp_path, "embedded-1")
    (tmp_path / MARK).write_text(json.dumps({"brokers": ["embedded-1"]}))
    kept = leave_state(tmp_path, "a-cluster")
    with pytest.raises(DemoError, match="not the demo's.*FRESHREC_STATE=another-folder"):
        claim_state(settings_at(tmp_path))
    assert kept.exists()


def test_the_demo_leaves_checkpoints_that_somebody_uses(tmp_path: Path) -> None:
    kept = leave_state(tmp_path, "embedded-1")
    (tmp_path / MARK).write_text(json.dumps({"brokers": ["embedded-1"]}))
    held = Checkpoints(tmp_path / "checkpoints")
    with pytest.raises(DemoError, match="not the demo's"):
        claim_state(settings_at(tmp_path))
    held.close()
    assert kept.exists()


def test_the_demo_refuses_a_folder_that_a_worker_uses(tmp_path: Path) -> None:
    from streams.status import Running

    Running(os.getpid(), "127.0.0.1:1", "127.0.0.1:2", "embedded-1", True).save(tmp_path)
    with pytest.raises(DemoError, match=f"pid {os.getpid()}.*stop it"):
        claim_state(settings_at(tmp_path))


def test_a_fresh_folder_is_fine(tmp_path: Path) -> None:
    claim_state(settings_at(tmp_path / "state"))
    assert not (tmp_path / "state").exists()
