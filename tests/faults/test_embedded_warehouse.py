"""A worker with the embedded warehouse, stopped under load and killed; the broker outlives it."""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path

import pytest

from infra.address import BrokerAddress
from infra.broker import EmbeddedBroker
from streams.producer import EventProducer
from streams.topics import ensure_topics
from tests.live.test_worker import event
from tests.streams.worker_process import WorkerProcess


@pytest.mark.timeout(400)
def test_a_stop_under_load_and_a_kill_lose_and_double_nothing(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A broker that outlives the worker: SIGTERM, start again, SIGKILL, start again."""
    broker = EmbeddedBroker()
    broker.start()
    request.addfinalizer(broker.stop)
    address = BrokerAddress.at(broker.address)
    ensure_topics(address, 4)
    enough = threading.Event()
    sent: list[int] = []

    def produce() -> None:
        rng = random.Random(9)
        with EventProducer(address) as producer:
            for n in range(100_000):
                producer.send(event(n, rng))
                if n % 10 == 0 and enough.wait(0.05):
                    break
            sent.append(producer.flush().confirmed)

    worker = WorkerProcess(tmp_path / "w", broker=f"kafka://{broker.address}")
    request.addfinalizer(worker.kill)
    worker.start()
    producing = threading.Thread(target=produce, daemon=True)
    producing.start()
    worker.until(lambda health: health["events_total"] > 500)
    assert worker.stop(signal.SIGTERM, within_s=10) == 0

    worker.start()
    worker.until(lambda health: health["events_total"] > 300)
    assert producing.is_alive(), "the load must outlast both stops"
    worker.kill()

    worker.start()
    enough.set()
    producing.join()
    worker.until(lambda health: not sum(health["lag"].values()), 90)
    assert worker.stop() == 0
    (rows, doubled, latest) = worker.rows(
        "SELECT count(), uniqExact(event_id) FROM events FINAL",
        "SELECT count() - uniqExact(event_id) FROM events",
        "SELECT count() FROM (SELECT DISTINCT user_id FROM live_recommendations)",
    )
    assert tuple(rows.rows[0]) == (sent[0], sent[0])
    assert doubled.rows[0][0] == 0  # the journal was learned again: redelivered ones were known
    assert latest.rows[0][0] == 300
