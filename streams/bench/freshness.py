"""How soon events are readable at a steady rate: a part of `freshrec bench live`."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from infra.address import BrokerAddress
from online.events import Event
from streams.bench.child import BenchWorker
from streams.bench.machine import BenchError
from streams.producer import EventProducer
from streams.sql_client import SqlClient, SqlError

PROBE_EVERY_S = 1.0
LOOK_EVERY_S = 0.05  # each look costs the worker 10 ms: more would measure themselves
PROBE_WITHIN_S = 10.0

_FRESHNESS = """
SELECT count(), quantileExact(0.5)(written_ms - produced_ms),
       quantileExact(0.99)(written_ms - produced_ms)
FROM events WHERE produced_ms >= {since:Int64}
"""
_SEEN = "SELECT count() FROM live_recommendations WHERE user_id = {user:String}"


class Freshness:
    """Events at a steady rate, and how soon their rows are there, seen three ways.

    `sql`: written_ms - produced_ms of the events' rows; `worker`: until the insert had returned, by
    the worker's clock, of its newest rows; `client`: probes, until a client's SELECT shows a slate.
    """

    def __init__(
        self, rate: int, seconds: float, address: BrokerAddress, worker: BenchWorker
    ) -> None:
        self._rate, self._seconds, self._address = rate, seconds, address
        self._sql = SqlClient(worker.http_url)
        self._since_ms = 0
        self._probes: list[float] = []
        self._unseen = 0

    def run(self, events: Iterator[Event], say: Callable[[int, int], None]) -> int:
        """Send for the plan's seconds; how many events that were, probes included."""
        wanted = int(self._rate * self._seconds)
        self._since_ms = time.time_ns() // 1_000_000
        sent = 0
        with EventProducer(self._address) as producer, Prober(self._sql, producer) as prober:
            began = time.monotonic()
            for event in itertools.islice(events, wanted):
                prober.like = event
                wait = began + sent / self._rate - time.monotonic()
                if wait > 0:
                    time.sleep(wait)
                producer.send(event)
                sent += 1
                if sent % 100 == 0:
                    say(sent, wanted)
            prober.stop()
            refuse_lost(producer.flush())
        self._probes, self._unseen = prober.seen_after_ms, prober.unseen
        return sent + prober.sent

    def report(self, health: dict[str, Any]) -> dict[str, Any]:
        rows, p50, p99 = self._sql.rows(_FRESHNESS, since=self._since_ms)[0]
        newest = health["freshness_ms"]
        probes = sorted(self._probes)
        found = {
            "rate": self._rate,
            "sql": {"p50": p50, "p99": p99, "count": rows},
            "client": {
                "p50": round(statistics.median(probes), 1) if probes else None,
                "max": round(probes[-1], 1) if probes else None,
                "count": len(probes),
                "unseen": self._unseen,
            },
        }
        if rows >= newest["count"]:  # otherwise the worker's newest rows are of the full speed too
            found["worker"] = newest
        return found


class Prober(threading.Thread):
    """Sends events of new users, one at a time, and looks in SQL for each user's slate.

    `seen_after_ms` holds the milliseconds from send to sight; `unseen` counts probes that were
    given up; `error` says why the thread ended early.
    """

    def __init__(self, sql: SqlClient, producer: EventProducer) -> None:
        super().__init__(name="prober", daemon=True)
        self.sent = self.unseen = 0
        self.seen_after_ms: list[float] = []
        self.like: Event | None = None  # probes interact with the item of this event
        self.error: str | None = None
        self._sql, self._producer = sql, producer
        self._stopped = threading.Event()

    def __enter__(self) -> Prober:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def stop(self) -> None:
        """Wait for the probe under way. Raises BenchError if SQL was refused."""
        self._stopped.set()
        self.join(2 * PROBE_WITHIN_S)
        if self.error:
            raise BenchError(self.error)

    def run(self) -> None:
        try:
            while not self._stopped.wait(PROBE_EVERY_S):
                if self.like is not None:
                    self._probe(self.like)
        except SqlError as e:
            self.error = str(e)

    def _probe(self, like: Event) -> None:
        user = f"probe-{time.time_ns()}"
        sent_at = time.monotonic()
        self._producer.send(
            Event(event_id=user, type="view", user_id=user, item_id=like.item_id, ts=like.ts)
        )
        self.sent += 1
        while time.monotonic() - sent_at < PROBE_WITHIN_S:
            if int(self._sql.rows(_SEEN, user=user)[0][0]):
                self.seen_after_ms.append((time.monotonic() - sent_at) * 1000)
                return
            time.sleep(LOOK_EVERY_S)
        self.unseen += 1  # the worker does not keep up: the rows will say by how much


def refuse_lost(delivered: Any) -> None:
    if not delivered.ok:
        raise BenchError(f"{delivered.failed} records were not delivered: {delivered.first_error}")
