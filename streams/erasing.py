"""Forgetting users for good, while the worker runs: states first, then rows, then the record.

`forget` is learned and journalled        its row in `events` is the queue: it goes last
a state of the core that knows it is kept, all older ones are dropped
`erasures` says up to when all is forgotten, and how many rows there were
rows are deleted from every table          a start after a crash begins again from the top
`erasures` says when it was done
some seconds later the row of the `forget` event is deleted, too: other workers have seen it
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol, TypeVar

from infra import erasing
from infra.erasing import Erasure, Forget
from infra.erasures import Erasures
from infra.log import get_log
from infra.warehouse_types import Warehouse
from online.told import SHADOW
from streams.keeping import Keeper
from streams.patience import Patience
from streams.producer import Producer
from streams.status import Status
from streams.writing import Work

log = get_log("erasures")

LOOK_S = 2.0  # how often a worker looks for what others erased
SETTLE_S = 3 * LOOK_S  # for which the `forget` itself stays after all else is gone
MOST_WAITING = 10_000  # more are read from the journal once these are done

T = TypeVar("T")


class Holds(Protocol):
    """A core that can be asked whom it holds: `streams.core_process.CoreProcess`."""

    def held(self) -> list[str]: ...
    def release(self, users: Iterable[str]) -> None: ...


def release_forgotten(core: Holds, erasures: Erasures) -> int:
    """Have the core let go of everybody who was ever forgotten; how many.

    Their histories are read again, from the `forget` on, when they are back.
    """
    held = core.held() if erasures.any else []
    names = erasures.moments({name.removeprefix(SHADOW) for name in held})
    forgotten = [name for name in held if name.removeprefix(SHADOW) in names]
    if forgotten:
        core.release(forgotten)
    return len(forgotten)


class Eraser:
    """Erasures of one worker. Use from one event loop; `run` until cancelled."""

    def __init__(
        self, warehouse: Warehouse, erasures: Erasures, core: Holds, keeper: Keeper,
        wake: Callable[[], Awaitable[None]], status: Status, newest_batch: int = 0,
        renew: bool = False, slates: Producer | None = None,
    ) -> None:  # fmt: skip
        """renew: the states that are there hold somebody who was forgotten; newest_batch: in the
        journal; slates: where tombstones go, if slates are published."""
        self._warehouse = warehouse
        self._erasures = erasures
        self._core = core
        self._keeper = keeper
        self._wake = wake
        self._status = status
        self._patience = Patience(status)
        self._thread = ThreadPoolExecutor(1, "erase")
        self._newest_batch = newest_batch
        self._renew = renew
        self._slates = slates
        self._waiting: dict[tuple[str, str, int, int], Forget] = {}
        self._more = True  # there may be some in the journal that do not wait here
        self._came = asyncio.Event()
        self._leaving: list[tuple[float, list[Forget]]] = []  # from when on
        self._others = False  # were some forgotten by other workers, whom our core may hold?

    def journalled(self, work: Work) -> None:
        """Look for `forget` events in a batch that is in the warehouse."""
        broker_id, batch = work.batch
        for position, d in enumerate(work.learned.step.accepted):
            if d.event.type == "forget":
                e = d.event
                self._add(Forget(e.user_id, e.event_id, e.ts, broker_id, d.topic, d.partition,
                                 d.offset, d.produced_ms, batch, position))  # fmt: skip

    def _add(self, forget: Forget) -> None:
        if len(self._waiting) < MOST_WAITING:
            self._waiting[forget.place] = forget
        else:
            self._more = True
        self._came.set()

    async def run(self) -> None:
        self._keeper.before_state = self._release
        try:
            while True:
                await self._look()
                await self._finish()
                if self._waiting or self._renew:
                    await self._erase()
                    continue
                self._came.clear()
                try:
                    await asyncio.wait_for(self._came.wait(), LOOK_S)
                except TimeoutError:
                    pass
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _look(self) -> None:
        """See what other workers erased, and what waits in the journal."""
        if await self._ask("erasures", self._erasures.refresh):
            self._others = self._renew = True
        if self._more and not self._waiting:
            self._more = False
            left = {forget.place for _, group in self._leaving for forget in group}
            for forget in await self._ask("pending", partial(erasing.pending, self._warehouse)):
                if forget.place not in left:
                    self._add(forget)
                    self._newest_batch = max(self._newest_batch, forget.batch)
        self._count()

    async def _erase(self) -> None:
        group = list(self._waiting.values())[: erasing.AT_ONCE]
        began = time.monotonic()
        self._renew = False
        newest = max([self._newest_batch, *(forget.batch for forget in group)])
        await self._keeper.renew(newest, self._wake)
        if not group:
            return
        begin = partial(erasing.begin, self._warehouse, self._erasures, group)
        begun = await self._ask("erase", begin)
        for one in begun:
            self._erasures.add(self._erasures.hash(one.forget.user_id), one.ts)
        await self._ask("erase", partial(erasing.erase, self._warehouse, group))
        await self._ask("tombstones", partial(self._withdraw, group))
        await self._record(begun)
        for forget in group:
            self._waiting.pop(forget.place, None)
        self._leaving.append((time.monotonic() + SETTLE_S, group))
        self._status.erasures["done"] += len(group)
        self._count()
        log.info("users_forgotten", users=len(group), seconds=round(time.monotonic() - began, 1),
                 rows=sum(sum(one.counts) for one in begun))  # fmt: skip

    async def _record(self, begun: list[Erasure]) -> None:
        done_ms = time.time_ns() // 1_000_000
        done = [one._replace(done_ms=done_ms) for one in begun if not one.done_ms]
        record = partial(erasing.record, self._warehouse, self._erasures, done)
        await self._ask("erase", record)

    async def _finish(self) -> None:
        """Delete the `forget` events of what was done some time ago."""
        while self._leaving and self._leaving[0][0] <= time.monotonic():
            _, group = self._leaving[0]
            await self._ask("erase", partial(erasing.finish, self._warehouse, group))
            del self._leaving[0]

    def _release(self) -> None:
        """Before each state. In the core's thread: nothing is under way."""
        if self._others:
            self._others = False
            released = release_forgotten(self._core, self._erasures)
            log.info("forgotten_by_others", users=released)

    def _withdraw(self, group: list[Forget]) -> None:
        """Tombstones for the slates of those who have no newer one."""
        if self._slates is None:
            return
        for forget in group:
            if not erasing.is_back(self._warehouse, forget.user_id):
                self._slates.send_raw(forget.user_id.encode(), None)
        self._slates.confirm()

    def _count(self) -> None:
        self._status.erasures["pending"] = len(self._waiting)

    async def _ask(self, stage: str, call: Callable[[], T]) -> T:
        return await self._patience.until_answered(stage, call, self._thread)
