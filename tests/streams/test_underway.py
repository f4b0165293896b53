"""What the core was sent is handed on in the order in which the core took it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from online.events import Delivery, Event
from streams import underway
from streams.inbox import Taken
from streams.learning import Changing, Learned, Message, Prepared
from streams.patience import Patience
from streams.status import Status
from streams.topics import EVENTS, ITEMS
from streams.underway import UnderWay


class Core:
    """A learner whose core refuses what is sent ahead, the first so many times."""

    ahead, attentive = 2, True

    def __init__(self, refuses: int) -> None:
        self.refuses = refuses
        self.took: list[Any] = []  # in the core's order
        self._sent: list[Prepared] = []

    def send(self, ready: Prepared, now_ms: int) -> None:
        self._sent.append(ready)
        if not self.refuses:
            self.took.append(ready)

    def receive(self, ready: Prepared) -> Learned | None:
        assert self._sent.pop(0) is ready
        if self.refuses:
            self.refuses -= 1
            return None
        return Learned()

    def learn(self, ready: Prepared, now_ms: int) -> Learned:
        self.took.append(ready)
        return Learned()

    def understand(self, learned: Learned) -> None:
        self.took.append(learned)

    def send_changes(self, messages: list[Message]) -> Changing:
        learned = Learned(messages=len(messages))
        self.took.append(learned)
        return Changing([], learned)

    def receive_changes(self, changing: Changing) -> Learned:
        return changing.learned


async def handed_on(core: Core, says: str) -> list[Any]:
    """A batch, what texts or announcements say, and a batch are sent before any is received."""
    found: list[Any] = []

    async def hand_on(taken: Taken, learned: Learned) -> None:
        found.append(batches.get(id(taken), learned))

    async def journalled() -> None:
        pass

    status, thread = Status(), ThreadPoolExecutor(1)
    under_way = UnderWay(core, status, Patience(status), thread, hand_on, journalled)  # type: ignore[arg-type]
    event = Event(event_id="1", type="click", user_id="ann", item_id="cup", ts=1)
    one, other = (Prepared([Delivery(event, "events", 0, 0, 1)]) for _ in range(2))
    taken = Taken(EVENTS, [], []), Taken(EVENTS, [], [])
    batches: dict[int, Any] = {id(taken[0]): one, id(taken[1]): other}
    await under_way.send(taken[0], one)
    if says == "texts":
        await under_way.understand(Learned())
    else:
        await under_way.change(Taken(ITEMS, [Message("items", 0, 0, 1, b"cup", b"{}")], []))
    assert not under_way.full
    await under_way.send(taken[1], other)
    assert under_way.full and not found
    await under_way.receive_all()
    assert not under_way
    thread.shutdown()
    return found


@pytest.mark.parametrize("says", ["texts", "announcements"])
async def test_what_is_said_is_journalled_where_the_core_was_told_of_it(says: str) -> None:
    core = Core(refuses=0)
    found = await handed_on(core, says)
    assert len(found) == 3 and all(a is b for a, b in zip(found, core.took, strict=True))


async def test_many_changes_are_sent_in_portions_and_acknowledged_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(underway, "CHANGE_BYTES", 10)
    found, done = [], []

    async def hand_on(taken: Taken, learned: Learned) -> None:
        found.append([m.offset for m in taken.messages])
        for written in taken.written:
            written()

    async def journalled() -> None:
        pass

    status, thread = Status(), ThreadPoolExecutor(1)
    core = Core(refuses=0)
    under_way = UnderWay(core, status, Patience(status), thread, hand_on, journalled)  # type: ignore[arg-type]
    some = [Message("items", 0, n, 1, b"cup", b"x" * 4) for n in range(5)]
    await under_way.change(Taken(ITEMS, some, [lambda: done.append(len(found))]))
    await under_way.receive_all()
    assert found == [[0, 1], [2, 3], [4]] and done == [3]
    thread.shutdown()


@pytest.mark.parametrize("says", ["texts", "announcements"])
async def test_what_is_said_comes_first_when_batches_around_it_are_learned_anew(says: str) -> None:
    core = Core(refuses=2)
    found = await handed_on(core, says)
    assert len(found) == 3 and all(a is b for a, b in zip(found, core.took, strict=True))
    assert isinstance(found[0], Learned)
