"""A state folder as the release before checkpoints left it: it is taken over, and said so."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import schema
from infra.chdb_warehouse import ChdbWarehouse
from infra.rows import Announcement, BatchId, item_rows, rows_of
from online.events import Delivery, Item
from online.step import Step
from tests.faults.shop import events
from tests.faults.test_embedded import began_again, learn
from tests.streams.worker_process import WorkerProcess

OLD_SCHEMA = 5
OLD_BROKER = "embedded-of-old"
BATCH, BATCHES = 50, 12
BEGAN_US = 1_750_000_000_123_457  # batches were numbered by their time alone


@pytest.fixture
def up(tmp_path: Path) -> Iterator[WorkerProcess]:
    made = WorkerProcess(tmp_path / "up", encoder="off")
    yield made
    made.kill()


def left_behind(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The warehouse of the release before, with a journal and an item."""
    known = [one for one in schema.migrations() if one.number <= OLD_SCHEMA]
    with monkeypatch.context() as patched:
        patched.setattr(schema, "migrations", lambda: known)
        warehouse = ChdbWarehouse(state / "warehouse", OLD_BROKER)
        warehouse.migrate()
    sent = events(10**6, seed=4)
    for number in range(BATCHES):
        some = list(itertools.islice(sent, BATCH))
        batch = [
            Delivery(event, "events", 0, number * BATCH + n, event.ts)
            for n, event in enumerate(some)
        ]
        # some came within the same millisecond
        id_ = BatchId(OLD_BROKER, BEGAN_US + number * 300)
        for block in rows_of(Step(accepted=batch), id_, 1):
            warehouse.insert(*block)
    announced = Announcement("i1", Item(item_id="i1", title="Lantern"), "items", 0, 0, 1)
    for block in item_rows([announced], OLD_BROKER, 1):
        warehouse.insert(*block)
    warehouse.close()
    (state / "worker.lock").touch()
    (state / "running.json").write_text("{}")


@pytest.mark.timeout(240)
def test_a_warehouse_without_checkpoints_is_learned_again_and_then_gone_on_from(
    up: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(up.state, monkeypatch)
    journalled = BATCH * BATCHES
    up.start()
    said = began_again(up)
    assert "0006_journal" in said and "0001" not in said
    assert "catalogue_announced items=1" in said and f"recovered events={journalled}" in said
    assert "no_checkpoint" in said and "learned again" in said
    learn(up, journalled, 300)
    assert up.stop() == 0

    up.start()
    said = began_again(up)
    assert f"events={journalled + 300}" in said and "recovered events=0" in said
    assert "no_checkpoint" not in said and "migrated" not in said
    learn(up, journalled + 300, 100)
    assert up.stop() == 0
    total = journalled + 400
    counts, numbers = up.rows(
        "SELECT count(), uniqExact(event_id) FROM live_events",
        "SELECT max(batch), uniqExact(batch) FROM events WHERE broker_id != 'embedded-of-old'",
    )
    assert [tuple(row) for row in counts.rows] == [(total, total)]
    assert numbers.rows[0][0] > BEGAN_US + BATCHES * 300
