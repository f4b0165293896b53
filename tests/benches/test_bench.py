"""Benchmarks measure what they say: small runs against the real broker, worker and warehouse."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from infra.address import BrokerAddress
from infra.settings import Settings
from online.events import Event, event_fault
from streams import cli, sample
from streams.bench import live as live_bench
from streams.bench import soak as soak_bench
from streams.bench.child import BenchWorker
from streams.bench.delay import DelayPlan
from streams.bench.delay import run as run_delays
from streams.bench.live import LivePlan
from streams.bench.machine import BenchError, machine, resident_mb
from streams.bench.soak import Samples, Seen
from streams.bench.traffic import Traffic
from streams.delay_report import delay_table, plot_delay
from streams.logfile import EventLog
from streams.report import live_tables, plot_soak, rates_table, soak_table
from streams.topics import ensure_topics

NULL, TEXTLESS = "streams.bench.nothing", {"FRESHREC_TEXT": "off"}


def quiet(*_: object) -> None:
    """Nobody watches."""


def test_traffic_is_seeded_valid_and_reaches_everybody() -> None:
    def events_of(traffic: Traffic) -> list[Event]:
        return list(islice(traffic.events(1_000, lambda sent: sent / 8_000), 10_000))

    traffic = Traffic(users=2_000, items=500, seed=4, per_s=100)
    events = events_of(traffic)
    assert events == events_of(traffic)
    assert events != events_of(Traffic(2_000, 500, 5, per_s=100))
    assert not any(event_fault(e, 10_000_000) for e in events)
    assert len({e.event_id for e in events}) == 10_000
    assert (events[0].ts, events[-1].ts) == (1_000, 1_000 + 9_999 * 10)
    assert len({e.user_id for e in events}) == 2_000 and len({e.item_id for e in events}) == 500
    popular = Counter(e.item_id for e in events).most_common(50)
    assert sum(n for _, n in popular) > 4_000  # a tenth of the items has most of the events


def test_samples_by_minute() -> None:
    samples = Samples()
    for second in range(150):
        events = second * (10 if second < 60 else 20)
        samples.add(float(second), 100.0 + second, events, own_s=events * 30e-6)
    first, second_minute = samples.per_minute()
    assert first == {"minute": 1, "events_per_second": 10.0, "rss_mb": 159.0, "producer_us": 30.0}
    assert (second_minute["events_per_second"], second_minute["rss_mb"]) == (20.0, 219.0)
    assert Samples().per_minute() == []


def test_the_machine_is_described() -> None:
    import os

    assert machine()["cores"] >= 1 and machine()["freshrec"]
    assert resident_mb(os.getpid()) > 10
    assert resident_mb(2**22 + 1) == 0.0


def test_live_against_a_null_core(address: BrokerAddress, tmp_path: Path) -> None:
    """The bench's own path from the log to figures, without the model's compilation."""
    settings = Settings(batch=64)
    ensure_topics(address, settings.partitions)
    plan = LivePlan(sample.EVENTS, sample.ITEMS, events=1_500, rate=300, seconds=2)
    with EventLog(plan.log) as log:
        bench = live_bench._Live(plan, log, address, tmp_path, settings, quiet)
        assert bench._preload() > 0
        idle = bench._idle_agent()
        null = bench._worker("null_core", live_bench.peers(settings)["null_core"])
    assert idle > null["events_per_second"] > 100
    fresh = null["freshness_ms"]
    assert fresh["sql"]["count"] >= 600  # with the probes
    assert 0 < fresh["sql"]["p50"] <= fresh["sql"]["p99"]
    assert fresh["client"]["count"] >= 1 and fresh["client"]["p50"] <= fresh["client"]["max"]
    assert null["peak_rss_mb"] > 50 and {"learn", "write"} <= set(null["stages_ms"])
    report = {
        "log": "l", "events": 1500, "events_per_second": {"live": 2.0, "idle_agent": 4.0},
        "ratios": {"live/idle_agent": 0.5}, "freshness_ms": {"live": fresh},
        "p99_ratios": {"live/null_core": 1.25},
    }  # fmt: skip
    assert [table.row_count for table in live_tables(report)] == [2, len(fresh) - 1]


def test_live_is_measured_beside_workers_that_lack_a_part() -> None:
    names = {"null_core", "no_encoder", "no_training", "live"}
    assert set(live_bench.peers(Settings())) == names
    assert set(live_bench.peers(Settings(encoder_share=0.0))) == names - {"no_training"}
    assert set(live_bench.peers(Settings(encoder=False))) == {"null_core", "live"}


def test_soak_keeps_a_worker_busy(address: BrokerAddress, tmp_path: Path) -> None:
    settings = Settings()
    ensure_topics(address, settings.partitions)
    traffic = Traffic(users=1_000, items=200)
    with BenchWorker(tmp_path, address, "soak", NULL, TEXTLESS) as worker:
        worker.await_ready()
        samples, health = soak_bench._drive(worker, address, traffic, 0.06, seen := Seen(), quiet)
    report = soak_bench._report(settings, samples, seen, health, disk_mb=1.0)
    assert 0 < report["events"] <= report["sent"]
    # on a busy machine the last few do not come to their turn
    assert report["distinct"]["users"] > 900 and report["distinct"]["items"] > 180
    assert report["rejects"] == 0
    assert report["within_bound"] and report["bound_mb"] == settings.memory_mb
    assert report["curve"][-1]["events"] == report["events"]
    assert soak_table(report).row_count == len(report["minutes"])
    plot_soak(report, tmp_path / "soak.png")
    assert (tmp_path / "soak.png").stat().st_size > 1_000
    json.dumps(report, allow_nan=False)


def test_a_worker_that_ends_is_said_with_its_last_words(
    address: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRESHREC_BATCH", "0")
    with BenchWorker(tmp_path, address, "dead", NULL, TEXTLESS) as worker:
        with pytest.raises(BenchError, match="FRESHREC_BATCH='0'"):
            worker.await_ready()


def test_the_backtest_beside_its_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    command = ["bench", "backtest", str(sample.EVENTS), "--limit", "600", "--json", str(out)]
    assert cli.main(command) == 0
    report = json.loads(out.read_text())
    rates = report["events_per_second"]
    assert rates["null_core"] > rates["backtest"] > 0
    assert report["ratios"]["backtest/null_core"] < 1 and report["events"] == 600
    assert rates_table(report, "backtest").row_count == 3
    assert "null core" in capsys.readouterr().out
    assert cli.main(["bench", "backtest", str(tmp_path / "no.csv")]) == 1
    assert "no.csv does not exist" in capsys.readouterr().err


def test_delays_are_backtests_that_differ_in_when_weights_serve(tmp_path: Path) -> None:
    quick = ("--no-text",)
    plan = DelayPlan(sample.EVENTS, sample.ITEMS, limit=600, delays=(50, 300), extra=quick)
    report = run_delays(plan, quiet)
    rows = {row["delay"]: row for row in report["rows"]}
    assert list(rows) == ["50", "300", "frozen after half", "no encoder"]
    assert rows["frozen after half"]["config"]["encoder.until"] == "300"
    assert rows["no encoder"]["encoder_hr@10"] == 0.0 < rows["no encoder"]["ndcg@10"]
    assert rows["50"]["ndcg@10"] != rows["300"]["ndcg@10"]
    assert delay_table(report).row_count == 4
    plot_delay([report], tmp_path / "delay.png")
    assert (tmp_path / "delay.png").stat().st_size > 10_000
