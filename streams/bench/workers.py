"""`freshrec bench workers`: one worker, two and four on the same log: cost and quality.

What one more worker costs is processor time for each event: measured with as many events as they
take, for which more workers are there, and at a pace, where what a worker does however little comes
counts. What it loses is quality, since what others learned comes a moment later: measured at the
pace, so that all partitions are read at the same time of the log.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from infra.address import BrokerAddress
from infra.broker import EmbeddedBroker
from infra.settings import Settings
from streams.bench.child import BenchWorker
from streams.bench.freshness import refuse_lost
from streams.bench.machine import BenchError, machine
from streams.logfile import EventLog, Reading
from streams.producer import EventProducer
from streams.topics import ensure_topics

Say = Callable[[str, int, int], None]

CATCH_UP_S = 300.0
EACH_S = 0.02


@dataclass(frozen=True, slots=True)
class WorkersPlan:
    log: Path
    workers: tuple[int, ...] = (1, 2, 4)
    events: int = 100_000
    rate: int = 500  # events a second
    flat: int = 40_000  # events of the log that come as fast as they are taken
    reading: Reading = field(default_factory=Reading)


def run(plan: WorkersPlan, settings: Settings, say: Say) -> dict[str, Any]:
    """Measure. Raises BenchError."""
    rows: list[dict[str, Any]] = []
    for n in plan.workers:
        with tempfile.TemporaryDirectory(prefix="freshrec-bench-") as folder:
            paced = _with(n, plan, settings, Path(folder), say)
        with tempfile.TemporaryDirectory(prefix="freshrec-bench-") as folder:
            flat = _with(n, replace(plan, events=plan.flat, rate=0), settings, Path(folder), say)
        rows.append({"workers": n, "paced": paced, "flat": flat})
    for row in rows:
        for name, figure in (("paced", "cpu_us"), ("flat", "cpu_us"), ("paced", "ndcg@10")):
            row[name][f"{figure}_ratio"] = round(row[name][figure] / rows[0][name][figure], 4)
    return {
        "benchmark": "workers",
        "log": plan.log.name,
        "rate": plan.rate,
        "rows": rows,
        "machine": machine(),
    }


def _with(n: int, plan: WorkersPlan, settings: Settings, folder: Path, say: Say) -> dict[str, Any]:
    what = f"{n} worker{'s' if n > 1 else ''}, {f'{plan.rate}/s' if plan.rate else 'all at once'}"
    with EmbeddedBroker() as broker, contextlib.ExitStack() as stack:
        address = BrokerAddress.at(broker.address)
        ensure_topics(address, max(settings.partitions, n))
        say(f"starting {what}", 0, 1)
        shared = {"FRESHREC_CHECKPOINTS": str(folder / "checkpoints"), "FRESHREC_GROUP": "workers"}
        # each has a warehouse of its own: users' histories are never asked for elsewhere, since
        # no partition moves
        workers = [
            stack.enter_context(BenchWorker(folder, address, f"worker-{k}", settings=shared))
            for k in range(n)
        ]
        for worker in workers:
            worker.await_ready()
        _settle(workers)
        before = [worker.cpu_s() for worker in workers]
        began = time.monotonic()
        sent = _produce(plan, address, what, say)
        _await_all(workers, sent)
        took_s = time.monotonic() - began
        cpu_s = sum(w.cpu_s() - b for w, b in zip(workers, before, strict=True))
        found = [worker.health()["quality"] for worker in workers]
        targets = sum(q["targets"] for q in found)
        if not targets:
            raise BenchError(f"{plan.log} has no event to measure quality with")
        return {
            "events": sent,
            "events_per_second": round(sent / took_s, 1),
            "cpu_us": round(1e6 * cpu_s / sent, 1),
            **{
                name: sum(q["targets"] * q[name] for q in found) / targets
                for name in ("hr@10", "ndcg@10")
            },
            "peak_rss_mb": round(sum(worker.peak_mb for worker in workers), 1),
        }


def _settle(workers: list[BenchWorker]) -> None:
    """Until every one of them has partitions, and keeps them."""
    deadline = time.monotonic() + CATCH_UP_S
    calm = 0
    while calm < 5:
        if time.monotonic() > deadline:
            raise BenchError("the workers do not settle: is there a partition for each?")
        time.sleep(1.0)
        healths = [worker.health() for worker in workers]
        well = all(h.get("status") == "ok" and h.get("lag") for h in healths)
        calm = calm + 1 if well else 0


def _produce(plan: WorkersPlan, address: BrokerAddress, what: str, say: Say) -> int:
    sent, began = 0, time.monotonic()
    with EventLog(plan.log, plan.reading) as log, EventProducer(address) as producer:
        for event in (e for batch in log.batches() for e in batch):
            if sent == plan.events:
                break
            producer.send(event)
            sent += 1
            ahead = sent / plan.rate - (time.monotonic() - began) if plan.rate else 0.0
            if ahead > EACH_S:
                time.sleep(ahead)
                say(what, sent, min(plan.events, log.rows))
        refuse_lost(producer.flush())
    return sent


def _await_all(workers: list[BenchWorker], sent: int) -> None:
    deadline = time.monotonic() + CATCH_UP_S
    names = ("events_total", "rejects", "duplicates")
    while time.monotonic() < deadline:
        if sum(int(w.health().get(name, 0)) for w in workers for name in names) >= sent:
            return
        time.sleep(0.2)
    raise BenchError(f"not all events were learned within {CATCH_UP_S:g} s")
