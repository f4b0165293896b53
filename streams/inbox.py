"""What came and is not learned yet: batches grow until the learner takes them."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable
from dataclasses import dataclass

from streams.learning import Message


@dataclass(slots=True)
class Taken:
    """Messages of one topic that are learned together, and whom to tell once they are written."""

    topic: str
    messages: list[Message]
    written: list[Callable[[], None]]


class Inbox:
    """A bounded queue that joins neighbours of one topic, so that a busy learner gets big batches.

    At most `limit` messages are in one batch, and twice as many in all.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: collections.deque[Taken] = collections.deque()
        self._size = 0
        self._came = asyncio.Event()
        self._room = asyncio.Event()

    async def put(self, messages: list[Message], written: Callable[[], None]) -> None:
        """Add messages of one topic (at most `limit`); waits while a full batch waits already."""
        while self._size >= self._limit:
            self._room.clear()
            await self._room.wait()
        self._size += len(messages)
        self._came.set()
        last = self._waiting[-1] if self._waiting else None
        if (
            last is not None
            and last.topic == messages[0].topic
            and len(last.messages) + len(messages) <= self._limit
        ):
            last.messages += messages
            last.written.append(written)
        else:
            self._waiting.append(Taken(messages[0].topic, list(messages), [written]))

    async def get(self) -> Taken:
        """The oldest batch; waits for one."""
        while not self._waiting:
            self._came.clear()
            await self._came.wait()
        taken = self._waiting.popleft()
        self._size -= len(taken.messages)
        self._room.set()
        return taken
