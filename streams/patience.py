"""Calls that are tried again until the warehouse, the broker, or the disk, answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from infra.checkpoints import CheckpointsError
from infra.log import get_log
from infra.warehouse_types import WarehouseError
from streams.producer import DeliveryFailed
from streams.status import Status
from streams.topics import BrokerUnreachable

log = get_log("pipeline")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
RETRIED = (WarehouseError, DeliveryFailed, BrokerUnreachable, CheckpointsError)

T = TypeVar("T")


class Patience:
    """Tries again with growing pauses. /health says `away` until no stage fails any more."""

    def __init__(self, status: Status, part: str = "warehouse") -> None:
        """part: of the worker, as /health and the log name it."""
        self._status = status
        self._part = part
        self._failing: set[str] = set()

    async def until_answered(
        self, stage: str, call: Callable[[], T], thread: ThreadPoolExecutor
    ) -> T:
        pause_s, attempt = FIRST_PAUSE_S, 1
        while True:
            try:
                answer = await in_thread(thread, call)
            except RETRIED as error:
                self._failing.add(stage)
                said = f"{type(error).__name__}: {error}"
                self._status.fails(self._part, said, attempt)
                log.warning(f"{self._part}_away", what=stage, attempt=attempt, error=str(error),
                            next_try_s=pause_s)  # fmt: skip
                await asyncio.sleep(pause_s)
                pause_s, attempt = min(2 * pause_s, LONGEST_PAUSE_S), attempt + 1
            else:
                if attempt > 1:
                    self._works_again(stage, attempt)
                return answer

    def _works_again(self, stage: str, attempts: int) -> None:
        log.info(f"{self._part}_back", what=stage, attempts=attempts)
        self._failing.discard(stage)
        if not self._failing:  # reading may work while writing does not
            self._status.works(self._part)


async def in_thread(thread: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, call)
