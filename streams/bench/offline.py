"""`freshrec bench backtest`: the core on a log, beside what reading and driving alone cost."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.children import end_with_parent
from streams.bench.machine import BenchError, machine
from streams.bench.nothing import NullRecommender
from streams.logfile import EventLog, Reading
from streams.replay import BATCH, Replay

Say = Callable[[str, int, int], None]


def run(
    log: Path,
    items: Path | None,
    reading: Reading,
    limit: int | None,
    extra: list[str],
    say: Say,
) -> dict[str, Any]:
    """The backtest in a process of its own, then its limits: reading the log, a null core."""
    say("backtest", 0, 1)
    report = backtest_in_child(log, items, reading, limit, extra)
    with EventLog(log, reading) as events:
        total = min(events.rows, limit or events.rows)
        say("reading only", 0, 1)
        began = time.perf_counter()
        for _ in events.batches(BATCH, limit=limit):
            pass
        read_s = time.perf_counter() - began
        say("a core that learns nothing", 0, 1)
        replay = Replay(NullRecommender())  # type: ignore[arg-type]
        for batch in events.batches(BATCH, limit=limit):
            replay.feed(batch)
    rates = {
        "backtest": report["events_per_second"],
        "null_core": round(total / replay.seconds, 1),
        "reading": round(total / read_s, 1),
    }
    return {
        "benchmark": "backtest",
        "log": log.name,
        "events": report["events"],
        "events_per_second": rates,
        "ratios": {
            f"backtest/{name}": round(rates["backtest"] / rates[name], 4)
            for name in ("null_core", "reading")
        },
        "quality": {k: report[k] for k in ("hr@10", "ndcg@10", "mrr@10", "coverage")},
        "peak_rss_mb": {"backtest": report["peak_rss_mb"]},
        "config": report["config"],
        "machine": machine(),
    }


def backtest_in_child(
    log: Path,
    items: Path | None,
    reading: Reading,
    limit: int | None = None,
    extra: list[str] | None = None,
) -> dict[str, Any]:
    """The report of `freshrec backtest` run as a process. Raises BenchError if it fails."""
    with tempfile.TemporaryDirectory(prefix="freshrec-bench-") as folder:
        out = Path(folder) / "report.json"
        command = [sys.executable, "-m", "streams.cli", "backtest", str(log), "--json", str(out)]
        command += ["--items", str(items)] if items else []
        command += ["--limit", str(limit)] if limit else []
        command += ["--ts-unit", reading.ts_unit]
        for ours, theirs in reading.rename.items():
            command += ["--map", f"{ours}={theirs}"]
        for name, value in reading.fixed.items():
            command += ["--set", f"{name}={value}"]
        answer = subprocess.run(
            command + (extra or []), capture_output=True, text=True, preexec_fn=end_with_parent()
        )
        if answer.returncode:
            raise BenchError(f"the backtest failed: {answer.stderr.strip()[-2000:]}")
        return dict(json.loads(out.read_text()))
