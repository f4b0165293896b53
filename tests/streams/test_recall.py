"""Which histories are read early: as many as the core lacks, and never one that may be short."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from online.events import Delivery, Event
from online.step import PastEvent, Step
from streams.ahead import step_if_known
from streams.recall import Recall


class FewUsers:
    """A core that holds a few users, and lets the least recently used go."""

    history_limit = 10

    def __init__(self, most: int) -> None:
        self._most = most
        self.users: OrderedDict[str, None] = OrderedDict()

    def missing(self, batch: list[Delivery]) -> list[str]:
        users = dict.fromkeys(d.event.user_id for d in batch)
        for user in users:
            if user in self.users:
                self.users.move_to_end(user)
        return [user for user in users if user not in self.users]

    def restore(self, histories: Mapping[str, list[PastEvent]]) -> None:
        for user in histories:
            self.users[user] = None
        while len(self.users) > self._most:
            self.users.popitem(last=False)

    def step(self, batch: list[Delivery], now_ms: int) -> Step:
        assert not self.missing(batch)
        return Step()

    def announce(self, items: Iterable[Any]) -> None: ...
    def withdraw(self, item_ids: Iterable[str]) -> None: ...
    def quality(self) -> dict[str, Any]:
        return {"users": len(self.users)}


class Library:
    """A warehouse without rows that counts what is read."""

    def __init__(self) -> None:
        self.read_users: list[str] = []

    def read(self, users: list[str], before: object, limit: int) -> dict[str, list[PastEvent]]:
        self.read_users += users
        return {}


def test_a_batch_whose_users_cannot_be_held_together_is_not_learned() -> None:
    recall = Recall(FewUsers(2), Library())  # type: ignore[arg-type]
    with pytest.raises(MemoryError, match="lower FRESHREC_BATCH"):
        recall.complete(batch("a", "b", "c"), {})


def batch(*users: str) -> list[Delivery]:
    return [
        Delivery(Event(event_id=f"{n}", type="click", user_id=u, ts=n), "events", 0, n, n)
        for n, u in enumerate(users)
    ]


def test_a_core_that_holds_few_users_does_not_refuse_most_batches() -> None:
    rng, core = random.Random(3), FewUsers(100)
    recall = Recall(core, Library())  # type: ignore[arg-type]
    refused = 0
    for _ in range(500):
        one = batch(*(f"u{rng.randrange(200)}" for _ in range(20)))
        number, found = recall.early(one)
        if step_if_known(core, one, found, 0) is None:
            refused += 1
            recall.complete(one, found)
        recall.held = core.quality()["users"]
        recall.journalled = number
    assert 1 <= refused <= 3


def test_what_the_core_holds_is_not_read() -> None:
    core, library = FewUsers(10_000), Library()
    recall = Recall(core, library)  # type: ignore[arg-type]
    for n in range(300):
        number, found = recall.early(batch(*(f"u{n + m}" for m in range(20))))
        core.restore(found)
        recall.journalled, recall.held = number, len(core.users)
    assert len(library.read_users) == len(set(library.read_users)) == 319


def test_users_of_unjournalled_batches_are_not_read_early() -> None:
    """Their newest events are not in the warehouse yet."""
    recall = Recall(FewUsers(100), library := Library())  # type: ignore[arg-type]
    first, _ = recall.early(batch("a", "b"))
    recall.complete(batch("c"), {})  # the core lacks one that we believed in, and holds few
    library.read_users.clear()
    recall.early(batch("d"))
    recall.early(batch("a"))
    assert library.read_users == ["d"]
    recall.journalled = first
    recall.early(batch("e"))
    recall.early(batch("b"))
    assert library.read_users == ["d", "e", "b"]


def test_restoring_strangers_evicts_nobody_of_the_same_batch() -> None:
    core = FewUsers(4)
    core.restore({"a": [], "b": [], "c": [], "d": []})  # `a` was used longest ago
    assert step_if_known(core, batch("a", "e"), {"e": []}, 0) is not None
    assert "a" in core.users and "b" not in core.users


def test_more_users_than_can_be_held_at_once_are_refused() -> None:
    assert step_if_known(FewUsers(2), batch("a", "b", "c"), {"a": [], "b": [], "c": []}, 0) is None
