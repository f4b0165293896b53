"""While the warehouse is away: nothing is lost, little is held, and /health says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from infra.rows import BatchId
from infra.warehouse import Warehouse, WarehouseUnavailable
from online.core import Recommender
from streams import patience
from streams import pipeline as pipeline_module
from streams.learning import Learned
from streams.waiting import MESSAGE_BYTES, Waiting
from streams.writing import Work
from tests.streams.pipeline_run import Flapping, Run, event, ids, message, messages


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(patience, "LONGEST_PAUSE_S", 0.02)


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(2_000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within 20 s")


async def test_a_warehouse_that_is_away_pauses_and_loses_nothing(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_module, "WAITING", 3 * 20 * MESSAGE_BYTES)
    flapping = Flapping(warehouse, away=10**9)
    async with Run(Recommender(), flapping, batch=20) as run:

        async def feed() -> None:
            for first in range(0, 400, 20):
                await run.learn(messages([event(n) for n in range(first, first + 20)], first))

        feeding = asyncio.create_task(feed())
        await until(lambda: run.status.warehouse.get("attempts", 0) >= 5)
        health = run.status.health()
        assert health["warehouse"]["status"] == "away" and "not there" in str(health["warehouse"])
        # bounded: a group being written, a few batches behind it, one learned, two in the inbox
        await until(run.pipeline._queue.full)
        assert run.pipeline._queue.qsize() <= 3 and not feeding.done()
        assert run.acknowledged == []
        flapping.away = 3
        await feeding
        await run.drained()
    assert ids(warehouse) == [f"e{n}" for n in range(400)]
    assert run.acknowledged == list(range(400))
    assert run.status.health()["warehouse"] == {"status": "ok"}


async def test_large_letters_are_bounded_as_well(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound in ("WAITING", "WAITING_LATER"):
        monkeypatch.setattr(pipeline_module, bound, 1_000_000)
    flapping = Flapping(warehouse, away=10**9)
    async with Run(Recommender(), flapping, batch=10) as run:
        taken: list[int] = []

        async def feed() -> None:
            for first in range(0, 400, 10):
                await run.learn([message(first + n, b"?" * 90_000) for n in range(10)])
                taken.append(first)

        feeding = asyncio.create_task(feed())
        await until(run.pipeline._later.full)
        await asyncio.sleep(0.2)
        taken_then = len(taken)
        await asyncio.sleep(0.2)
        assert len(taken) == taken_then < 20  # each queue, what is written from it, and the inbox
        flapping.away = 0
        await feeding
        await run.drained()
    assert run.status.rejects == 400


async def test_health_is_not_well_because_something_else_still_works(warehouse: Warehouse) -> None:
    """Histories are read while rows cannot be written."""
    flapping = Flapping(warehouse, away=10**9)
    async with Run(Recommender(), flapping, batch=1) as run:
        await run.learn(messages([event(1)]))
        await until(lambda: run.status.warehouse["status"] == "away")
        for n in range(2, 7):
            await run.learn(messages([event(n)], first=n))
            await asyncio.sleep(0.01)
            assert run.status.warehouse["status"] == "away"
        flapping.away = 0
        await run.drained()
    assert run.status.warehouse == {"status": "ok"}


class Deaf(Flapping):
    """Reading fails as well, for some calls."""

    unread = 3

    def read(self, *arguments: Any) -> Any:
        self.unread -= 1
        if self.unread >= 0:
            raise WarehouseUnavailable("not there")
        return self._warehouse.read(*arguments)


async def test_stages_that_fail_together_are_well_when_the_last_one_is(
    warehouse: Warehouse,
) -> None:
    works: list[str] = []
    deaf = Deaf(warehouse, away=10**9)
    async with Run(Recommender(), deaf, batch=1) as run:
        run.status.works = lambda part: works.append(part)  # type: ignore[method-assign]
        deaf.unread = 0
        await run.learn(messages([event(1)]))
        await until(lambda: deaf.away < 10**9)
        deaf.unread = 3
        await run.learn(messages([event(2)], first=1))
        await until(lambda: deaf.unread < 0)
        await asyncio.sleep(0.05)
        assert works == []
        deaf.away = 0
        await run.drained()
    assert works == ["warehouse"]


async def test_a_queue_has_room_by_weight_and_then_for_one_of_any_weight() -> None:
    def work(raw_bytes: int) -> Work:
        return Work(Learned(messages=1, raw_bytes=raw_bytes), BatchId("broker-1", 1), [])

    queue = Waiting(10_000)
    heavy, light = work(1_000_000), work(10)
    await queue.put(light)
    await queue.put(heavy)
    putting = asyncio.create_task(queue.put(light))
    await asyncio.sleep(0.01)
    assert queue.full() and not putting.done()
    assert queue.get_all() == [light, heavy]
    await asyncio.wait_for(putting, 1)
    assert await queue.get() is light
    assert queue.weight == 0 and not queue.full()
