"""The demo's producer: a log into Kafka, first as fast as the worker learns, then steadily."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from infra.address import BrokerAddress
from online.events import Event
from streams.producer import EventProducer

AHEAD = 8_192  # events that the broker may hold before the worker has written them
STEADY_PER_S = 500  # at most
STEADY_SHARE = 0.6  # of the speed just measured: freshness is not to be that of an overload
CATCH_UP_S = 120.0  # how long the steady part waits for the worker to catch up


class Feed(threading.Thread):
    """Sends `events` in order; the last `steady` of them at 500 a second, or what is sustainable.

    `written` tells how many are readable in the warehouse. `sent` counts what the broker was
    handed; `per_second` is the speed of the first part, `steady_per_s` that of the second, which
    began at `steady_since_ms`; `error` is what went wrong. The thread ends when all is confirmed,
    on the first error, or after `stop()`.
    """

    def __init__(
        self,
        broker: BrokerAddress,
        events: Sequence[Event],
        steady: int,
        written: Callable[[], int],
    ) -> None:
        super().__init__(name="demo-feed", daemon=True)
        self.sent = 0
        self.per_second = 0.0
        self.steady_per_s = float(STEADY_PER_S)
        self.steady_since_ms: int | None = None
        self.error: str | None = None
        self._broker = broker
        self._events = events
        self._flat_out = max(len(events) - steady, 0)
        self._written = written
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        try:
            with EventProducer(self._broker) as producer:
                began = time.monotonic()
                self._send_flat_out(producer)
                self._await_worker()
                self.per_second = self._written() / (time.monotonic() - began)
                self.steady_per_s = min(STEADY_PER_S, STEADY_SHARE * self.per_second)
                self._send_steadily(producer)
                delivered = producer.flush()
            if not delivered.ok and not self._stopped.is_set():
                self.error = (
                    f"{delivered.failed} of {delivered.sent} events were not delivered:"
                    f" {delivered.first_error}"
                )
        except Exception as error:  # a thread has nobody to raise to: the demo reads `error`
            self.error = f"{type(error).__name__}: {error}"

    def _send_flat_out(self, producer: EventProducer) -> None:
        for event in self._events[: self._flat_out]:
            while self.sent - self._written() >= AHEAD and not self._stopped.wait(0.01):
                pass
            if self._stopped.is_set():
                return
            producer.send(event)
            self.sent += 1

    def _await_worker(self) -> None:
        deadline = time.monotonic() + CATCH_UP_S
        while self._written() < self.sent and time.monotonic() < deadline:
            if self._stopped.wait(0.05):
                return

    def _send_steadily(self, producer: EventProducer) -> None:
        if self.steady_per_s <= 0:
            return  # the worker never wrote anything
        began = time.monotonic()
        self.steady_since_ms = time.time_ns() // 1_000_000
        for number, event in enumerate(self._events[self._flat_out :]):
            wait = began + number / self.steady_per_s - time.monotonic()
            if self._stopped.wait(max(wait, 0)) if wait > 0.002 else self._stopped.is_set():
                return
            producer.send(event)
            self.sent += 1
