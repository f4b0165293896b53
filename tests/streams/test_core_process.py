"""The core in its own process: the same steps as in ours, in order, whatever happens to one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from infra.warehouse import Warehouse
from online.core import Recommender, RecommenderConfig
from online.events import Delivery, Event, Item
from online.memory import MemoryConfig
from online.step import PastEvent, Step
from streams.core_process import CoreLost, CoreProcess, CoreRaised
from tests.streams.test_pipeline import Run, event, ids, messages

NOW = 1_700_000_100_000
SMALL = RecommenderConfig(
    memory=MemoryConfig(users=10_000, items=1_000, pages=20_000, pairs=100_000)
)


@pytest.fixture
def core() -> Iterator[CoreProcess]:
    process = CoreProcess(SMALL)
    yield process
    process.close()


def batch(first: int, size: int = 20) -> list[Delivery]:
    return [
        Delivery(event(n), "events", 0, n, 1_700_000_000_000 + n)
        for n in range(first, first + size)
    ]


def strangers(deliveries: list[Delivery]) -> dict[str, list[PastEvent]]:
    return {d.event.user_id: [] for d in deliveries}


def essence(step: Step | None) -> object:
    assert step is not None
    return step.accepted, step.slates, step.metrics, step.duplicates


def test_steps_sent_ahead_are_those_of_a_core_in_this_process(core: CoreProcess) -> None:
    ours, batches = Recommender(SMALL), [batch(first) for first in range(0, 200, 20)]
    for c in (ours, core):
        c.announce([Item(item_id="i1", title="Lantern")])
    expected = []
    for one in batches:
        ours.restore(strangers(one))
        expected.append(essence(ours.step(one, NOW)))
    core.send(batches[0], strangers(batches[0]), NOW)
    found = []
    for following in batches[1:]:
        core.send(following, strangers(following), NOW)
        found.append(essence(core.receive()))
    found.append(essence(core.receive()))
    assert found == expected
    assert core.quality() == ours.quality()
    assert core.recommend("u1", NOW) == ours.recommend("u1", NOW)


def test_a_batch_that_lacks_histories_is_refused_and_so_is_what_follows(core: CoreProcess) -> None:
    first, second = batch(0), batch(20)
    core.send(first, {}, NOW)
    core.send(second, strangers(second), NOW)
    assert core.receive() is None
    assert core.receive() is None
    # nothing was learned of either: both are new, and in order, once the histories are there
    assert core.missing(first) == [f"u{n}" for n in range(7)]
    core.restore(strangers(first))
    assert core.step(first, NOW).duplicates == 0
    core.send(second, {}, NOW)
    step = core.receive()
    assert step is not None and len(step.accepted) == 20


def test_what_follows_a_batch_on_which_the_core_raised_is_refused(core: CoreProcess) -> None:
    first, second = batch(0), batch(20)
    core.send(first, {"u0": [("not", "a past event")]}, NOW)  # type: ignore[list-item]
    core.send(second, strangers(second), NOW)
    with pytest.raises(CoreRaised):
        core.receive()
    assert core.receive() is None
    core.restore(strangers(first))
    assert core.step(second, NOW).duplicates == 0


def test_a_core_that_died_is_said_so(core: CoreProcess) -> None:
    core.send(batch(0), strangers(batch(0)), NOW)
    core.receive()
    os.kill(core.pid, signal.SIGKILL)
    with pytest.raises(CoreLost, match=r"ended \(exit"):
        for first in range(20, 2_000, 20):
            core.send(batch(first), {}, NOW)
            core.receive()


async def test_the_pipeline_finds_the_histories_that_the_core_has_dropped(
    core: CoreProcess, warehouse: Warehouse
) -> None:
    def some(first: int) -> list[Event]:
        return [event(n) for n in range(first, first + 30)]

    async with Run(Recommender(SMALL), warehouse) as run:
        await run.learn(messages(some(0)))
        await run.drained()
    async with Run(core, warehouse, batch=30) as run:
        learner = run.pipeline._learner
        learner._remember(f"u{n}" for n in range(7))  # it believes that the core holds them
        for first in (0, 30, 60, 90):  # the first are in the warehouse already: sent twice
            await run.learn(messages(some(first), 1000 + first))
        await run.drained()
    assert ids(warehouse) == [f"e{n}" for n in range(120)]
    assert run.status.duplicates == 30
    assert run.acknowledged == list(range(1000, 1120))
