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
    """A bounded line for each topic, which joins neighbours: a busy learner gets big batches.

    Topics take turns, so that announcements among events neither wait behind a backlog of these
    nor cut it into small batches. At most `limit` messages are in one batch, and of a topic twice
    as many in all.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lines: dict[str, collections.deque[Taken]] = {}  # whose turn it is comes first
        self._came = asyncio.Event()
        self._room = asyncio.Event()

    async def put(self, messages: list[Message], written: Callable[[], None]) -> None:
        """Add messages of one topic (at most `limit`); waits while a full batch waits already."""
        topic = messages[0].topic
        line = self._lines.setdefault(topic, collections.deque())
        while sum(len(taken.messages) for taken in line) >= self._limit:
            self._room.clear()
            await self._room.wait()
        self._came.set()
        if line and len(line[-1].messages) + len(messages) <= self._limit:
            line[-1].messages += messages
            line[-1].written.append(written)
        else:
            line.append(Taken(topic, list(messages), [written]))

    async def get(self) -> Taken:
        """The oldest batch of the topic whose turn it is; waits for one."""
        while not any(self._lines.values()):
            self._came.clear()
            await self._came.wait()
        topic = next(topic for topic, line in self._lines.items() if line)
        line = self._lines[topic] = self._lines.pop(topic)  # the last one now
        self._room.set()
        return line.popleft()
