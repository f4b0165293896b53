"""The one path from raw messages to rows: stages with a thread each, and bounds between.

    messages ─► inbox ─prepare─► 1 ready ─learn─► 16 MB ─write─► 64 MB ─write later─► acknowledge

While batch n is being written, n+1 is learned, n+2 is prepared (decoded, its users' histories
read) and n+3 grows. The journal and the newest slates are written at once, whatever else there is a
little later and together: each insert has its price, and people wait for the first only. When the
warehouse is away, writing is tried again until it works; the queues fill, `take` waits, and Kafka
keeps what comes.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeVar

from infra.log import get_log
from infra.rows import SHARD_MASK, BatchId, next_batch
from online.events import Item
from streams.inbox import Inbox, Taken
from streams.keeping import Held, Keeper, Position
from streams.learning import Learned, Learner, Message, Prepared
from streams.patience import Patience, in_thread
from streams.sharing import Sharing
from streams.status import Status
from streams.topics import EVENTS, ITEMS
from streams.underway import UnderWay
from streams.waiting import Waiting
from streams.writing import LATER, SOON, Group, Work, Writer

log = get_log("pipeline")

WAITING = 16_000_000  # bytes, about, of learned batches that wait to be written
WAITING_LATER = 64_000_000  # of journalled batches whose other rows wait
TEXTS_AT_ONCE = 64  # that are read before the core is told of them
COLLECTED_S = 0.2  # how long a few texts wait for more: each reading has its price, too
LATER_S = 0.5  # how long slates, metrics and dead letters are collected
# An insert costs about the same for one row as for hundreds, and makes a dozen files a table, which
# are merged later: 27 ms of processor time for each group, measured. So after each write we rest:
# the longer the more came, since then more comes meanwhile (at 500 events a second, five groups
# take .14 of a processor, ten .26), and the longer the more it took.
REST_S_EACH = 0.002  # for each event that was written, and
REST_PER_S = 1.0  # for each second that writing took, whichever is more, within these bounds
SHORTEST_REST_S, LONGEST_REST_S = 0.08, 0.2

T = TypeVar("T")


class Ready(NamedTuple):
    """Messages to learn; `prepared` None: announcements."""

    taken: Taken
    prepared: Prepared | None


class Overheard(NamedTuple):
    """What other workers told: partition, offset and value of each record."""

    records: list[tuple[int, int, bytes]]


class Read(NamedTuple):
    """What the texts of some items say: the core must be told."""

    learned: Learned
    items: int


class Handed(NamedTuple):
    """Users came to us whom others have served since: the core must hold nobody."""


Task = Ready | Overheard | Handed | Read


class Pipeline:
    """Learns batches in order and writes them in order. Use from one event loop.

    `failed` is set to the error that this worker cannot live with; whoever runs it must stop then.
    """

    def __init__(
        self,
        learner: Learner,
        writer: Writer,
        status: Status,
        keeper: Keeper,
        broker_id: str,
        batch: int = 512,
        last_batch: int = 0,
        sharing: Sharing | None = None,
    ) -> None:
        """last_batch: the number of the journal's newest; its last bits name our shard."""
        self._learner = learner
        self._writer = writer
        self._status = status
        self._patience = Patience(status)
        self._keeper = keeper
        self._offsets: dict[str, int] = {}  # the next one of each partition, of what was learned
        self._broker_id = broker_id
        self._last_batch = last_batch
        self._inbox = Inbox(batch)
        self._unwritten = 0  # calls of `take` whose messages are not written yet
        self._idle = asyncio.Event()
        self._idle.set()
        self._queue = Waiting(WAITING)  # `join` waits until all of it is journalled
        self._ready: asyncio.Queue[Task] = asyncio.Queue(1)
        self._unread: dict[str, Item] = {}  # whose texts are to be read, the newest of each
        self._to_read = asyncio.Event()
        self._texts_read = 0
        self.catalogue_changed: Callable[[list[Item], list[str]], None] = lambda items, gone: None
        self._sharing = sharing
        self._untold: asyncio.Queue[Work] = asyncio.Queue()  # `_later` has them too: that bounds it
        self._preparing = ThreadPoolExecutor(1, "prepare")
        self._learning = ThreadPoolExecutor(1, "learn")
        self._under_way = UnderWay(
            learner, status, self._patience, self._learning, self._hand_on, self._queue.join
        )
        self._writing = ThreadPoolExecutor(1, "write")
        self._later = Waiting(WAITING_LATER)
        self._writing_later = ThreadPoolExecutor(1, "write-later")
        self.journalled: Callable[[Work], None] = lambda work: None
        self._telling = ThreadPoolExecutor(1, "tell")
        self._reading = ThreadPoolExecutor(1, "read-texts")
        self._tasks: list[asyncio.Task[None]] = []
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._prepare_all(), name="prepare"),
            asyncio.create_task(self._learn_all(), name="learn"),
            asyncio.create_task(self._write_soon(), name="write"),
            asyncio.create_task(self._write_later(), name="write_later"),
            asyncio.create_task(self._keep(), name="keep"),
            asyncio.create_task(self._read_texts(), name="read_texts"),
        ]
        if self._sharing is not None:
            self._tasks += [
                asyncio.create_task(self._tell_all(self._sharing), name="tell"),
                asyncio.create_task(self._listen(self._sharing), name="listen"),
            ]

    async def take(self, messages: list[Message], written: Callable[[], None]) -> None:
        """Take messages of one topic (in order, not more than a batch); waits while busy.

        `written()` is called on the event loop when all their rows are in the warehouse.
        """
        self._unwritten += 1
        self._idle.clear()
        await self._inbox.put(messages, written)

    async def drain(self, timeout_s: float) -> bool:
        """Wait until everything taken is written and marked; False when time ran out first."""
        self._keeper.hurry()
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        finally:
            self._keeper.hurry(False)
        return True

    async def ask(self, stage: str, call: Callable[[], T]) -> T:
        """Ask the warehouse something that a batch needs, until it answers."""
        return await self._persist(stage, call, self._preparing)

    def read(self, items: Iterable[Item]) -> None:
        """Have the texts of these items read, when there is time and a language model."""
        if self._learner.texts is None:
            return
        self._unread.update({item.item_id: item for item in items})
        if self._unread:
            self._to_read.set()

    def texts(self) -> dict[str, int]:
        """How many items' texts the core was told of since the start, and how many wait."""
        return {"read": self._texts_read, "waiting": len(self._unread)}

    async def wake(self) -> None:
        """Let the core's thread look around, though nothing comes: it is given an empty batch."""
        if self._ready.empty() and not self._under_way:
            await self._ready.put(Ready(Taken(EVENTS, [], []), Prepared()))

    async def keep_last(self, within_s: float) -> None:
        """Keep the core's state once more, when everything is written: the next start is quick."""
        if not self._idle.is_set():  # something may be under way
            log.warning("last_state_not_kept", cure="the next start goes on from the journal")
            return
        await self._keeper.last(self._position(), within_s)

    def _position(self) -> Position:
        """Where we are in the journal, in the log, and in what others told."""
        heard = self._sharing.heard if self._sharing is not None else None
        return Position(
            self._last_batch,
            dict(self._offsets),
            dict(heard.batches) if heard else {},
            dict(heard.offsets) if heard else {},
        )

    async def handed(self) -> None:
        """Partitions came to us that others have served since."""
        await self._ready.put(Handed())

    async def stop(self) -> None:
        """Stop writing at once; `drain` first. What is unwritten was not acknowledged."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._preparing.shutdown(wait=False, cancel_futures=True)
        self._learning.shutdown(wait=False, cancel_futures=True)
        self._writing.shutdown(wait=False, cancel_futures=True)
        self._writing_later.shutdown(wait=False, cancel_futures=True)
        self._telling.shutdown(wait=False, cancel_futures=True)
        self._reading.shutdown(wait=False, cancel_futures=True)
        if self._sharing is not None:
            self._sharing.listener.close()
        self._keeper.stop()

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
                await self._ready.put(Ready(taken, ready))
        except Exception as error:
            self.fail(error)

    async def _learn_all(self) -> None:
        """Learn in order. The core gets the next batch while it works on the one before."""
        under_way = self._under_way
        try:
            while True:
                if self._keeper.due():
                    await self._under_way.receive_all()
                    begin = partial(self._keeper.begin, self._position())
                    await in_thread(self._learning, begin)
                if under_way and (under_way.full or self._ready.empty()):
                    await under_way.receive()
                    continue
                await self._take_up(await self._ready.get())
        except Exception as error:
            self.fail(error)

    async def _take_up(self, what: Task) -> None:
        if isinstance(what, Overheard):
            await self._hear(what)
        elif isinstance(what, Read):
            await self._under_way.understand(what.learned)
            self._texts_read += what.items
        elif isinstance(what, Handed):
            await self._under_way.receive_all()
            await in_thread(self._learning, self._learner.drop_users)
        elif what.prepared is not None:
            await self._under_way.send(what.taken, what.prepared)
        else:
            await self._under_way.change(what.taken)

    def _changed(self, newest: dict[str, Item | None]) -> None:
        """These items are new, other ones or gone: search must know, and texts are to be read."""
        items = [item for item in newest.values() if item is not None]
        gone = [item_id for item_id, item in newest.items() if item is None]
        for item_id in gone:
            self._unread.pop(item_id, None)
        self.catalogue_changed(items, gone)
        self.read(items)

    async def _read_texts(self) -> None:
        """Read texts a few at a time, beside everything else."""
        try:
            while self._learner.texts is not None:
                await self._to_read.wait()
                if len(self._unread) < TEXTS_AT_ONCE:
                    await asyncio.sleep(COLLECTED_S)
                names = list(itertools.islice(self._unread, TEXTS_AT_ONCE))
                items = [self._unread.pop(name) for name in names]
                if not self._unread:
                    self._to_read.clear()
                read = partial(self._learner.read, items)
                learned = await self._persist("read_texts", read, self._reading)
                await self._ready.put(Read(learned, len(items)))
        except Exception as error:
            self.fail(error)

    async def _hear(self, what: Overheard) -> None:
        assert self._sharing is not None
        if not self._learner.attentive:
            await self._under_way.receive_all()
        heard = self._sharing.heard
        before = heard.events
        await in_thread(self._learning, partial(self._learner.hear, heard, what.records))
        self._keeper.heard(heard.events - before)
        told = heard.take_catalogue()
        if told:
            self._changed(told)

    async def _hand_on(self, taken: Taken, learned: Learned) -> None:
        if learned.announcements:
            self._changed({a.item_id: a.item for a in learned.announcements})
        shard = self._last_batch & SHARD_MASK
        self._last_batch = next_batch(self._last_batch, time.time_ns() // 1000, shard)
        batch = BatchId(self._broker_id, self._last_batch)
        offsets = {f"{m.topic}/{m.partition}": m.offset + 1 for m in taken.messages}
        self._offsets |= offsets
        self._keeper.learned(len(learned.step.accepted))
        await self._queue.put(Work(learned, batch, taken.written, offsets))

    async def _write_soon(self) -> None:
        """Write the journal and what people wait for, in groups of what came meanwhile."""
        rested = 0.0
        try:
            while True:
                works = [await self._queue.get()]
                await asyncio.sleep(rested - time.monotonic())
                works += self._queue.get_all()
                began = time.monotonic()
                group = await self._written(works, SOON, self._writing)
                rested = time.monotonic() + _rest_s(works, time.monotonic() - began)
                for work in works:
                    self._status.wrote(work.learned, group.written_ms)
                    self._learner.journalled(work.learned)
                    self.journalled(work)
                    self._queue.task_done()
                for work in works:
                    if self._sharing is not None:
                        self._untold.put_nowait(work)
                    await self._later.put(work)
        except Exception as error:
            self.fail(error)  # what is not done stays so: `drain` must not believe otherwise

    async def _write_later(self) -> None:
        """Write the rest of what is journalled, every LATER_S; the keeper acknowledges it."""
        try:
            while True:
                works = [await self._later.get()]
                await asyncio.sleep(LATER_S)
                works += self._later.get_all()
                await self._written(works, LATER, self._writing_later)
                for work in works:
                    if self._sharing is not None:
                        await work.told.wait()
                    await self._keeper.wrote(self._held(work))
        except Exception as error:
            self.fail(error)

    async def _tell_all(self, sharing: Sharing) -> None:
        """Tell the others what is journalled."""
        try:
            while True:
                works = [await self._untold.get()]
                while not self._untold.empty():
                    works.append(self._untold.get_nowait())
                tell = partial(sharing.speaker.tell, works)
                await self._persist("tell", tell, self._telling)
                for work in works:
                    work.told.set()
        except Exception as error:
            self.fail(error)

    async def _listen(self, sharing: Sharing) -> None:
        """Take in what the others tell, as fast as the core takes it."""
        patience = Patience(self._status, "broker")
        listener = sharing.listener
        try:
            while True:
                records = await patience.until_answered("listen", listener.poll, listener.thread)
                if records:
                    await self._ready.put(Overheard(records))
        except Exception as error:
            self.fail(error)

    async def _keep(self) -> None:
        try:
            await self._keeper.run()
        except Exception as error:
            self.fail(error)

    def _held(self, work: Work) -> Held:
        written = work.written  # not the work: its rows are of no use any more

        def acknowledge() -> None:
            for each in written:
                each()
            self._unwritten -= len(written)
            if not self._unwritten:
                self._idle.set()

        return Held(work.batch.batch, work.offsets, work.learned.messages, acknowledge)

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
        answer = await self._patience.until_answered(stage, call, thread)
        self._status.spent(stage, time.monotonic() - started)
        return answer


def _rest_s(works: list[Work], took_s: float) -> float:
    events = sum(len(work.learned.step.accepted) for work in works)
    rest = max(REST_S_EACH * events, REST_PER_S * took_s, SHORTEST_REST_S)
    return min(rest, LONGEST_REST_S)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
