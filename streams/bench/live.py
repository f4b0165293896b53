"""`freshrec bench live`: Kafka in, rows out, beside what would be possible without a model.

One embedded broker holds the log; one after the other read it: a Faust agent that does nothing, a
worker whose core learns nothing, the worker without its encoder, with one that serves but does not
learn, and the worker as it is. The backtest of the same events runs as well.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from infra.address import BrokerAddress
from infra.broker import EmbeddedBroker
from infra.children import end_with_parent
from infra.settings import Settings
from streams.bench.child import BenchWorker
from streams.bench.freshness import Freshness, refuse_lost
from streams.bench.machine import BenchError, machine
from streams.bench.offline import backtest_in_child
from streams.logfile import EventLog, ItemFile, Reading
from streams.producer import EventProducer, ItemProducer
from streams.topics import ensure_topics

Say = Callable[[str, int, int], None]  # what is being done, how much of how many

CATCH_UP_S = 300.0  # after the steady part


class Peer(NamedTuple):
    """A worker to measure: its program, settings that differ, and what to call it."""

    module: str
    settings: dict[str, str]
    called: str


def peers(settings: Settings) -> dict[str, Peer]:
    """Workers to measure, the one that is asked about last."""
    silent = {"FRESHREC_TEXT": "off"}
    found = {"null_core": Peer("streams.bench.nothing", silent, "a worker that learns nothing")}
    serving = "streams.worker"
    if settings.encoder:
        off = {"FRESHREC_ENCODER": "off"}
        found["no_encoder"] = Peer(serving, off, "the worker without its encoder")
    if settings.encoder and settings.encoder_share:
        rests = {"FRESHREC_ENCODER_SHARE": "0"}
        found["no_training"] = Peer(serving, rests, "the worker, its encoder not learning")
    return found | {"live": Peer(serving, {}, "the worker")}


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
        self._peers = peers(settings)
        steady = int(len(self._peers) * plan.rate * plan.seconds)  # each gets its own
        self._bulk = min(plan.events, max(log.rows - steady, log.rows // 2))
        self._events = (e for b in log.batches() for e in b)
        self._items = ItemFile(plan.items) if plan.items else None
        self._in_topic = 0  # events that the broker holds

    def measure(self) -> dict[str, Any]:
        produced = self._preload()
        idle = self._idle_agent()
        found = {name: self._worker(name, peer) for name, peer in self._peers.items()}
        live = found["live"]
        self._say("backtest", 0, 1)
        offline = backtest_in_child(
            self._plan.log, self._plan.items, self._plan.reading, self._bulk, self._encoder()
        )
        rates = {
            "produce": produced,
            "idle_agent": idle,
            **{name: each["events_per_second"] for name, each in found.items()},
            "backtest": offline["events_per_second"],
        }
        return {
            "benchmark": "live",
            "log": self._plan.log.name,
            "events": self._bulk,
            "events_per_second": {name: round(rate, 1) for name, rate in rates.items()},
            "ratios": {
                f"live/{name}": round(rates["live"] / rates[name], 3)
                for name in rates
                if name not in ("live", "produce") and rates[name]
            },
            "p99_ratios": _p99_ratios({name: each["freshness_ms"] for name, each in found.items()}),
            "freshness_ms": {name: each["freshness_ms"] for name, each in found.items()},
            "stages_ms": live["stages_ms"],
            "peak_rss_mb": {name: each["peak_rss_mb"] for name, each in found.items()}
            | {"backtest": offline["peak_rss_mb"]},
            "quality": {
                "live": live["quality"],
                "backtest": {k: offline[k] for k in ("hr@10", "ndcg@10")},
            },
            "settings": {
                name: getattr(self._settings, name)
                for name in (
                    "partitions",
                    "batch",
                    "linger_ms",
                    "fetch_wait_ms",
                    "seed",
                    "encoder",
                    "encoder_share",
                )
            },
            "machine": machine(),
        }

    def _preload(self) -> float:
        """Items and the bulk of the log into the topics; events a second of the producer."""
        if self._items is not None:
            with ItemProducer(self._address) as items:
                for item in self._items:
                    items.send(item)
                refuse_lost(items.flush())
        began = time.monotonic()
        with EventProducer(self._address) as producer:
            for n, event in enumerate(itertools.islice(self._events, self._bulk)):
                producer.send(event)
                if n % 1000 == 0:
                    self._say("producing", n, self._bulk)
            refuse_lost(producer.flush())
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

    def _all_done(self, health: dict[str, Any]) -> bool:
        done = health.get("events_total", 0) + health.get("duplicates", 0)
        return bool(done >= self._in_topic)

    def _encoder(self) -> list[str]:
        return [] if self._settings.encoder else ["--config", "encoder.on=false"]

    def _worker(self, name: str, peer: Peer) -> dict[str, Any]:
        what = peer.called
        self._say(f"starting {what}", 0, 1)
        with BenchWorker(self._folder, self._address, name, peer.module, peer.settings) as worker:
            total = self._bulk  # the same events for all; what earlier workers were sent follows
            rate = worker.rate_until(
                total, lambda done: self._say(f"{what}, full speed", done, total)
            )
            worker.until(self._all_done, CATCH_UP_S, "all events of earlier workers are written")
            quality = {
                k: v for k, v in worker.health().get("quality", {}).items()
                if k in ("hr@10", "ndcg@10")
            }  # fmt: skip
            freshness = Freshness(self._plan.rate, self._plan.seconds, self._address, worker)
            self._in_topic += freshness.run(
                self._events, lambda done, of: self._say(f"{what}, {self._plan.rate}/s", done, of)
            )
            health = worker.until(
                self._all_done, CATCH_UP_S, "all events of the steady part are written"
            )
            return {
                "events_per_second": rate,
                "freshness_ms": freshness.report(health),
                "stages_ms": health.get("stages_ms", {}),
                "peak_rss_mb": round(worker.peak_mb, 1),
                "quality": quality,
            }


def _p99_ratios(found: dict[str, Any]) -> dict[str, float]:
    """How many times as long it took until 99 of 100 events were readable as without …"""
    p99 = {name: each["sql"]["p99"] for name, each in found.items()}
    return {
        f"live/{name}": round(p99["live"] / p99[name], 3)
        for name in p99
        if name != "live" and p99[name]
    }
