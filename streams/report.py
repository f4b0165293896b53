"""What a backtest or a benchmark looks like: tables for terminals, curves as pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from streams.logformat import LogError
from streams.ranks import Ranks

MEASURES = ("hr@10", "ndcg@10", "mrr@10", "coverage")


class PlotError(RuntimeError):
    """A picture cannot be drawn. Says the cure."""


def quality_table(report: dict[str, Any]) -> Table:
    """The measures beside those of popularity, with speed and memory below."""
    title = f"{report['config'].get('log', 'backtest')}: {report['events']:,} events"
    table = Table(title=f"{title}, {report['targets']:,} targets", title_justify="left")
    table.add_column("measure")
    table.add_column("freshrec", justify="right")
    table.add_column("popularity", justify="right")
    table.add_column("ratio", justify="right")
    for name in MEASURES:
        ours, popular = report[name], report.get(f"popularity_{name}")
        ratio = f"{ours / popular:.2f}" if popular else ""
        table.add_row(name, f"{ours:.4f}", "" if popular is None else f"{popular:.4f}", ratio)
    table.add_section()
    table.add_row("events/s", f"{report['events_per_second']:,.0f}")
    table.add_row("peak memory, MB", f"{report['peak_rss_mb']:,.0f}")
    for name in ("rejects", "duplicates"):
        if report.get(name):
            table.add_row(name, f"{report[name]:,}")
    return table


def load_report(path: Path) -> dict[str, Any]:
    """The JSON that a backtest wrote. Raises LogError if it is something else."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(report[name], int | float) for name in MEASURES):
            raise ValueError("its measures are no numbers")
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise LogError(
            f"{path} is no report of a backtest ({type(e).__name__}: {e}): write one with"
            " freshrec backtest LOG --json OUT"
        ) from e
    return dict(report)


def comparison_table(
    report: dict[str, Any], other: dict[str, Any], path: Path, ranks: Ranks | None = None
) -> Table:
    """Two backtests side by side; with the ranks of both, differences by pairs of events.

    The other's ranks are looked for beside its report: OTHER.parquet or OTHER.ranks.parquet.
    """
    table = Table(title=f"beside {path.name}", title_justify="left")
    for name in ("measure", "this", "other", "difference", "95% interval, paired"):
        table.add_column(name, justify="left" if name == "measure" else "right")
    paired = _paired(path, ranks)
    for name in (*MEASURES, "events_per_second"):
        ours, theirs = report[name], other.get(name, 0.0)
        digits = ",.0f" if name == "events_per_second" else ".4f"
        row = [f"{ours:{digits}}", f"{theirs:{digits}}", f"{ours - theirs:+{digits}}"]
        difference = paired.get(name)
        interval = f"{difference.mean:+.4f} ± {difference.margin:.4f}" if difference else ""
        table.add_row(name, *row, interval)
    table.caption = _caption(report, other, paired)
    return table


def _paired(path: Path, ranks: Ranks | None) -> dict[str, Any]:
    beside = [path.with_suffix(".parquet"), path.with_suffix(".ranks.parquet")]
    found = next((p for p in beside if p.is_file()), None)
    if found is None or ranks is None or not ranks.events:
        return {}
    return {d.name: d for d in ranks.differences(Ranks.read(found))}


def _caption(report: dict[str, Any], other: dict[str, Any], paired: dict[str, Any]) -> str:
    lines = []
    if not paired:
        lines.append("no pairs: write ranks beside the other report (--ranks OTHER.parquet)")
    mine, theirs = report["config"], other.get("config", {})
    changed = sorted(k for k in {*mine, *theirs} if _plain(mine.get(k)) != _plain(theirs.get(k)))
    if changed:
        lines.append("different settings: " + ", ".join(changed))
    if report["targets"] != other.get("targets"):
        lines.append(f"different targets: {report['targets']} and {other.get('targets')}")
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def plot_curve(report: dict[str, Any], path: Path) -> None:
    """HR@10 and NDCG@10 by window as a picture. Raises PlotError without matplotlib."""
    figure, axes = new_figure()
    events = [point["events"] for point in report["curve"]]
    for name in ("hr@10", "ndcg@10"):
        axes.plot(events, [point[name] for point in report["curve"]], marker=".", label=name)
    axes.set(xlabel="events", ylabel="mean over the window", ylim=(0, None))
    axes.set_title(f"{report['config'].get('log', 'backtest')}: quality while learning")
    axes.legend()
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def new_figure(rows: int = 1) -> tuple[Any, Any]:
    """A matplotlib figure that needs no display, and its axes."""
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise PlotError("--plot needs matplotlib: pip install matplotlib") from e
    figure = Figure(figsize=(8, 4 * rows), layout="constrained")
    return figure, figure.subplots(rows, sharex=True)


def save_figure(figure: Any, path: Path) -> None:
    """Write the picture; the suffix tells the format."""
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as e:
        raise PlotError(f"--plot {path}: {e}; use a name such as curve.png") from e


def rates_table(report: dict[str, Any], ours: str) -> Table:
    """Events a second of `ours` and of its limits, as absolute figures and ratios."""
    table = Table(title=f"{report['log']}: {report['events']:,} events", title_justify="left")
    table.add_column("")
    table.add_column("events/s", justify="right")
    table.add_column(f"{ours} is … of it", justify="right")
    for name, rate in report["events_per_second"].items():
        ratio = report["ratios"].get(f"{ours}/{name}")
        table.add_row(name.replace("_", " "), f"{rate:,.0f}", f"{ratio:.1%}" if ratio else "")
    return table


def live_tables(report: dict[str, Any]) -> list[Table]:
    """What `bench live` found: speed, then freshness in milliseconds."""
    fresh = Table(title="produced to readable, ms", title_justify="left")
    for name in ("", "seen by", "p50", "p99", "of"):
        fresh.add_column(name, justify="left" if name in ("", "seen by") else "right")
    for name, found in report["freshness_ms"].items():
        for eye in (e for e in ("sql", "worker", "client") if e in found):
            seen = found[eye]
            high = seen.get("p99", seen.get("max"))
            shown = [("" if v is None else f"{v:,.0f}") for v in (seen["p50"], high)]
            count = f"{seen['count']:,}" + (
                f", {seen['unseen']} unseen" if seen.get("unseen") else ""
            )
            fresh.add_row(name.replace("_", " "), eye, *shown, count)
        fresh.add_section()
    ratios = ", ".join(f"{a.replace('_', ' ')} {b:.2f}" for a, b in report["p99_ratios"].items())
    fresh.caption = (
        f"at {found['rate']} events/s; for the client: the highest instead of p99\n"
        f"p99 by SQL: {ratios}"
    )
    return [rates_table(report, "live"), fresh]


def text_tables(report: dict[str, Any]) -> list[Table]:
    """What `bench text` found: how fast texts are read; what understanding them is worth."""
    speed = Table(title="reading texts, one core", title_justify="left")
    for name in ("weights", "titles/s", "query, ms p50", "p99"):
        speed.add_column(name, justify="left" if name == "weights" else "right")
    for name, found in report["speed"].items():
        rate = f"{found['titles_per_second']:,.0f}"
        times = (f"{found[f'query_ms_{p}']:,.1f}" for p in ("p50", "p99"))
        speed.add_row(name, rate, *times)
    worth = Table(title="what it is worth", title_justify="left")
    for name in ("", "with", "without", "of"):
        worth.add_column(name, justify="right" if name else "left")
    cold, search, ours = (report[name] for name in ("cold_users", "search", "personal_search"))
    worth.add_row("half a basket from a sentence, HR@10", f"{cold['hr@10']:.4f}",
                  f"{cold['popularity_hr@10']:.4f} (popular)", f"{cold['baskets']:,}")  # fmt: skip
    worth.add_row("search for this user, MRR", f"{ours['mrr']:.4f}",
                  f"{ours['mrr_unpersonalised']:.4f} (anybody)",
                  f"{ours['queries']:,}")  # fmt: skip
    for name, value in search.items():
        worth.add_row(name.replace("_", " "), f"{value:.4f}", "", "")
    return [speed, worth]


def soak_table(report: dict[str, Any]) -> Table:
    """Speed and memory by minute."""
    distinct = report["distinct"]
    table = Table(
        title=f"{report['events']:,} events of {distinct['users']:,} users and"
        f" {distinct['items']:,} items",
        title_justify="left",
    )
    for name in ("minute", "events/s", "memory, MB", "producer, µs/event"):
        table.add_column(name, justify="right")
    for minute in report["minutes"]:
        table.add_row(
            str(minute["minute"]), f"{minute['events_per_second']:,.0f}",
            f"{minute['rss_mb']:,.0f}", f"{minute['producer_us']:.0f}",
        )  # fmt: skip
    kept = "within" if report["within_bound"] else "BEYOND"
    table.caption = (
        f"peak {report['peak_rss_mb']:,.0f} MB, {kept} the bound of {report['bound_mb']:,} MB"
    )
    return table


def plot_soak(report: dict[str, Any], path: Path) -> None:
    """Memory against its bound, and speed by minute. Raises PlotError without matplotlib."""
    figure, (memory, speed) = new_figure(rows=2)
    minutes = [point["seconds"] / 60 for point in report["curve"]]
    memory.plot(minutes, [point["rss_mb"] for point in report["curve"]], label="worker")
    memory.axhline(report["bound_mb"], color="tab:red", linestyle="--", label="bound")
    memory.set(ylabel="resident memory, MB", ylim=(0, None))
    memory.legend()
    speed.bar(
        [m["minute"] - 0.5 for m in report["minutes"]],
        [m["events_per_second"] for m in report["minutes"]],
    )
    speed.set(xlabel="minutes", ylabel="events/s")
    for axes in (memory, speed):
        axes.grid(alpha=0.3)
    save_figure(figure, path)


def plot_training(report: dict[str, Any], path: Path) -> None:
    """Loss and validation NDCG@10 by epoch. Raises PlotError without matplotlib."""
    figure, (loss, quality) = new_figure(rows=2)
    every = report["epochs"]
    loss.plot([e["epoch"] for e in every], [e["loss"] for e in every], marker=".")
    loss.set(ylabel="training loss")
    loss.set_title(f"{report['log']}: {report['protocol']}")
    scored = [e for e in every if "ndcg@10" in e]
    quality.plot([e["epoch"] for e in scored], [e["ndcg@10"] for e in scored], marker=".")
    quality.axvline(report["best_epoch"], color="tab:green", linestyle="--", label="kept")
    quality.set(xlabel="epoch", ylabel="validation NDCG@10", ylim=(0, None))
    quality.legend()
    for axes in (loss, quality):
        axes.grid(alpha=0.3)
    save_figure(figure, path)
