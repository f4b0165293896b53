"""What the release before checkpoints left behind."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from infra import schema
from infra.chdb_warehouse import ChdbWarehouse
from infra.rows import Announcement, BatchId, item_rows, rows_of
from online.events import Delivery, Item
from online.step import Step
from tests.faults.shop import events

SCHEMA = 5
BROKER = "embedded-of-old"
BATCH, BATCHES = 50, 12
EVENTS = BATCH * BATCHES
BEGAN_US = 1_750_000_000_123_457  # batches were numbered by their time alone
STEP_US = 300  # some came within the same millisecond
LAST_BATCH = BEGAN_US + (BATCHES - 1) * STEP_US


def leave(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The warehouse of the release before, with a journal and an item."""
    known = [one for one in schema.migrations() if one.number <= SCHEMA]
    with monkeypatch.context() as patched:
        patched.setattr(schema, "migrations", lambda: known)
        warehouse = ChdbWarehouse(state / "warehouse", BROKER)
        warehouse.migrate()
    sent = events(10**6, seed=4)
    for number in range(BATCHES):
        some = list(itertools.islice(sent, BATCH))
        batch = [
            Delivery(event, "events", 0, number * BATCH + n, event.ts)
            for n, event in enumerate(some)
        ]
        numbered = BatchId(BROKER, BEGAN_US + number * STEP_US)
        for block in rows_of(Step(accepted=batch), numbered, 1):
            warehouse.insert(*block)
    announced = Announcement("i1", Item(item_id="i1", title="Lantern"), "items", 0, 0, 1)
    for block in item_rows([announced], BROKER, 1):
        warehouse.insert(*block)
    warehouse.close()
    (state / "worker.lock").touch()
    (state / "running.json").write_text("{}")
