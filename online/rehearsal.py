"""A trainer, and a day in the life of a core, for compiling everything before the first event."""

from __future__ import annotations

import numpy as np

from online.events import Delivery, Event, Item
from online.memory import MemoryConfig
from online.sequence import new_dense
from online.step import PastEvent
from online.teaching import EncoderConfig, Lesson, Publication
from online.texts import TextConfig, TextVector, query_name

Array = np.ndarray


class Rehearsal:
    """A trainer that learns nothing, for compiling and tests: every item has the same vector."""

    def __init__(self, config: EncoderConfig) -> None:
        self._config = config
        self._lesson: Lesson | None = None

    def idle(self) -> bool:
        return True

    def begin(self, lesson: Lesson) -> None:
        self._lesson = lesson

    def ready(self) -> bool:
        return True

    def finish(self) -> Publication:
        assert self._lesson is not None
        return self._made(self._lesson.number, self._lesson.item)

    def start(self, keys: Array) -> Publication:
        return self._made(1, keys[keys >= 0])

    def roll_back(self, number: int) -> None:
        pass

    def save(self, place: str) -> bool:
        return False

    def resume(self, place: str, number: int, busy: bool) -> None:
        pass

    def close(self) -> None:
        pass

    def _made(self, number: int, keys: Array) -> Publication:
        c, items = self._config, np.unique(keys).astype(np.int32)
        dense = new_dense(c.width, c.channels, c.hidden)
        for weights in dense:
            weights[:] = 0.5
        vectors = np.ones((len(items), c.width), np.float32)
        bias = np.zeros(len(items), np.float32)
        return Publication(number, dense, items, vectors, bias, float("nan"), 0)


def rehearse(exclude_seen: bool) -> None:
    """Have a small core do once whatever is compiled."""
    from online.core import Recommender, RecommenderConfig  # which imports us

    small = MemoryConfig(users=10_000, items=1_000, pages=20_000, pairs=100_000, history=64)
    encoder = EncoderConfig(width=4, channels=4, hidden=4, every=8)
    config = RecommenderConfig(
        memory=small, block=2, exclude_seen=exclude_seen, encoder=encoder, text=TextConfig(4)
    )
    core = Recommender(config, Rehearsal(encoder))
    core.announce([Item(item_id=str(n), title="zero", category="0", price=1.0) for n in range(3)])
    query = TextVector(query_name("q"), np.ones(4, np.float32).tobytes())
    core.put_texts([query, *(TextVector(str(n), query.values) for n in range(3))])
    core.put_texts([TextVector("0", np.full(4, 0.5, np.float32).tobytes())])
    past = PastEvent("e", "click", "0", 0)
    core.restore({"0": [past], "1": [past]})
    for n in range(40):
        event = Event(event_id=str(n), type="click", user_id=str(n % 3), item_id=str(n % 7), ts=n)
        search = Event(event_id=f"q{n}", type="search", user_id=str(n % 3), query="q", ts=n)
        core.step([Delivery(event, "", 0, n, n), Delivery(search, "", 0, n, n)], n)
    core.recommend("0", 99)
    core.search(query, "q", {"1": 1.0}, "0", 99)
    core.similar("0", "both", 99)
    core._memory.expire_item()
    core._memory.drop_user("1")
