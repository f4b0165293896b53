"""`freshrec bench soak`: minutes at full speed with a million users; memory must stay bounded."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from infra.address import BrokerAddress
from infra.broker import EmbeddedBroker
from infra.settings import Settings
from online.events import Event
from streams.bench.child import BenchWorker
from streams.bench.machine import BenchError, machine
from streams.bench.traffic import Traffic
from streams.producer import EventProducer
from streams.topics import ensure_topics

ALL_APPEARED = 0.99  # of the minutes have passed when all users and items have been sent
AHEAD = 8_192  # events that wait in the broker: enough to keep the worker at full speed
SAMPLE_S = 1.0
STALL_S = 60.0

Say = Callable[[str, int, int], None]


@dataclass(slots=True)
class Samples:
    """One sample a second: when, memory, events written so far, and our own processor time.

    The last is the same work for each event all the time: it tells how fast the machine itself was.
    """

    seconds: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    own_s: list[float] = field(default_factory=list)

    def add(self, second: float, rss_mb: float, events: int, own_s: float) -> None:
        self.seconds.append(second)
        self.rss_mb.append(rss_mb)
        self.events.append(events)
        self.own_s.append(own_s)

    def per_minute(self) -> list[dict[str, float]]:
        """Events a second, the highest memory, and our own microseconds for an event, of each
        minute; the last may lack 5 s."""
        minutes = []
        for minute in range(int((self.seconds[-1] + 5) // 60) if self.seconds else 0):
            inside = [n for n, s in enumerate(self.seconds) if minute * 60 <= s < (minute + 1) * 60]
            if len(inside) < 2:
                continue
            first, last = inside[0], inside[-1]
            done, took = (x[last] - x[first] for x in (self.events, self.seconds))
            own_s = self.own_s[last] - self.own_s[first]
            minutes.append(
                {
                    "minute": minute + 1,
                    "events_per_second": round(done / took, 1),
                    "rss_mb": round(max(self.rss_mb[n] for n in inside), 1),
                    "producer_us": round(own_s / max(done, 1) * 1e6, 1),
                }
            )
        return minutes


def run(settings: Settings, traffic: Traffic, minutes: float, say: Say) -> dict[str, Any]:
    """Keep a worker busy for `minutes`; its memory over time against FRESHREC_MEMORY_MB."""
    with (
        tempfile.TemporaryDirectory(prefix="freshrec-soak-") as folder,
        EmbeddedBroker() as broker,
    ):
        address = BrokerAddress.at(broker.address)
        ensure_topics(address, settings.partitions)
        with BenchWorker(Path(folder), address, "soak") as worker:
            say("starting the worker", 0, 1)
            worker.await_ready()
            seen = Seen()
            samples, health = _drive(worker, address, traffic, minutes, seen, say)
            disk_mb = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()) / 2**20
    return _report(settings, samples, seen, health, disk_mb)


@dataclass(slots=True)
class Seen:
    """What was sent."""

    sent: int = 0
    users: set[str] = field(default_factory=set)
    items: set[str] = field(default_factory=set)

    def add(self, event: Event) -> None:
        self.sent += 1
        self.users.add(event.user_id)
        self.items.add(event.item_id)


def _drive(
    worker: BenchWorker, address: BrokerAddress, traffic: Traffic, minutes: float, seen: Seen,
    say: Say,
) -> tuple[Samples, dict[str, Any]]:  # fmt: skip
    samples, health = Samples(), worker.health()
    began = moved = time.monotonic()
    all_s = minutes * 60 * ALL_APPEARED
    day_ago = time.time_ns() // 1_000_000 - 86_400_000
    events = traffic.events(day_ago, lambda _: (time.monotonic() - began) / all_s)
    with EventProducer(address) as producer:
        while (elapsed := time.monotonic() - began) < minutes * 60:
            written = samples.events[-1] if samples.events else 0
            if seen.sent - written < AHEAD:
                for event in islice(events, 512):
                    producer.send(event)
                    seen.add(event)
            else:
                time.sleep(0.1)
            wait = _interval(seen.sent, written)
            if not samples.seconds or elapsed - samples.seconds[-1] >= wait:
                health = worker.health()
                done = int(health.get("events_total", written)) + int(health.get("rejects", 0))
                if done != written:
                    moved = time.monotonic()
                elif time.monotonic() - moved > STALL_S:
                    raise BenchError(f"no new row for {STALL_S:.0f} s")
                samples.add(elapsed, worker.rss_mb(), done, time.process_time())
                say(f"{samples.rss_mb[-1]:,.0f} MB", int(elapsed), int(minutes * 60))
    return samples, health


def _interval(sent: int, written: int) -> float:
    """Look more often while it is unknown whether the worker waits for more."""
    return 0.2 if sent - written >= AHEAD else SAMPLE_S


def _report(
    settings: Settings, samples: Samples, seen: Seen, health: dict[str, Any], disk_mb: float
) -> dict[str, Any]:
    minutes = samples.per_minute()
    third = minutes[2] if len(minutes) > 2 else (minutes[0] if minutes else None)
    peak = max(samples.rss_mb, default=0.0)
    every = max(1, len(samples.seconds) // 600)
    return {
        "benchmark": "soak",
        "events": samples.events[-1] if samples.events else 0,
        "sent": seen.sent,
        "distinct": {"users": len(seen.users), "items": len(seen.items)},
        "rejects": health.get("rejects", 0),
        "peak_rss_mb": round(peak, 1),
        "bound_mb": settings.memory_mb,
        "within_bound": peak <= settings.memory_mb,
        "last_minute_of_third": (
            round(minutes[-1]["events_per_second"] / third["events_per_second"], 3)
            if third and third["events_per_second"]
            else None
        ),
        "minutes": minutes,
        "disk_mb": round(disk_mb, 1),
        "curve": [
            {"seconds": round(s, 1), "rss_mb": round(r, 1), "events": e}
            for s, r, e in list(zip(samples.seconds, samples.rss_mb, samples.events, strict=True))[
                ::every
            ]
        ],
        "machine": machine(),
    }
