"""Words on the topic model-updates: what is said comes through, once."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from infra.rows import Announcement, BatchId
from online.events import Delivery, Event, Item
from online.step import Step
from online.told import SHADOW, Rankers, Told, Weights
from streams.learning import Learned
from streams.sharing import Heard
from streams.updates import CHUNK, FORMAT, Who, Word, encode, words_of
from streams.writing import Work

GROUP = "shop"


class Ear:
    """Notes what a core would be told."""

    def __init__(self) -> None:
        self.events: list[Told] = []
        self.rankers: list[tuple[int, Rankers]] = []
        self.weights: list[Weights] = []
        self.items: list[Any] = []

    def hear(self, events: list[Told]) -> None:
        self.events += events

    def heard_rankers(self, source: int, said: Rankers) -> None:
        self.rankers.append((source, said))

    def adopt(self, said: Weights) -> None:
        self.weights.append(said)

    def heard_items(self, items: list[Item], withdrawn: list[str]) -> None:
        self.items.append((items, withdrawn))


def work(number: int, *types: str, **said: Any) -> Work:
    accepted = [
        Delivery(
            Event(event_id=f"{number}-{n}", type=kind, user_id="ann", item_id="cup", ts=n),  # type: ignore[arg-type]
            "events", 0, n, n,
        )
        for n, kind in enumerate(types)
    ]  # fmt: skip
    return Work(Learned(step=Step(accepted=accepted, **said)), BatchId("b", number << 10 | 1), [])


def records(words: list[bytes]) -> list[tuple[int, int, bytes]]:
    return [(0, n, word) for n, word in enumerate(words)]


def heard(shard: int = 0, group: str = GROUP) -> Heard:
    return Heard(Who(group, shard), {}, {})


def test_how_late_words_come_is_known() -> None:
    ear, listening = Ear(), heard()
    now_us = time.time_ns() // 1000
    words = [
        w
        for n in range(200)
        for w in words_of([work((now_us - 400_000 >> 10) + n, "click")], Who(GROUP, 1))
    ]
    listening.apply(ear, records(words))
    assert len(ear.events) == 200
    assert 100 < listening.figures()["late_ms"] < 60_000


def test_interactions_are_told_and_the_rest_is_not() -> None:
    words = words_of([work(1, "click", "impression", "search", "forget")], Who(GROUP, 1))
    ear, ours = Ear(), heard()
    ours.apply(ear, records(words))
    assert [e.type for e in ear.events] == ["click", "forget"]
    assert {e.user_id for e in ear.events} == {SHADOW + "ann"}
    assert ours.batches == {1: 1 << 10 | 1} and ours.offsets == {0: 1}


def test_words_that_come_twice_and_overlap_count_once() -> None:
    works = [work(n, "click") for n in range(1, 6)]
    ear, ours = Ear(), heard()
    for some in (works[:2], works[:3], works[1:4], works[3:], works):  # as after a crash
        ours.apply(ear, records(words_of(some, Who(GROUP, 1))))
    assert [e.event_id for e in ear.events] == [f"{n}-0" for n in range(1, 6)]


def test_our_own_words_strangers_and_rubbish_are_passed_over() -> None:
    words = words_of([work(1, "click")], Who(GROUP, 1))
    ear = Ear()
    heard(1).apply(ear, records(words))
    heard(0, "others").apply(ear, records(words))
    damaged = [encode(Word(FORMAT, GROUP, 1, 5, kind, b"\xff\xfe")) for kind in
               ("events", "items", "rankers", "weights", "of a later release")]  # fmt: skip
    ours = heard(0)
    ours.apply(ear, records([b"", b"\xff\x00", b"{}", *damaged]))
    assert not (ear.events or ear.rankers or ear.weights or ear.items)
    assert ours.offsets == {0: 8} and ours.batches == {}


def test_the_newest_rankers_and_announcements_are_told() -> None:
    said = [Rankers(bytes([n]) * 4, n, b"", b"") for n in range(3)]
    works = [work(n + 1, rankers=each) for n, each in enumerate(said)]
    item = Item(item_id="cup", title="Cup")
    works[1].learned.announcements = [
        Announcement("cup", item, "items", 0, 1, 1), Announcement("jug", None, "items", 0, 2, 1)
    ]  # fmt: skip
    ear = Ear()
    ours = heard()
    ours.apply(ear, records(words_of(works, Who(GROUP, 1))))
    assert ear.rankers == [(1, said[2])] and ear.items == [([item], ["jug"])]
    assert ours.take_catalogue() == {"cup": item, "jug": None}  # for search, and to be read
    assert ours.take_catalogue() == {}


def test_weights_are_told_in_chunks_and_put_together() -> None:
    n, width = 30_000, 48
    vectors = np.random.default_rng(1).normal(size=(n, width)).astype(np.float32)
    said = Weights(3, [b"\x01\x02"], [f"i{k}" for k in range(n)], vectors.tobytes(),
                   np.arange(n, dtype=np.float32).tobytes())  # fmt: skip
    words = words_of([work(1, weights=said)], Who(GROUP, 1))
    assert len(words) > 5 and max(map(len, words)) < 1_000_000 > CHUNK
    ear = Ear()
    heard().apply(ear, records(words))
    assert ear.weights == [said]
    late = Ear()  # who missed the beginning waits for the next ones
    heard().apply(late, records(words[1:]))
    assert late.weights == []
