"""What the core was sent and has not answered yet, in order; and what follows if it refuses.

The core gets the next batch while it works on the one before. When it cannot take one (it lacks a
history, or it raised), it refuses what was sent after it, and all of it is learned anew, in order.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeVar

from streams.core_protocol import AHEAD
from streams.inbox import Taken
from streams.learning import Changing, Learned, Learner, Poisoned, Prepared
from streams.patience import Patience, in_thread
from streams.status import Status
from streams.topics import ITEMS

MOST_CHANGES = AHEAD  # of the catalogue, whose outcome is not here yet
CHANGE_BYTES = 16_000_000  # of one of them, about: far below what one message may have

T = TypeVar("T")


class Sent(NamedTuple):
    """A batch that the core has, and whose outcome is not here yet."""

    taken: Taken
    ready: Prepared


class Understood(NamedTuple):
    """What the core was told of texts, after batches whose outcome is not here yet."""

    learned: Learned


class Changed(NamedTuple):
    """What the core was told of the catalogue, and has not answered yet."""

    taken: Taken
    changing: Changing


class UnderWay:
    """Sends batches to the core and hands on what becomes of them. Use from one event loop."""

    def __init__(
        self, learner: Learner, status: Status, patience: Patience, thread: ThreadPoolExecutor,
        hand_on: Callable[[Taken, Learned], Awaitable[None]],
        journalled: Callable[[], Awaitable[None]],
    ) -> None:  # fmt: skip
        """hand_on: is given what was learned, in order; journalled: waits until all that was
        handed on is in the journal; thread: the core's."""
        self._learner = learner
        self._status = status
        self._patience = patience
        self._thread = thread
        self._hand_on = hand_on
        self._journalled = journalled
        self._sent: collections.deque[Sent | Understood | Changed] = collections.deque()

    def __bool__(self) -> bool:
        return bool(self._sent)

    @property
    def full(self) -> bool:
        """May no more batches be sent?"""
        return self._count(Sent) == self._learner.ahead

    def _count(self, kind: type) -> int:
        return sum(isinstance(one, kind) for one in self._sent)

    async def send(self, taken: Taken, ready: Prepared) -> None:
        """Have the core learn a batch."""
        one = Sent(taken, ready)
        try:
            await in_thread(self._thread, partial(self._learner.send, one.ready, _now_ms()))
        except Poisoned as poisoned:  # the core does not have it, but those before
            await self.receive_all()
            await self._hand_on(one.taken, await self._rescued(poisoned))
        else:
            self._sent.append(one)

    async def understand(self, learned: Learned) -> None:
        """Tell the core what texts say, after what it was sent; it is journalled in its turn."""
        if self._learner.ahead == 1 or not self._learner.attentive:
            await self.receive_all()  # a core in our process steps when it is asked for it
        await in_thread(self._thread, partial(self._learner.understand, learned))
        self._sent.append(Understood(learned))

    async def change(self, taken: Taken) -> None:
        """Tell the core what is new in the catalogue, after what it was sent."""
        for part in _portions(taken):
            while self._sent and (self._learner.ahead == 1 or self._count(Changed) >= MOST_CHANGES):
                await self.receive()
            send = partial(self._learner.send_changes, part.messages)
            self._sent.append(Changed(part, await in_thread(self._thread, send)))

    async def receive_all(self) -> None:
        while self._sent:
            await self.receive()

    async def receive(self) -> None:
        """Take the outcome of the batch that was sent first; if there is none, learn all anew."""
        first = self._sent.popleft()
        if not isinstance(first, Sent):
            await self._told(first)
            return
        try:
            learned = await self._received(first)
            if learned is not None:
                await self._hand_on(first.taken, learned)
                return
            again = [first, *await self._refused()]
        except Poisoned as poisoned:
            again = await self._refused()
            await self._hand_on(first.taken, await self._rescued(poisoned))
        for one in again:
            await self._hand_on(one.taken, await self._learned(one.ready))

    async def _received(self, one: Sent) -> Learned | None:
        started = time.monotonic()
        learned = await in_thread(self._thread, partial(self._learner.receive, one.ready))
        if learned is not None:  # otherwise its time is yet to come
            self._status.spent("learn", time.monotonic() - started)
        return learned

    async def _told(self, one: Understood | Changed) -> None:
        """Hand on what the core was told between batches."""
        if isinstance(one, Understood):
            await self._hand_on(Taken(ITEMS, [], []), one.learned)
            return
        started = time.monotonic()
        received = partial(self._learner.receive_changes, one.changing)
        learned = await in_thread(self._thread, received)
        self._status.spent("announce", time.monotonic() - started)
        await self._hand_on(one.taken, learned)

    async def _refused(self) -> list[Sent]:
        """What was sent after a batch that the core did not take: it refuses that as well. What
        it was told of texts and of the catalogue it took, and knows before it learns the batch
        after all."""
        refused = []
        while self._sent:
            one = self._sent.popleft()
            if not isinstance(one, Sent):
                await self._told(one)
                continue
            if one.ready.batch and await self._received(one) is not None:
                # its events are learned in the wrong order: they must be neither written nor lost
                raise RuntimeError("the core stepped a batch after one that it had refused")
            refused.append(one)
        return refused

    async def _learned(self, ready: Prepared) -> Learned:
        await self._journalled()  # histories that are read now must have all events before these
        learn = partial(self._learner.learn, ready)
        try:
            return await self._persist("learn", lambda: learn(_now_ms()))
        except Poisoned as poisoned:
            return await self._rescued(poisoned)

    async def _rescued(self, poisoned: Poisoned) -> Learned:
        await self._journalled()  # find the culprits once all before them is journalled
        rescue = partial(self._learner.rescue, poisoned)
        return await self._persist("rescue", lambda: rescue(_now_ms()))

    async def _persist(self, stage: str, call: Callable[[], T]) -> T:
        """Call until the warehouse answers; the time spent shows in /health."""
        started = time.monotonic()
        answer = await self._patience.until_answered(stage, call, self._thread)
        self._status.spent(stage, time.monotonic() - started)
        return answer


def _portions(taken: Taken) -> Iterator[Taken]:
    """Parts of a batch of changes that are no longer than what is sent at once."""
    part, size = Taken(taken.topic, [], []), 0
    for message in taken.messages:
        length = len(message.value or b"")
        if part.messages and size + length > CHANGE_BYTES:
            yield part
            part, size = Taken(taken.topic, [], []), 0
        part.messages.append(message)
        size += length
    part.written = taken.written
    yield part


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
