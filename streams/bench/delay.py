"""`freshrec bench delay`: what it is worth that the encoder learns soon.

Backtests that differ only in how far the encoder's weights lag behind the events: they serve anew
every so many events, and know all events before. After Liu et al. (2022), "Monolith", table 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from streams.bench.machine import machine
from streams.bench.offline import backtest_in_child
from streams.logfile import EventLog, Reading

Say = Callable[[str, int, int], None]
DELAYS = (1, 100, 1_000, 5_000)
QUALITY = ("hr@10", "ndcg@10", "encoder_hr@10")


@dataclass(frozen=True, slots=True)
class DelayPlan:
    """What to measure on."""

    log: Path
    items: Path | None = None
    limit: int | None = None
    extra: tuple[str, ...] = ()  # options of the backtest
    delays: tuple[int, ...] = DELAYS
    reading: Reading = field(default_factory=Reading)


class Lag(NamedTuple):
    """A backtest to run, and the settings that make it."""

    name: str
    delay: int | None  # events between two sets of weights; None: not a point of the curve
    config: dict[str, str]


def lags(delays: tuple[int, ...], events: int) -> list[Lag]:
    """One for each delay, one that stops learning in the middle of the log, one without encoder.

    >>> [lag.name for lag in lags((1, 100), 1000)]
    ['none', '100', 'frozen after half', 'no encoder']
    """
    at_once = {"encoder.overlap": "false"}
    found = [
        Lag("none" if n == 1 else f"{n:,}", n, {**at_once, "encoder.every": str(n)}) for n in delays
    ]
    soonest = found[0].config
    half = {**soonest, "encoder.until": str(events // 2)}
    off = {"encoder.on": "false"}
    return [*found, Lag("frozen after half", None, half), Lag("no encoder", None, off)]


def run(plan: DelayPlan, say: Say) -> dict[str, Any]:
    """Measure, one backtest after another. Raises BenchError if one fails."""
    with EventLog(plan.log, plan.reading) as log:
        events = min(log.rows, plan.limit or log.rows)
    todo, rows = lags(plan.delays, events), []
    for n, lag in enumerate(todo):
        say(f"delay: {lag.name}", n, len(todo))
        extra = [x for key, value in lag.config.items() for x in ("--config", f"{key}={value}")]
        report = backtest_in_child(
            plan.log, plan.items, plan.reading, plan.limit, [*plan.extra, *extra]
        )
        rows.append({
            "delay": lag.name, "every": lag.delay, "config": lag.config,
            **{key: report.get(key, 0.0) for key in QUALITY},
            "curve": report["curve"],
        })  # fmt: skip
    return {
        "benchmark": "delay", "log": plan.log.name, "events": events, "rows": rows,
        "machine": machine(),
    }  # fmt: skip
