"""The broker while the worker runs: does it answer, and is its log still the one that we read?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from infra.address import BrokerAddress
from infra.log import get_log
from streams.status import Status
from streams.topics import BrokerUnreachable, Log, log_of, takes_connections

log = get_log("worker")

CHECK_S = 3.0
VERIFY_S, AGAIN_S = 20.0, 0.5


class BrokerWatch:
    """`gone` says what became of the log that we began with; empty as long as it is there.

    Offsets mean something in one log only. A broker that lost its memory, or a topic that was
    deleted and made again, counts from 0: taken for the old one, its messages would look learned.
    """

    def __init__(self, address: BrokerAddress, status: Status, began: Log) -> None:
        self._address = address
        self._status = status
        self._began = began
        self._partitions = dict(began.partitions)
        self.gone = ""

    async def run(self, look_ahead: Callable[[], Awaitable[None]]) -> None:
        """Keep the broker's state in /health; Faust itself only goes on trying."""
        while True:
            answers = await takes_connections(self._address) and await self._compare()
            if answers and not self.gone:
                await look_ahead()
            self._found("ok" if answers else "away")
            await asyncio.sleep(CHECK_S)

    async def same_log(self) -> bool:
        """After a rebalance, before any message is taken or acknowledged."""
        deadline = time.monotonic() + VERIFY_S
        while not await self._compare():
            if time.monotonic() > deadline:
                log.warning("log_not_verified", broker=str(self._address))
                break
            await asyncio.sleep(AGAIN_S)
        return not self.gone

    async def _compare(self) -> bool:
        """False when the broker does not answer."""
        try:
            now = await asyncio.to_thread(log_of, self._address)
            if now.id != self._began.id:  # one server of a cluster may be behind for a moment
                await asyncio.sleep(AGAIN_S)
                now = await asyncio.to_thread(log_of, self._address)
        except BrokerUnreachable:
            return False
        if now.id != self._began.id:
            self.gone = f"the broker had the log {self._began.id}, and has {now.id} now"
        for topic, count in now.partitions.items():
            if count != self._partitions.get(topic):
                log.warning("partitions_changed", topic=topic, then=self._partitions.get(topic),
                            now=count, cure="none needed: they are read within 10 s")  # fmt: skip
        self._partitions = dict(now.partitions)
        self._status.broker["partitions"] = self._partitions
        return True

    def _found(self, found: str) -> None:
        if found != self._status.broker["status"]:
            log.warning("broker_state", status=found, broker=str(self._address))
            self._status.broker["status"] = found
