"""The pipeline over a real chdb: what comes out as rows, and that nothing is lost on the way."""

from __future__ import annotations

import asyncio
import random

import pytest

from infra.warehouse import Warehouse
from online.core import Recommender
from online.events import Delivery, Event, Item
from online.step import Step
from streams import patience
from streams.codec import encode
from streams.keeping import Position
from streams.learning import Message
from streams.recovery import Recovery
from tests.streams.pipeline_run import TS, Flapping, Run, event, ids, message, messages


async def test_events_become_rows_and_are_acknowledged_in_order(warehouse: Warehouse) -> None:
    async with Run(Recommender(), warehouse) as run:
        for first in range(0, 300, 50):
            await run.learn(messages([event(n) for n in range(first, first + 50)], first))
        await run.drained()
    assert ids(warehouse) == [f"e{n}" for n in range(300)]
    assert run.acknowledged == list(range(300))
    users = warehouse.query("SELECT DISTINCT user_id FROM live_recommendations").rows
    assert sorted(users) == [(f"u{n}",) for n in range(7)]
    assert run.status.health()["events_total"] == 300


async def test_batches_are_journalled_as_they_were_learned(warehouse: Warehouse) -> None:
    core = Recording()
    async with Run(core, warehouse) as run:
        for first in range(0, 900, 30):
            await run.learn(messages([event(n) for n in range(first, first + 30)], first))
        await run.drained()
    rows = warehouse.query(
        "SELECT groupArray(batch_pos), groupArray(event_id) FROM"
        " (SELECT * FROM events ORDER BY batch, batch_pos) GROUP BY batch ORDER BY batch"
    ).rows
    assert [list(positions) for positions, _ in rows] == [
        list(range(len(batch))) for batch in core.batches
    ]
    assert [list(found) for _, found in rows] == [
        [e.event_id for e in batch] for batch in core.batches
    ]
    # while one batch is learned the next one grows, up to the limit
    assert 1 < max(len(batch) for batch in core.batches) <= 512
    assert len(core.batches) < 30


async def test_duplicates_are_dropped_and_acknowledged(warehouse: Warehouse) -> None:
    async with Run(Recommender(), warehouse) as run:
        await run.learn(messages([event(n) for n in range(20)]))
        await run.learn(messages([event(n) for n in range(20)], first=20))
        await run.drained()
    assert len(ids(warehouse)) == 20
    assert run.status.duplicates == 20
    assert run.acknowledged == list(range(40))


async def test_bad_messages_become_dead_letters_with_their_bytes(warehouse: Warehouse) -> None:
    bad: dict[int, tuple[bytes | None, str]] = {
        1: (b"\xff\x00{", "undecodable: "),
        3: (b'{"event_id":"x","type":"click","user_id":"u","item_id":"","ts":1}', "invalid: "),
        5: (b" " * 200_000, "too_large: "),
        7: (None, "undecodable: "),
        9: (encode(event(9, ts=2**60)), "invalid: "),
        10: (encode(event(10, position=2**63)), "invalid: position is an integer of more than 64"),
        11: (b'{"event_id":"x","type":"click","user_id":"u","item_id":"i","ts":1,"context":{"a":1'
             + b"0" * 400 + b"}}", "invalid: "),
    }  # fmt: skip
    batch = [message(n, bad[n][0] if n in bad else encode(event(n))) for n in range(20)]
    async with Run(Recommender(), warehouse) as run:
        await run.learn(batch)
        await run.drained()
    letters = warehouse.query("SELECT offset, reason, raw FROM dead_letters ORDER BY offset").rows
    assert [row[0] for row in letters] == sorted(bad)
    for offset, reason, raw in letters:
        value, code = bad[offset]
        assert reason.startswith(code), reason
        if value is not None and len(value) < 100_000:
            assert (raw if isinstance(raw, bytes) else raw.encode("latin-1")) in (
                value,
                value.decode("latin-1").encode(),
            )
    assert ids(warehouse) == [f"e{n}" for n in range(20) if n not in bad]
    assert run.acknowledged == list(range(20))
    assert run.status.rejects == len(bad)


async def test_a_bug_in_writing_is_not_survived(warehouse: Warehouse) -> None:
    async with Run(Recommender(), warehouse) as run:
        run.pipeline._writer.write = lambda group: 1 / 0  # type: ignore[method-assign,assignment]
        await run.learn(messages([event(1)]))
        assert isinstance(await asyncio.wait_for(run.pipeline.failed, 5), ZeroDivisionError)
        assert run.acknowledged == []
        assert not await run.pipeline.drain(0.05)


async def test_items_are_announced_withdrawn_and_kept(warehouse: Warehouse) -> None:
    def item(offset: int, key: bytes | None, value: bytes | None) -> Message:
        return Message("items", 0, offset, TS + offset, key, value)

    core = Recommender()
    withdrawn: list[str] = []
    core.withdraw = withdrawn.extend  # type: ignore[attr-defined,method-assign,unused-ignore]
    batch = [
        item(0, b"a", encode(Item(item_id="a", title="Lantern", price=2.5))),
        item(1, b"b", encode(Item(item_id="b", title="Garland"))),
        item(2, b"a", encode(Item(item_id="a", title="White lantern", price=2.5))),
        item(3, b"b", None),
        item(4, None, None),
        item(5, b"c", b"{"),
        item(6, b"d", encode(Item(item_id="d", price=1e300))),
    ]
    async with Run(core, warehouse) as run:
        await run.pipeline.take(batch, lambda: None)
        await run.drained()
    assert warehouse.catalogue() == [Item(item_id="a", title="White lantern", price=2.5)]
    assert withdrawn == ["b"]
    reasons = warehouse.query("SELECT offset, reason FROM dead_letters ORDER BY offset").rows
    assert [(r[0], r[1].split(":")[0]) for r in reasons] == [
        (4, "invalid"), (5, "undecodable"), (6, "invalid"),
    ]  # fmt: skip


class Recording(Recommender):
    """Remembers which events it was given, batch by batch."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[Event]] = []

    def step(self, batch: list[Delivery], now_ms: int) -> Step:
        self.batches.append([d.event for d in batch])
        return super().step(batch, now_ms)


async def test_a_start_steps_the_journal_again_in_its_batches(warehouse: Warehouse) -> None:
    rng = random.Random(3)
    core = Recording()
    async with Run(core, warehouse, batch=60) as run:
        offset = 0
        while offset < 500:
            size = rng.randrange(1, 60)
            batch = [event(n, price=1.5, context={"n": n}) for n in range(offset, offset + size)]
            await run.learn(messages(batch, offset))
            offset += size
        await run.drained()
    again = Recording()
    recovery = Recovery(again, warehouse)
    recovery.newest(10_000)
    assert again.batches == core.batches
    assert recovery.last_batch() == warehouse.query("SELECT max(batch) FROM events").rows[0][0]
    assert again.step([Delivery(event(1), "events", 0, 1, TS)], TS + 10**6).duplicates == 1

    newest = Recording()
    Recovery(newest, warehouse).newest(100)
    kept = [e for batch in newest.batches for e in batch]
    assert kept == [e for batch in core.batches for e in batch][-len(kept) :]
    assert 100 <= len(kept) < 160
    # what happened before the window is in the histories
    assert newest.step([Delivery(event(1), "events", 0, 1, TS)], TS + 10**6).duplicates == 1


def test_nothing_to_recover_is_fine(warehouse: Warehouse) -> None:
    for newest in (100, 0):
        recovery = Recovery(Recommender(), warehouse)
        recovery.newest(newest)
        assert (recovery.events, recovery.last_batch()) == (0, 0)


async def test_no_last_state_is_kept_while_something_may_be_under_way(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Position] = []

    async def last(at: Position, within_s: float) -> None:
        kept.append(at)

    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.2)
    async with Run(Recommender(), Flapping(warehouse, away=2)) as run:
        run.pipeline._keeper.last = last  # type: ignore[method-assign]
        await run.learn(messages([event(1)]))
        await run.pipeline.keep_last(1)
        assert not kept
        await run.drained()
        await run.pipeline.keep_last(1)
    assert [at.offsets for at in kept] == [{"events/0": 1}]
