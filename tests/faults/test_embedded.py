"""`freshrec up`: one process at a time, and what it learned outlives it, its broker, its release.

Ports in use, and two workers with one state folder: tests/live/test_worker.py.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.address import BrokerAddress
from streams.producer import EventProducer
from tests.faults import old_state
from tests.faults.old_state import EVENTS
from tests.faults.shop import events
from tests.faults.worker import command
from tests.streams.worker_process import WorkerProcess


@pytest.fixture
def up(tmp_path: Path) -> Iterator[WorkerProcess]:
    """With the broker and the warehouse that it brings."""
    made = WorkerProcess(tmp_path / "up", encoder="off")
    made.command = command()
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
def test_what_an_embedded_worker_learned_outlives_it_its_broker_and_its_release(
    tmp_path: Path, up: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_state.leave(up.state, monkeypatch)
    up.start()
    said = began_again(up)
    assert "0006_journal" in said and "0001" not in said
    assert "catalogue_announced items=1" in said and f"recovered events={EVENTS}" in said
    assert "no_checkpoint" in said and "learned again" in said
    learn(up, EVENTS, 400)
    other = WorkerProcess(tmp_path / "other", warehouse=f"chdb://{up.state}/warehouse")
    said = other.refused()
    assert f"in use by another process (pid {up.running.pid})" in said and "stop it" in said

    up.kill()  # its locks, and its note of where it runs, stay behind
    up.start()
    said = began_again(up)
    assert "state_restored" in said and "offsets_dropped" in said and "recovered events=400" in said
    assert "no_checkpoint" not in said and "migrated" not in said
    learn(up, EVENTS + 400, 300)
    assert up.stop() == 0

    up.start()
    said = began_again(up)
    assert f"events={EVENTS + 700}" in said and "recovered events=0" in said
    assert "offsets_dropped" in said
    learn(up, EVENTS + 700, 200)
    assert up.stop() == 0
    counts, numbers = up.rows(
        "SELECT count(), uniqExact(event_id) FROM live_events",
        f"SELECT min(batch) FROM events WHERE broker_id != '{old_state.BROKER}'",
    )
    assert [tuple(row) for row in counts.rows] == [(EVENTS + 900, EVENTS + 900)]
    assert numbers.rows[0][0] > old_state.LAST_BATCH

    elsewhere = (up.state / "warehouse").rename(tmp_path / "warehouse")
    said = up.refused()  # what its core knows would be skipped as learned
    assert "holds no events" in said and "put that warehouse back" in said and "--fresh" in said
    shutil.rmtree(up.state / "warehouse")
    elsewhere.rename(up.state / "warehouse")
    up.start()
    learn(up, EVENTS + 900, 100)
    assert up.stop() == 0
