"""Faust's Kafka consumer with six changes, three for speed. All that we change in Faust is here.

1. `fetch_max_wait_ms` comes from the settings. Faust 0.15.3 hard-codes 1500, and a broker may hold
   a fetch back for that long: it alone decides how fresh recommendations are.
2. Faust hands each message to the stream through `Service.wait_first`, which makes four asyncio
   tasks a message in case the hand-over blocks. While the stream's queue has room it cannot
   block, so it is awaited directly; otherwise Faust's own way is taken.
3. When a stream's queue is full Faust asks for the other partitions' messages only, and waits a
   second for them, or just sleeps for one, also when the queue has long drained. Under load the
   worker idled for a quarter of the time. We look again after BUFFERED_S.
4. `sealed`: nothing is committed. After a rebalance the broker may have another log, in which
   old offsets would skip messages.
5. What a fetch brings that began before a rebalance is fetched again. Faust drops it, and seeks
   back only in partitions of which something was committed: of others it was lost until the next
   start, and after that if later messages had been committed.
6. Faust looks now and then whether partitions are read. One that was just assigned has no position
   yet, and to look at it ended the consumer, and with it the worker.

`tests/streams/test_consumer.py` fails when Faust changes what these rest upon.
"""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine, Mapping
from typing import Any, ClassVar

import aiokafka
from aiokafka.errors import IllegalStateError
from aiokafka.structs import TopicPartition
from faust.transport.consumer import RecordMap
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP
from mode.services import WaitResults

BUFFERED_S = 0.02


class FreshConsumerThread(AIOKafkaConsumerThread):
    """Asks the broker to answer fetches early."""

    def _create_worker_consumer(self, transport: Transport) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = transport.fetch_max_wait_ms  # type: ignore[attr-defined]
        return consumer

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """To the beginning of partitions of which nothing was committed."""
        found: Mapping[TP, int] = await super().seek_to_committed()
        never = [tp for tp, offset in found.items() if not offset]
        if never:
            with contextlib.suppress(IllegalStateError):  # taken away meanwhile
                await self.seek_to_beginning(*never)
        return found

    def verify_event_path(self, now: float, tp: TP) -> None:
        """As Faust does, of a partition that has a position; others are looked at next time."""
        subscription = self._ensure_consumer()._fetcher._subscriptions.subscription
        assignment = subscription.assignment if subscription is not None else None
        state = assignment.state_value(TopicPartition(*tp)) if assignment is not None else None
        if state is not None and state.has_valid_position:
            # its own look may come after the consumer's thread has taken the partition away
            with contextlib.suppress(AssertionError, AttributeError):
                super().verify_event_path(now, tp)


class FreshConsumer(Consumer):
    """Delivers messages without making tasks while nothing can block."""

    sealed = False

    async def commit(self, *arguments: Any, **options: Any) -> bool:
        return not self.sealed and await super().commit(*arguments, **options)

    def _new_consumer_thread(self) -> FreshConsumerThread:
        return FreshConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def wait_first(self, *coros: Any, timeout: Any = None) -> WaitResults:  # noqa: ASYNC109
        # only the drain loop passes two: the delivery, and the wait for suspended flow
        if timeout is None and len(coros) == 2 and self._delivers_at_once(coros[0]):
            deliver, suspended = coros
            suspended.close()
            await deliver
            return WaitResults([deliver], [None], False)
        return await super().wait_first(*coros, timeout=timeout)

    async def _wait_next_records(
        self,
        timeout: float,  # noqa: ASYNC109
    ) -> tuple[RecordMap | None, set[TP] | None]:
        generation = self.app.consumer_generation_id
        records, active = await self._next_records(timeout)
        if not records or not self.flow_active:  # then Faust seeks
            return records, active
        wanted = records.keys() if active is None else active | self._buffered_partitions
        if generation == self.app.consumer_generation_id and records.keys() <= wanted:
            return records, active
        with contextlib.suppress(IllegalStateError):  # one more rebalance
            await self.perform_seek()
        return {}, active

    async def _next_records(
        self,
        timeout: float,  # noqa: ASYNC109
    ) -> tuple[RecordMap | None, set[TP] | None]:
        # While flow is suspended (a rebalance) Faust's own way waits for its end. If we came back
        # before, it would seek to the committed offsets each time.
        if not self.flow_active or not self._buffered_partitions:
            return await super()._wait_next_records(timeout)
        if self._get_active_partitions():
            return await super()._wait_next_records(min(timeout, BUFFERED_S))
        await self.sleep(BUFFERED_S)
        return {}, set()

    def _delivers_at_once(self, deliver: Any) -> bool:
        """Whether a delivery ends without waiting: flow is active and no stream's queue is full."""
        return (
            isinstance(deliver, Coroutine)
            and self.flow_active
            and self.app.flow_control.is_active()
            and not any(topic.queue.full() for topic in self.app.topics)
        )


class FreshTransport(Transport):
    """Makes our consumers; set `fetch_max_wait_ms` before the app starts."""

    Consumer: ClassVar[type[FreshConsumer]] = FreshConsumer
    fetch_max_wait_ms: int
