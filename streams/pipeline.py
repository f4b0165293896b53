"""The one path from raw messages to rows: stages with a thread each, and bounds between.

    messages ─► inbox ─prepare─► 1 ready ─learn─► 8 learned ─write─► 64 ─write later─► acknowledge

While batch n is being written, n+1 is learned, n+2 is prepared (decoded, its users' histories
read) and n+3 grows. The journal and the newest slates are written at once, whatever else there is a
little later and together: each insert has its price, and people wait for the first only. When the
warehouse is away, writing is tried again until it works; the queues fill, `take` waits, and Kafka
keeps what comes.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from infra.log import get_log
from infra.rows import BatchId
from infra.warehouse_types import WarehouseError
from streams.inbox import Inbox, Taken
from streams.learning import Learned, Learner, Message, Poisoned, Prepared
from streams.producer import DeliveryFailed
from streams.status import Status
from streams.topics import ITEMS, BrokerUnreachable
from streams.writing import LATER, SOON, Group, Work, Writer

log = get_log("pipeline")

WAITING = 8  # learned batches that wait to be written
WAITING_LATER = 64  # journalled batches whose other rows wait
LATER_S = 0.2  # how long slates, metrics and dead letters are collected
# An insert costs about the same for one row as for hundreds, and makes a dozen files a table. So
# after each write we rest, the longer the more came: at low rates people wait little, at high ones
# inserts are large. (What is written less often than that waits for LATER_S.)
REST_S_EACH = 0.0003  # for each event that was written, within these bounds
SHORTEST_REST_S, LONGEST_REST_S = 0.03, 0.15
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
RETRIED = (WarehouseError, DeliveryFailed, BrokerUnreachable)

T = TypeVar("T")


@dataclass(slots=True)
class Sent:
    """A batch that the core has, and whose outcome is not here yet."""

    taken: Taken
    ready: Prepared
    now_ms: int


class Pipeline:
    """Learns batches in order and writes them in order. Use from one event loop.

    `failed` is set to the error that this worker cannot live with; whoever runs it must stop then.
    """

    def __init__(
        self,
        learner: Learner,
        writer: Writer,
        status: Status,
        broker_id: str,
        batch: int = 512,
        last_batch: int = 0,
    ) -> None:
        self._learner = learner
        self._writer = writer
        self._status = status
        self._broker_id = broker_id
        self._last_batch = last_batch
        self._inbox = Inbox(batch)
        self._unwritten = 0  # calls of `take` whose messages are not written yet
        self._idle = asyncio.Event()
        self._idle.set()
        self._queue: asyncio.Queue[Work] = asyncio.Queue(WAITING)
        self._ready: asyncio.Queue[tuple[Taken, Prepared | None]] = asyncio.Queue(1)
        self._preparing = ThreadPoolExecutor(1, "prepare")
        self._learning = ThreadPoolExecutor(1, "learn")
        self._writing = ThreadPoolExecutor(1, "write")
        self._later: asyncio.Queue[Work] = asyncio.Queue(WAITING_LATER)
        self._writing_later = ThreadPoolExecutor(1, "write-later")
        self._tasks: list[asyncio.Task[None]] = []
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._prepare_all(), name="prepare"),
            asyncio.create_task(self._learn_all(), name="learn"),
            asyncio.create_task(self._write_soon(), name="write"),
            asyncio.create_task(self._write_later(), name="write_later"),
        ]

    async def take(self, messages: list[Message], written: Callable[[], None]) -> None:
        """Take messages of one topic (in order, not more than a batch); waits while busy.

        `written()` is called on the event loop when all their rows are in the warehouse.
        """
        self._unwritten += 1
        self._idle.clear()
        await self._inbox.put(messages, written)

    async def drain(self, timeout_s: float) -> bool:
        """Wait until everything taken is written; False when time ran out first."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Stop writing at once; `drain` first. What is unwritten was not acknowledged."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._preparing.shutdown(wait=False, cancel_futures=True)
        self._learning.shutdown(wait=False, cancel_futures=True)
        self._writing.shutdown(wait=False, cancel_futures=True)
        self._writing_later.shutdown(wait=False, cancel_futures=True)

    def fail(self, error: BaseException) -> None:
        """Something happened that must not be survived: say it and let the worker end."""
        if not self.failed.done():
            log.error("pipeline_failed", error=f"{type(error).__name__}: {error}")
            self.failed.set_result(error)

    async def _prepare_all(self) -> None:
        """Decode and read histories while the batch before is being learned."""
        try:
            while True:
                taken = await self._inbox.get()
                ready = None
                if taken.topic != ITEMS:
                    prepare = partial(self._learner.prepare, taken.messages)
                    ready = await self._persist("prepare", prepare, self._preparing)
                await self._ready.put((taken, ready))
        except Exception as error:
            self.fail(error)

    async def _learn_all(self) -> None:
        """Learn in order. The core gets the next batch while it works on the one before."""
        sent: collections.deque[Sent] = collections.deque()
        try:
            while True:
                if sent and (len(sent) == self._learner.ahead or self._ready.empty()):
                    await self._receive(sent)
                    continue
                taken, ready = await self._ready.get()
                if ready is not None:
                    sent.append(await self._send(taken, ready))
                    continue
                while sent:
                    await self._receive(sent)
                await self._hand_on(taken, await self._announced(taken.messages))
        except Exception as error:
            self.fail(error)

    async def _send(self, taken: Taken, ready: Prepared) -> Sent:
        sent = Sent(taken, ready, _now_ms())
        await self._in(self._learning, partial(self._learner.send, ready, sent.now_ms))
        return sent

    async def _receive(self, sent: collections.deque[Sent]) -> None:
        """Take the outcome of the batch that was sent first; if there is none, learn all anew."""
        first = sent.popleft()
        try:
            learned = await self._received(first)
            if learned is not None:
                await self._hand_on(first.taken, learned)
                return
            again = [first, *await self._refused(sent)]
        except Poisoned as poisoned:
            again = await self._refused(sent)
            await self._hand_on(first.taken, await self._rescued(poisoned))
        for one in again:
            await self._hand_on(one.taken, await self._learned(one.ready))

    async def _received(self, sent: Sent) -> Learned | None:
        receive = partial(self._learner.receive, sent.ready, sent.now_ms)
        return await self._persist("learn", receive, self._learning)

    async def _refused(self, sent: collections.deque[Sent]) -> list[Sent]:
        """What was sent after a batch that the core did not take: it refuses that as well."""
        for one in sent:
            await self._received(one)
        refused = list(sent)
        sent.clear()
        return refused

    async def _hand_on(self, taken: Taken, learned: Learned) -> None:
        # the journal's number: the time in microseconds, made to rise strictly
        self._last_batch = max(self._last_batch + 1, time.time_ns() // 1000)
        batch = BatchId(self._broker_id, self._last_batch)
        await self._queue.put(Work(learned, batch, taken.written))

    async def _learned(self, ready: Prepared) -> Learned:
        learn = partial(self._learner.learn, ready)
        try:
            return await self._persist("learn", lambda: learn(_now_ms()), self._learning)
        except Poisoned as poisoned:
            return await self._rescued(poisoned)

    async def _rescued(self, poisoned: Poisoned) -> Learned:
        await self._queue.join()  # find the culprits once all before them is written
        rescue = partial(self._learner.rescue, poisoned)
        return await self._persist("rescue", lambda: rescue(_now_ms()), self._learning)

    async def _announced(self, messages: list[Message]) -> Learned:
        announce = partial(self._learner.announce, messages)
        return await self._persist("announce", announce, self._learning)

    async def _write_soon(self) -> None:
        """Write the journal and what people wait for, in groups of what came meanwhile."""
        rested = 0.0
        try:
            while True:
                works = [await self._queue.get()]
                await asyncio.sleep(rested - time.monotonic())
                works += _waiting(self._queue)
                group = await self._written(works, SOON, self._writing)
                rested = time.monotonic() + _rest_s(works)
                for work in works:
                    self._status.wrote(work.learned, group.written_ms)
                    await self._later.put(work)
        except Exception as error:
            self.fail(error)  # what is not done stays so: `drain` must not believe otherwise

    async def _write_later(self) -> None:
        """Write the rest of what is journalled, every LATER_S; then acknowledge."""
        try:
            while True:
                works = [await self._later.get()]
                await asyncio.sleep(LATER_S)
                works += _waiting(self._later)
                await self._written(works, LATER, self._writing_later)
                for work in works:
                    self._acknowledge(work)
        except Exception as error:
            self.fail(error)

    def _acknowledge(self, work: Work) -> None:
        for written in work.written:
            written()
        self._queue.task_done()
        self._unwritten -= len(work.written)
        if not self._unwritten:
            self._idle.set()

    async def _written(
        self, works: list[Work], tables: tuple[str, ...], thread: ThreadPoolExecutor
    ) -> Group:
        group = Group(works, tables)
        stage = "write" if tables is SOON else "write_later"
        await self._persist(stage, partial(self._writer.write, group), thread)
        return group

    async def _persist(self, stage: str, call: Callable[[], T], thread: ThreadPoolExecutor) -> T:
        """Call until the warehouse answers; the time spent shows in /health."""
        started = time.monotonic()
        answer = await self._until_answered(stage, call, thread)
        self._status.spent(stage, time.monotonic() - started)
        return answer

    async def _until_answered(
        self, what: str, call: Callable[[], T], thread: ThreadPoolExecutor
    ) -> T:
        """Call until the warehouse answers. The pause grows; the state shows in /health."""
        pause_s, attempt = FIRST_PAUSE_S, 1
        while True:
            try:
                answer = await self._in(thread, call)
            except RETRIED as error:
                self._status.warehouse_fails(f"{type(error).__name__}: {error}", attempt)
                log.warning("warehouse_away", what=what, attempt=attempt, error=str(error),
                            next_try_s=pause_s)  # fmt: skip
                await asyncio.sleep(pause_s)
                pause_s, attempt = min(2 * pause_s, LONGEST_PAUSE_S), attempt + 1
            else:
                if attempt > 1:
                    log.info("warehouse_back", what=what, attempts=attempt)
                self._status.warehouse_works()
                return answer

    @staticmethod
    async def _in(thread: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, call)


def _rest_s(works: list[Work]) -> float:
    events = sum(len(work.learned.step.accepted) for work in works)
    return min(max(REST_S_EACH * events, SHORTEST_REST_S), LONGEST_REST_S)


def _waiting(queue: asyncio.Queue[Work]) -> list[Work]:
    """What waited meanwhile goes along."""
    return [queue.get_nowait() for _ in range(queue.qsize())]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
