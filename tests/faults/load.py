"""Events that a thread sends, so many a second, while a fault happens."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from infra.address import BrokerAddress
from streams.producer import EventProducer
from tests.faults.shop import Shop, events
from tests.streams.worker_process import WorkerProcess

EVERY_S = 0.02


class Load:
    """Sends from `with` to `stop`, which says how many events the broker confirmed."""

    def __init__(
        self, address: BrokerAddress, rate: int, seed: int = 1, patience_s: float = 30.0
    ) -> None:
        """patience_s: how long the broker may be away."""
        self._producer = EventProducer(address, delivery_timeout_s=patience_s)
        self._events = events(10**9, seed)
        self._rate = rate
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self.sent = 0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._enough.set()

    def stop(self) -> int:
        self._enough.set()
        self._thread.join()
        delivered = self._producer.flush()
        self._producer.close()
        assert delivered.ok and delivered.sent == self.sent, delivered
        return self.sent

    def _send(self) -> None:
        began = time.monotonic()
        while not self._enough.wait(EVERY_S):
            due = int((time.monotonic() - began) * self._rate) - self.sent
            for _ in range(min(due, self._rate)):  # after a pause it does not make up for all
                self._producer.send(next(self._events))
                self.sent += 1


def journal(shop: Shop) -> tuple[int, int, int]:
    """Events in the warehouse: all, different ones; and dead letters."""
    warehouse = shop.warehouse()
    try:
        ((rows, distinct),) = warehouse.query(
            "SELECT count(), uniqExact(event_id) FROM live_events"
        ).rows
        ((letters,),) = warehouse.query("SELECT count() FROM live_dead_letters").rows
    finally:
        warehouse.close()
    return rows, distinct, letters


def nothing_lost_or_doubled(
    shop: Shop, worker: WorkerProcess, sent: int, within_s: float = 60.0
) -> None:
    """Once all that was sent is there, and the worker has stopped: nothing more is.

    Every event that `Load` sends is measured, so metrics count them as well.
    """
    deadline = time.monotonic() + within_s
    while journal(shop)[1] < sent and time.monotonic() < deadline:
        assert worker.alive(), worker.words()
        time.sleep(0.1)
    health = worker.health()
    assert worker.stop() == 0, worker.words()
    assert journal(shop) == (sent, sent, 0), f"{health} {worker.words()}"
    measured = "SELECT sum(count) FROM metrics FINAL WHERE name = 'hr@10'"
    assert shop.server.run(measured.replace("metrics", f"{shop.database}.metrics")) == [(sent,)]
