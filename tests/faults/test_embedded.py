"""`freshrec up`: one process at a time, and what it learned outlives it and its broker.

Ports in use, and two workers with one state folder: tests/streams/test_worker.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.address import BrokerAddress
from streams.producer import EventProducer
from tests.faults.shop import events
from tests.streams.worker_process import WorkerProcess


@pytest.fixture
def up(tmp_path: Path) -> Iterator[WorkerProcess]:
    """With the broker and the warehouse that it brings."""
    made = WorkerProcess(tmp_path / "up", encoder="off")
    yield made
    made.kill()


def learn(worker: WorkerProcess, first: int, count: int) -> None:
    with EventProducer(BrokerAddress.at(worker.running.broker)) as producer:
        for event in itertools.islice(events(10**6, seed=4), first, first + count):
            producer.send(event)
        assert producer.flush().ok
    worker.until(lambda health: health["events_total"] == count)


def began_again(worker: WorkerProcess) -> str:
    """What the newest start says, up to the next events."""
    return worker.words(100_000).rpartition("broker_started")[2]


@pytest.mark.timeout(240)
def test_what_an_embedded_worker_learned_outlives_it_and_its_broker(
    tmp_path: Path, up: WorkerProcess
) -> None:
    up.start()
    learn(up, 0, 400)
    other = WorkerProcess(tmp_path / "other", warehouse=f"chdb://{up.state}/warehouse")
    said = other.refused()
    assert f"in use by another process (pid {up.running.pid})" in said and "stop it" in said

    up.kill()  # its locks, its note of where it runs, and its broker's port stay behind
    up.start()
    said = began_again(up)
    assert "state_restored" in said and "offsets_dropped" in said and "recovered events=400" in said
    learn(up, 400, 300)
    assert up.stop() == 0

    up.start()
    said = began_again(up)
    assert "events=700" in said and "offsets_dropped" in said and "recovered events=0" in said
    learn(up, 700, 200)
    assert up.stop() == 0
    (rows,) = up.rows("SELECT count(), uniqExact(event_id) FROM live_events")
    assert [tuple(row) for row in rows.rows] == [(900, 900)]
