"""Events on which the core raises, and cores that end: through the whole pipeline."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import pytest

from infra.warehouse import Warehouse
from online.core import Recommender
from online.events import Delivery, Event, Item
from online.step import Core, PastEvent, Step
from online.texts import TextVector
from streams import learning, patience
from streams.codec import encode
from streams.core_process import CoreLost, CoreProcess
from streams.core_protocol import Changes
from streams.inbox import Taken
from streams.learning import Message
from tests.streams.cores import FORGETFUL, SMALL, TOUCHY, Forgetful, Touchy
from tests.streams.pipeline_run import TS, Flapping, Run, event, ids, messages


class Watched(CoreProcess):
    """Remembers how many batches were under way."""

    most = 0

    def send(
        self, batch: list[Delivery], histories: Mapping[str, list[PastEvent]], now_ms: int,
        queries: Sequence[TextVector] = (),
    ) -> None:  # fmt: skip
        super().send(batch, histories, now_ms, queries)
        self.most = max(self.most, len(self._sent))


@pytest.fixture
def touchy() -> Iterator[Watched]:
    process = Watched(SMALL, TOUCHY)
    yield process
    process.close()


def some(first: int, size: int = 20, **changes: object) -> list[Event]:
    return [event(n, **changes) for n in range(first, first + size)]


def letters(warehouse: Warehouse) -> list[tuple[int, str]]:
    rows = warehouse.query("SELECT offset, reason FROM dead_letters ORDER BY offset").rows
    return [(offset, reason) for offset, reason in rows]


@pytest.mark.parametrize("where", ["here", "in a child"])
async def test_a_poison_batch_loses_only_its_culprits(
    warehouse: Warehouse, touchy: Watched, where: str
) -> None:
    core: Core = Touchy() if where == "here" else touchy
    events = some(0, 64)
    events[9] = events[20] = event(5)  # true duplicates beside the poison
    for culprit in (0, 17, 18, 63):
        events[culprit] = event(culprit, item_id="poison")
    async with Run(core, warehouse) as run:
        await run.learn(messages(some(100, 5)))
        await run.learn(messages([*events, event(101)], first=5))
        await run.learn(messages(some(200, 5), first=70))
        await run.drained()
    found = Counter(ids(warehouse))
    good = {e.event_id for e in events if e.item_id != "poison"}
    assert set(found) == good | {f"e{n}" for n in (*range(100, 105), *range(200, 205))}
    assert set(found.values()) == {1}
    said = "poison: ZeroDivisionError: no such thing"
    assert letters(warehouse) == [(offset, said) for offset in (5, 22, 23, 68)]
    assert run.status.duplicates == 3
    assert run.acknowledged == list(range(75))


async def test_poison_does_not_change_the_order_of_what_was_sent_after_it(
    warehouse: Warehouse, touchy: Watched
) -> None:
    events = some(0, 120)
    events[5] = event(5, item_id="slow")  # so that the others wait and are sent together
    events[30] = event(30, item_id="poison")
    async with Run(touchy, warehouse, batch=20) as run:
        for first in range(0, 120, 20):
            await run.learn(messages(events[first : first + 20], first))
        await run.drained()
    assert touchy.most == 2
    journal = warehouse.query("SELECT event_id FROM events ORDER BY batch, batch_pos").rows
    assert [row[0] for row in journal] == [f"e{n}" for n in range(120) if n != 30]
    assert [offset for offset, _ in letters(warehouse)] == [30]
    assert run.acknowledged == list(range(120))


@pytest.mark.parametrize("where", ["here", "in a child"])
async def test_a_poison_announcement_is_a_dead_letter_and_the_others_count(
    warehouse: Warehouse, touchy: Watched, where: str
) -> None:
    core: Core = Touchy() if where == "here" else touchy
    items = [Item(item_id=name, title="Lantern") for name in ("a", "poison", "b")]
    told = [
        Message("items", 0, n, TS, item.item_id.encode(), encode(item))
        for n, item in enumerate(items)
    ]
    gone = [Message("items", 0, 3, TS, b"a", None), Message("items", 0, 4, TS, None, None)]
    async with Run(core, warehouse) as run:
        for first in range(0, 120, 20):  # the changes of the catalogue lie between these
            await run.learn(messages(some(first), first))
            if first == 40:
                await run.learn(told)
            if first == 60:
                await run.learn(gone)
        await run.drained()
    assert Counter(run.acknowledged) == Counter([*range(120), *range(5)])
    assert letters(warehouse) == [
        (1, "poison: ZeroDivisionError: no such thing"),
        (4, "invalid: a tombstone needs the item_id as its key"),
    ]
    assert warehouse.catalogue() == [items[2]]


async def test_an_event_that_the_core_cannot_be_told_of_is_a_dead_letter(
    warehouse: Warehouse, touchy: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The codec refuses such integers; without it they are found like other poison."""
    plain = msgspec.json.Decoder(Event)
    monkeypatch.setattr(learning, "decode_event", lambda raw, limit: plain.decode(raw))
    events = some(0, 80)
    events[5] = event(5, item_id="slow")
    events[45] = event(45, context={"size": 2**64})
    async with Run(touchy, warehouse, batch=20) as run:
        for first in range(0, 80, 20):
            await run.learn(messages(events[first : first + 20], first))
        await run.drained()
    journal = warehouse.query("SELECT event_id FROM events ORDER BY batch, batch_pos").rows
    assert [row[0] for row in journal] == [f"e{n}" for n in range(80) if n != 45]
    [(offset, reason)] = letters(warehouse)
    assert offset == 45 and reason.startswith("poison: OverflowError")
    assert run.acknowledged == list(range(80))


@pytest.mark.parametrize("how", ["killed", "out of memory"])
async def test_a_lost_core_ends_the_worker_and_nothing_is_acknowledged(
    warehouse: Warehouse, touchy: Watched, how: str
) -> None:
    async with Run(touchy, warehouse) as run:
        await run.learn(messages(some(0)))
        await run.drained()
        if how == "killed":
            os.kill(touchy.pid, signal.SIGKILL)
            await run.learn(messages(some(20), first=20))
        else:
            await run.learn(messages(some(20, item_id="huge"), first=20))
        error = await asyncio.wait_for(run.pipeline.failed, 10)
        assert isinstance(error, CoreLost)
        assert not await run.pipeline.drain(0.05)
    assert run.acknowledged == list(range(20))
    assert letters(warehouse) == []


class Disorderly(Recommender):
    """Refuses a batch, and steps the one that was sent after it."""

    ahead = 2

    def __init__(self) -> None:
        super().__init__()
        self._sent: list[list[Delivery]] = []
        self._received = 0

    def send(
        self, batch: list[Delivery], histories: object, now_ms: int, queries: object = ()
    ) -> None:
        self._sent.append(batch)

    def receive(self) -> Step | None:
        batch = self._sent.pop(0)
        self._received += 1
        return None if self._received == 1 else self.step(batch, 2**50)

    def send_changes(self, changes: Changes) -> None:
        pass

    def receive_changes(self) -> list[str]:
        return []


async def test_batches_that_were_learned_out_of_order_are_not_survived(
    warehouse: Warehouse,
) -> None:
    async with Run(Disorderly(), warehouse, batch=20) as run:
        learner = run.pipeline._learner
        for first in (0, 20):
            ready = learner.prepare(messages(some(first), first))
            await run.pipeline._under_way.send(Taken("events", [], []), ready)
        await run.learn(messages(some(40), 40))
        error = await asyncio.wait_for(run.pipeline.failed, 10)
        assert "stepped a batch after one that it had refused" in str(error)
    assert ids(warehouse) == [] and run.acknowledged == []


@pytest.mark.parametrize("where", ["here", "in a child"])
async def test_histories_are_read_when_what_was_learned_is_in_the_journal(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The core lets a user go whose events are learned, and not written yet."""
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.1)
    core: Core = Forgetful(SMALL) if where == "here" else CoreProcess(SMALL, FORGETFUL)
    async with Run(core, Flapping(warehouse, away=2), batch=1) as run:
        for offset, n in enumerate((1, 1, 2, 1, 2)):
            await run.learn(messages([event(n)], offset))
        await run.drained()
    if isinstance(core, CoreProcess):
        core.close()
    assert ids(warehouse) == ["e1", "e2"]
    assert run.status.duplicates == 3
    assert run.acknowledged == list(range(5))


async def test_the_pipeline_finds_the_histories_that_the_core_has_dropped(
    warehouse: Warehouse, touchy: Watched
) -> None:
    async with Run(Recommender(SMALL), warehouse) as run:
        await run.learn(messages(some(0, 30)))
        await run.drained()
    async with Run(touchy, warehouse, batch=30) as run:
        recall = run.pipeline._learner._recall
        recall._remember([f"u{n}" for n in range(7)], 0)  # it believes that the core holds them
        for first in (0, 30, 60, 90):  # the first are in the warehouse already: sent twice
            await run.learn(messages(some(first, 30), 1000 + first))
        await run.drained()
    assert ids(warehouse) == [f"e{n}" for n in range(120)]
    assert run.status.duplicates == 30
    assert run.acknowledged == list(range(1000, 1120))
    assert run.status.health()["stages_ms"]["learn"]["p50"] is not None
