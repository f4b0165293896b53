"""The agents: batches from Kafka into the pipeline, acknowledged in order once written.

The shape, and why nothing is lost or doubled by it: a lock for each topic, around a batch, and all
of them around a hand-over; `owned` is set while partitions are ours; `done` holds the next offset
of each partition; messages of an earlier generation of the group are left to their new owner;
every message is acknowledged, in order, after its rows are written; when partitions are taken
away, what was learned is written and committed inside the hook.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any

import faust
from faust.exceptions import ConsumerNotStarted

from infra.log import get_log
from infra.settings import Settings
from streams.learning import Message
from streams.pipeline import Pipeline
from streams.recovery import Journalled
from streams.status import Status
from streams.topics import EVENTS, ITEMS

log = get_log("agents")

LOOK_S = 2.0
ANNOUNCED_S = 0.2  # announcements are collected for so long; Faust looks that often for them
COMMIT_S = 3.0
AskJournal = Callable[[str, int, int], Journalled]  # topic, partition, first offset
CALM_S = 0.3  # nothing came for so long: it was all
HAND_OVER_S = 20.0  # a warehouse that is away must not hold up a rebalance for longer


class Intake:
    """Takes batches of Faust events into the pipeline while this worker owns their partitions."""

    def __init__(
        self, app: faust.App, pipeline: Pipeline, status: Status, journalled: AskJournal
    ) -> None:
        """journalled: what the journal knows of a partition, from an offset on."""
        self.same_log: Callable[[], Awaitable[bool]] = _assume_so
        self._journalled = journalled
        self._learned: dict[tuple[str, int], set[int]] = {}  # of these, not delivered again yet
        self.owned = asyncio.Event()
        self._app = app
        self._pipeline = pipeline
        self._status = status
        self._locks = {topic: asyncio.Lock() for topic in (EVENTS, ITEMS)}
        self._done: dict[tuple[str, int], int] = {}  # next offset of each partition
        self._bounds: dict[Any, tuple[int, int]] = {}  # first and next offset, when last asked
        self._owing: set[tuple[str, int]] = set()  # taken from us with messages unwritten
        self._generation = 0  # how often partitions came: tells a stale batch

    async def take(self, events: Sequence[Any]) -> None:
        """One batch of `noack_take`. Never raises: an agent that raises would hang the app."""
        try:
            async with self._locks[events[0].message.topic]:
                fresh = await self._unlearned(self._fresh(events))
                if fresh:
                    await self._hand_on(fresh)
        except Exception as error:
            self._pipeline.fail(error)

    async def hand_over(self, timeout_s: float = HAND_OVER_S) -> bool:
        """Take no more; write and commit what was taken. False when time ran out first.

        What was not written in time is not committed: whoever owns the partitions next gets it
        again, and we still write it when the warehouse is back.
        """
        self.owned.clear()
        try:
            async with asyncio.timeout(timeout_s):
                async with self._locks[EVENTS], self._locks[ITEMS]:
                    written = await self._pipeline.drain(timeout_s)
        except TimeoutError:
            written = False
        self._owing |= set() if written else set(self._done)
        self._done.clear()
        self._learned.clear()
        self._generation += 1
        with contextlib.suppress(TimeoutError):  # a broker that is away must not hold us either
            async with asyncio.timeout(COMMIT_S):
                await self._app.consumer.commit()
        if not written:
            log.warning("handed_over_unwritten", cure="it will be delivered again")
        return written

    def assigned(self, places: set[tuple[str, int]]) -> None:
        """These partitions are ours now."""
        if self._owing - places:
            # whoever has them learns what we hold unwritten: our core must not have learned it
            error = "partitions went to another worker while what we learned was not written yet"
            self._pipeline.fail(RuntimeError(f"{error}: start again, from the checkpoint"))
        self._owing.clear()
        self.owned.set()

    def lag(self) -> dict[str, int]:
        """Messages of each of our partitions that are not learned yet, by `topic/partition`."""
        consumer: Any = self._app.consumer
        lag: dict[str, int] = {}
        try:
            ends = {tp: consumer.highwater(tp) for tp in sorted(consumer.assignment())}
        except (ConsumerNotStarted, AssertionError):  # not joined yet, or being reassigned
            return lag
        for tp, end in ends.items():
            first, last = self._bounds.get(tp, (0, 0))
            next_offset = self._done.get((tp.topic, tp.partition))
            if next_offset is None:
                next_offset = max(first, consumer._committed_offset[tp] or 0)
            lag[f"{tp.topic}/{tp.partition}"] = max(0, max(last, end or 0) - next_offset)
        return lag

    async def look_ahead(self) -> None:
        """Ask the broker how long our partitions are: a fetch tells only of those it read."""
        consumer = self._app.consumer
        ours = consumer.assignment()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                first = await consumer.earliest_offsets(*ours)
                last = await consumer.highwaters(*ours)
                self._bounds = {tp: (first[tp] or 0, last[tp] or 0) for tp in ours}

    async def read_out(self, within_s: float) -> None:
        """Wait until all that the broker holds is taken, and a moment longer."""
        deadline = time.monotonic() + within_s
        calm_since, taken = time.monotonic(), -1
        while time.monotonic() < deadline:
            behind = sum(self.lag().values())
            if behind or taken != self._status.taken:
                calm_since, taken = time.monotonic(), self._status.taken
            elif time.monotonic() - calm_since > CALM_S:
                return
            await asyncio.sleep(0.05)
        log.warning("events_left", behind=sum(self.lag().values()),
                    cure="stop the producers first, or raise FRESHREC_SHUTDOWN_S")  # fmt: skip

    def _fresh(self, events: Sequence[Any]) -> list[Any]:
        if not self.owned.is_set():
            return []
        current, done = self._app.consumer_generation_id, self._done
        return [
            e
            for e in events
            if e.message.generation_id == current
            and e.message.offset >= done.get((e.message.topic, e.message.partition), 0)
        ]

    async def _unlearned(self, events: list[Any]) -> list[Any]:
        """Without those that were learned before a crash, or by another worker: these are done.

        The journal is asked once for each partition that comes to us, from its first offset on:
        whatever is not acknowledged is delivered again.
        """
        for topic, partition, offset in _firsts(events, self._done):
            ask = partial(self._journalled, topic, partition, offset)
            known = await self._pipeline.ask("journalled", ask)
            self._learned[topic, partition] = known.offsets
            if known.elsewhere:
                await self._pipeline.handed()
        left = []
        for e in events:
            learned = self._learned.get((e.message.topic, e.message.partition))
            if learned and e.message.offset in learned:
                learned.discard(e.message.offset)
                self._done[e.message.topic, e.message.partition] = e.message.offset + 1
                self._status.redelivered += 1
                e.ack()
            else:
                left.append(e)
        return left

    async def _hand_on(self, events: list[Any]) -> None:
        generation = self._generation
        now_ms = time.time_ns() // 1_000_000
        messages = [_message(e.message, now_ms) for e in events]

        def acknowledge() -> None:
            for event in events:
                event.ack()

        self._status.took(len(messages))
        self._status.spent("arrive", (now_ms - messages[0].produced_ms) / 1000)
        await self._pipeline.take(messages, acknowledge)
        if generation == self._generation:
            for m in messages:
                self._done[m.topic, m.partition] = m.offset + 1


async def _assume_so() -> bool:
    return True


def _firsts(events: list[Any], done: Collection[tuple[str, int]]) -> Iterator[tuple[str, int, int]]:
    """Topic, partition and first offset of partitions of `events` that are none of `done`."""
    firsts: dict[tuple[str, int], int] = {}
    for e in events:
        firsts.setdefault((e.message.topic, e.message.partition), e.message.offset)
    for (topic, partition), offset in firsts.items():
        if topic == EVENTS and (topic, partition) not in done:
            yield topic, partition, offset


def add_agents(
    app: faust.App, settings: Settings, pipeline: Pipeline, status: Status, journalled: AskJournal
) -> Intake:
    """Register the agents and the hooks of `app`; they start with it."""
    intake = Intake(app, pipeline, status, journalled)
    events = app.topic(EVENTS, key_type=bytes, value_type=bytes)
    items = app.topic(ITEMS, key_type=bytes, value_type=bytes)

    @app.agent(events, name="learn")
    async def learn(stream: Any) -> None:
        async for batch in stream.noack_take(settings.batch, within=settings.linger_ms / 1000):
            await intake.take(batch)

    @app.agent(items, name="announce")
    async def announce(stream: Any) -> None:
        async for batch in stream.noack_take(settings.batch, within=ANNOUNCED_S):
            await intake.take(batch)

    def seal(on: bool) -> None:
        consumer: Any = app.consumer
        consumer.sealed = on

    async def revoked(*_: Any, **__: Any) -> None:
        await intake.hand_over()
        seal(True)  # until the log is known to be the same

    async def assigned(*given: Any, **_: Any) -> None:  # the app, the partitions
        log.info("partitions_assigned", count=len(given[1]))
        intake.assigned({(tp.topic, tp.partition) for tp in given[1]})

    async def complete(*_: Any, **__: Any) -> None:  # no message flows before this is done
        if await intake.same_log():
            seal(False)
        else:
            intake.owned.clear()

    async def before_shutdown(*_: Any, **__: Any) -> None:
        await intake.hand_over(settings.shutdown_s / 2)

    app.on_partitions_revoked.connect(revoked)
    app.on_partitions_assigned.connect(assigned)
    app.on_rebalance_complete.connect(complete)
    app.on_before_shutdown.connect(before_shutdown)
    return intake


def _message(m: Any, now_ms: int) -> Message:
    given = -1 if m.timestamp is None else round(m.timestamp * 1000)
    # a producer's clock may be ahead; unbounded, its slates would stay the newest for ever
    produced_ms = min(max(given, -1), now_ms)
    return Message(m.topic, m.partition, m.offset, produced_ms, m.key, m.value)
