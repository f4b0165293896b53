"""Cores that misbehave, in this process or (by name) in one of their own."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from online.core import Recommender, RecommenderConfig
from online.events import Delivery, Item
from online.memory import MemoryConfig
from online.step import Step
from online.teaching import EncoderConfig

SMALL = RecommenderConfig(
    memory=MemoryConfig(users=10_000, items=1_000, pages=20_000, pairs=100_000, history=64),
    encoder=EncoderConfig(on=False),  # a second for each start
)
LEARNS = replace(SMALL, encoder=EncoderConfig(every=40, steps=0.1))
TOUCHY = "tests.streams.cores:Touchy"
FORGETFUL = "tests.streams.cores:Forgetful"
BABBLING = "tests.streams.cores:Babbling"


class Touchy(Recommender):
    """Some items make it slow, or raise; it has learned what came before them."""

    def step(self, batch: list[Delivery], now_ms: int) -> Step:
        for n, d in enumerate(batch):
            if d.event.item_id == "slow":
                time.sleep(0.3)
            if d.event.item_id == "poison":
                super().step(batch[:n], now_ms)
                raise ZeroDivisionError("no such thing")
            if d.event.item_id == "huge":
                raise MemoryError
        return super().step(batch, now_ms)

    def announce(self, items: Iterable[Item]) -> None:
        for item in items:
            if item.item_id == "poison":
                raise ZeroDivisionError("no such thing")
            super().announce([item])


class Forgetful(Recommender):
    """Holds no user for longer than a step, as if it had far too little memory."""

    def step(self, batch: list[Delivery], now_ms: int) -> Step:
        step = super().step(batch, now_ms)
        for user in {d.event.user_id for d in batch}:
            self._memory.drop_user(user)
        return step


class Babbling(Recommender):
    """What it says cannot be read."""

    def quality(self) -> dict[str, Any]:
        return {1: "one"}  # type: ignore[dict-item]
