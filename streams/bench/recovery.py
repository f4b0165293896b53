"""`freshrec bench recovery`: what checkpoints cost, and how soon a killed worker serves again.

The same events are learned by workers that hardly keep anything and by workers with checkpoints as
they are set, in the order A B B A, since a machine that grows slower with time would count for one
side. The last is killed when it has all of them, and started again; an event that came meanwhile
has to become a recommendation.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.address import BrokerAddress
from infra.broker import EmbeddedBroker
from infra.settings import Settings
from online.events import Event
from streams.bench.child import BenchWorker
from streams.bench.freshness import refuse_lost
from streams.bench.machine import BenchError, machine
from streams.bench.traffic import Traffic
from streams.producer import EventProducer
from streams.sql_client import SqlClient, SqlError
from streams.topics import ensure_topics

Say = Callable[[str, int, int], None]

PROBE = "probe-user"
BACK_S = 180.0
SELDOM = {"FRESHREC_CHECKPOINT_EVENTS": "10000000", "FRESHREC_CHECKPOINT_S": "600"}


@dataclass(frozen=True, slots=True)
class RecoveryPlan:
    events: int = 150_000
    users: int = 100_000
    items: int = 50_000
    seed: int = 0


def run(plan: RecoveryPlan, settings: Settings, say: Say) -> dict[str, Any]:
    """Measure. Raises BenchError."""
    with (
        tempfile.TemporaryDirectory(prefix="freshrec-bench-") as folder,
        EmbeddedBroker() as broker,
    ):
        address = BrokerAddress.at(broker.address)
        ensure_topics(address, settings.partitions)
        started_ms = _preload(plan, address, say)
        usual = [_rate(plan, BenchWorker(Path(folder), address, "usual"), say)]
        seldom = [
            _rate(plan, BenchWorker(Path(folder), address, f"seldom-{n}", settings=SELDOM), say)
            for n in range(2)
        ]
        with BenchWorker(Path(folder), address, "worker") as worker:
            usual.append(_measured(plan, worker, say))
            state = worker.health()["quality"]
            back = _killed(worker, address, started_ms, say)
        rates, cpu_us = _both(usual, seldom, "rate"), _both(usual, seldom, "cpu_us")
        return {
            "benchmark": "recovery",
            "events": plan.events,
            "state": {name: state[name] for name in ("users", "items", "events")},
            "events_per_second": rates,
            "cpu_us_per_event": cpu_us,
            "ratios": {
                "checkpoints/hardly_any": round(rates["checkpoints"] / rates["hardly_any"], 3),
                "cpu": round(cpu_us["checkpoints"] / cpu_us["hardly_any"], 3),
            },
            "runs": {"checkpoints": usual, "hardly_any": seldom},
            "restart_s": back,
            "machine": machine(),
        }


def _preload(plan: RecoveryPlan, address: BrokerAddress, say: Say) -> int:
    """The events into the topic; the event time of the first one."""
    start_ms = int(time.time() * 1000) - 86_400_000
    traffic = Traffic(plan.users, plan.items, plan.seed)
    # all users and items have appeared when four fifths of the events are there
    stream = traffic.events(start_ms, lambda sent: sent / (0.8 * plan.events))
    with EventProducer(address) as producer:
        for n, event in enumerate(itertools.islice(stream, plan.events)):
            producer.send(event)
            if n % 1000 == 0:
                say("producing", n, plan.events)
        refuse_lost(producer.flush())
    return start_ms


def _both(usual: list[dict[str, Any]], seldom: list[dict[str, Any]], name: str) -> dict[str, float]:
    mean = {"checkpoints": _mean(usual, name), "hardly_any": _mean(seldom, name)}
    return {side: round(figure, 1) for side, figure in mean.items()}


def _mean(runs: list[dict[str, Any]], name: str) -> float:
    return sum(float(run[name]) for run in runs) / len(runs)


def _rate(plan: RecoveryPlan, worker: BenchWorker, say: Say) -> dict[str, Any]:
    with worker:
        return _measured(plan, worker, say)


def _measured(plan: RecoveryPlan, worker: BenchWorker, say: Say) -> dict[str, Any]:
    worker.await_ready()
    before = worker.cpu_s()
    what = f"learning, {worker.state.name}"
    rate = worker.rate_until(plan.events, lambda done: say(what, done, plan.events))
    cpu_us = 1e6 * (worker.cpu_s() - before) / plan.events
    return {
        "rate": round(rate, 1),
        "cpu_us": round(cpu_us, 1),
        "checkpoint": worker.health().get("checkpoints", {}),
    }


def _killed(
    worker: BenchWorker, address: BrokerAddress, start_ms: int, say: Say
) -> dict[str, float]:
    """Seconds from the start until …"""
    say("killed, and started again", 0, 1)
    worker.kill()
    with EventProducer(address) as producer:
        producer.send(Event(event_id="probe", type="click", user_id=PROBE, item_id="item-1",
                            ts=start_ms + 86_000_000))  # fmt: skip
        refuse_lost(producer.flush())
    began = time.monotonic()
    worker.launch()
    worker.until(lambda health: "joining" in health.get("detail", "")
                 or health.get("status") == "ok", BACK_S, "it has its state again")  # fmt: skip
    restored = time.monotonic() - began
    worker.until(lambda health: health.get("status") == "ok", BACK_S, "it has joined its group")
    joined = time.monotonic() - began
    served = _served(worker) - began
    return {
        "state_again": round(restored, 2),
        "joined": round(joined, 2),
        "recommendation": round(served, 2),
        "recommendation_after_joining": round(served - joined, 2),
        "without_the_wait_for_the_broker": round(served - (joined - restored), 2),
    }


def _served(worker: BenchWorker) -> float:
    """When the probe's recommendations could be read."""
    deadline = time.monotonic() + BACK_S
    client = SqlClient(worker.http_url)
    sql = "SELECT count() FROM live_recommendations WHERE user_id = {user:String}"
    while time.monotonic() < deadline:
        try:
            if client.rows(sql, user=PROBE) != [[0]]:
                return time.monotonic()
        except SqlError:
            pass
        time.sleep(0.02)
    raise BenchError(f"no recommendation within {BACK_S:g} s after the restart")
