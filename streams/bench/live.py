"""`freshrec bench live`: Kafka in, rows out, beside what would be possible without a model.

One embedded broker holds the log; one after the other read it: a Faust agent that does nothing, a
worker whose core learns nothing, and the worker. The backtest of the same events runs as well.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.address import BrokerAddress
from infra.broker import EmbeddedBroker
from infra.children import end_with_parent
from infra.settings import Settings
from online.events import Event
from streams.bench.child import BenchWorker
from streams.bench.machine import BenchError, machine
from streams.bench.offline import backtest_in_child
from streams.logfile import EventLog, ItemFile, Reading
from streams.producer import EventProducer, ItemProducer
from streams.sql_client import SqlClient, SqlError
from streams.topics import ensure_topics

Say = Callable[[str, int, int], None]  # what is being done, how much of how many

PROBE_EVERY_S = 1.0
LOOK_EVERY_S = 0.05  # each look costs the worker 10 ms: more would measure themselves
PROBE_WITHIN_S = 10.0
CATCH_UP_S = 300.0  # after the steady part

_FRESHNESS = """
SELECT count(), quantileExact(0.5)(written_ms - produced_ms),
       quantileExact(0.99)(written_ms - produced_ms)
FROM events WHERE produced_ms >= {since:Int64}
"""
_SEEN = "SELECT count() FROM live_recommendations WHERE user_id = {user:String}"


@dataclass(frozen=True, slots=True)
class LivePlan:
    """What to measure: `events` at full speed, then `rate` a second for `seconds`."""

    log: Path
    items: Path | None = None
    events: int = 20_000
    rate: int = 500
    seconds: float = 20.0
    reading: Reading = field(default_factory=Reading)


def run(plan: LivePlan, settings: Settings, say: Say) -> dict[str, Any]:
    """Measure; the report's ratios compare figures of this very run. Raises BenchError."""
    with (
        tempfile.TemporaryDirectory(prefix="freshrec-bench-") as folder,
        EventLog(plan.log, plan.reading) as log,
        EmbeddedBroker() as broker,
    ):
        address = BrokerAddress.at(broker.address)
        ensure_topics(address, settings.partitions)
        bench = _Live(plan, log, address, Path(folder), settings, say)
        return bench.measure()


class _Live:
    def __init__(
        self, plan: LivePlan, log: EventLog, address: BrokerAddress, folder: Path,
        settings: Settings, say: Say,
    ) -> None:  # fmt: skip
        self._plan, self._address, self._folder = plan, address, folder
        self._settings, self._say = settings, say
        steady = int(2 * plan.rate * plan.seconds)  # both workers get some at a steady rate
        self._bulk = min(plan.events, max(log.rows - steady, log.rows // 2))
        self._events = (e for b in log.batches() for e in b)
        self._items = ItemFile(plan.items) if plan.items else None
        self._in_topic = 0  # events that the broker holds

    def measure(self) -> dict[str, Any]:
        produced = self._preload()
        idle = self._idle_agent()
        null = self._worker("null-core", "streams.bench.nothing")
        live = self._worker("live", "streams.worker")
        self._say("backtest", 0, 1)
        offline = backtest_in_child(
            self._plan.log, self._plan.items, self._plan.reading, limit=self._bulk
        )
        rates = {
            "produce": produced,
            "idle_agent": idle,
            "null_core": null["events_per_second"],
            "live": live["events_per_second"],
            "backtest": offline["events_per_second"],
        }
        return {
            "benchmark": "live",
            "log": self._plan.log.name,
            "events": self._bulk,
            "events_per_second": {name: round(rate, 1) for name, rate in rates.items()},
            "ratios": {
                f"live/{name}": round(rates["live"] / rates[name], 3)
                for name in ("backtest", "null_core", "idle_agent")
                if rates[name]
            },
            "freshness_ms": {"live": live["freshness_ms"], "null_core": null["freshness_ms"]},
            "stages_ms": live["stages_ms"],
            "peak_rss_mb": {"live": live["peak_rss_mb"], "backtest": offline["peak_rss_mb"]},
            "quality": {
                "live": live["quality"],
                "backtest": {k: offline[k] for k in ("hr@10", "ndcg@10")},
            },
            "settings": {
                name: getattr(self._settings, name)
                for name in ("partitions", "batch", "linger_ms", "fetch_wait_ms", "seed")
            },
            "machine": machine(),
        }

    def _preload(self) -> float:
        """Items and the bulk of the log into the topics; events a second of the producer."""
        if self._items is not None:
            with ItemProducer(self._address) as items:
                for item in self._items:
                    items.send(item)
                _refuse_lost(items.flush())
        began = time.monotonic()
        with EventProducer(self._address) as producer:
            for n, event in enumerate(itertools.islice(self._events, self._bulk)):
                producer.send(event)
                if n % 1000 == 0:
                    self._say("producing", n, self._bulk)
            _refuse_lost(producer.flush())
        self._in_topic = self._bulk
        return self._bulk / (time.monotonic() - began)

    def _idle_agent(self) -> float:
        self._say("a Faust agent that does nothing", 0, 1)
        environ = {
            **os.environ,
            "FRESHREC_BROKER": f"kafka://{self._address.servers[0]}",
            "FRESHREC_GROUP": "idle-agent",
            "FRESHREC_STATE": str(self._folder / "idle"),
        }
        answer = subprocess.run(
            [sys.executable, "-m", "streams.bench.nothing", "agent", str(self._bulk)],
            env=environ, capture_output=True, text=True, preexec_fn=end_with_parent(),
        )  # fmt: skip
        if answer.returncode:
            raise BenchError(f"the agent that does nothing failed:\n{answer.stderr[-2000:]}")
        read = json.loads(answer.stdout.splitlines()[-1])
        return float(read["events"] / read["seconds"]) if read["seconds"] else 0.0

    def _worker(self, name: str, module: str) -> dict[str, Any]:
        what = {"live": "the worker"}.get(name, "a worker that learns nothing")
        self._say(f"starting {what}", 0, 1)
        with BenchWorker(self._folder, self._address, name, module) as worker:
            total = self._in_topic
            rate = worker.rate_until(
                total, lambda done: self._say(f"{what}, full speed", done, total)
            )
            quality = {
                k: v for k, v in worker.health().get("quality", {}).items()
                if k in ("hr@10", "ndcg@10")
            }  # fmt: skip
            freshness = Freshness(self._plan, self._address, worker)
            self._in_topic += freshness.run(
                self._events, lambda done, of: self._say(f"{what}, {self._plan.rate}/s", done, of)
            )
            health = worker.until(
                lambda h: h.get("events_total", 0) + h.get("duplicates", 0) >= self._in_topic,
                CATCH_UP_S, "all events of the steady part are written",
            )  # fmt: skip
            return {
                "events_per_second": rate,
                "freshness_ms": freshness.report(health),
                "stages_ms": health.get("stages_ms", {}),
                "peak_rss_mb": round(worker.peak_mb, 1),
                "quality": quality,
            }


class Freshness:
    """Events at a steady rate, and how soon their rows are there, seen three ways.

    `sql`: written_ms - produced_ms of the events' rows; `worker`: until the insert had returned, by
    the worker's clock, of its newest rows; `client`: probes, until a client's SELECT shows a slate.
    """

    def __init__(self, plan: LivePlan, address: BrokerAddress, worker: BenchWorker) -> None:
        self._plan, self._address, self._worker = plan, address, worker
        self._sql = SqlClient(worker.http_url)
        self._since_ms = 0
        self._probes: list[float] = []
        self._unseen = 0

    def run(self, events: Iterator[Event], say: Callable[[int, int], None]) -> int:
        """Send for the plan's seconds; how many events that were, probes included."""
        wanted = int(self._plan.rate * self._plan.seconds)
        self._since_ms = time.time_ns() // 1_000_000
        sent = 0
        with EventProducer(self._address) as producer, Prober(self._sql, producer) as prober:
            began = time.monotonic()
            for event in itertools.islice(events, wanted):
                prober.like = event
                wait = began + sent / self._plan.rate - time.monotonic()
                if wait > 0:
                    time.sleep(wait)
                producer.send(event)
                sent += 1
                if sent % 100 == 0:
                    say(sent, wanted)
            prober.stop()
            _refuse_lost(producer.flush())
        self._probes, self._unseen = prober.seen_after_ms, prober.unseen
        return sent + prober.sent

    def report(self, health: dict[str, Any]) -> dict[str, Any]:
        rows, p50, p99 = self._sql.rows(_FRESHNESS, since=self._since_ms)[0]
        newest = health["freshness_ms"]
        probes = sorted(self._probes)
        found = {
            "rate": self._plan.rate,
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


def _refuse_lost(delivered: Any) -> None:
    if not delivered.ok:
        raise BenchError(f"{delivered.failed} records were not delivered: {delivered.first_error}")
