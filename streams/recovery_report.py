"""Tables of `freshrec bench recovery` and `freshrec bench workers`."""

from __future__ import annotations

from typing import Any

from rich.table import Table

COST, RESTART_S, CPU_RATIO, NDCG_RATIO = 0.95, 10.0, 1.25, 0.97


def recovery_table(report: dict[str, Any]) -> Table:
    state, back, rates = report["state"], report["restart_s"], report["events_per_second"]
    title = f"{report['events']:,} events; held: {state['users']:,} users, {state['items']:,} items"
    table = Table(title=title, title_justify="left")
    for name in ("", "measured", "limit"):
        table.add_column(name, justify="left" if not name else "right")
    table.add_row("events/s with checkpoints", f"{rates['checkpoints']:,.0f}", "")
    table.add_row("events/s, hardly any kept", f"{rates['hardly_any']:,.0f}", "")
    ratio = report["ratios"]["checkpoints/hardly_any"]
    table.add_row("of the speed is left", f"{ratio:.1%}", f"≥ {COST:.0%}")
    table.add_row("processor time", f"× {report['ratios']['cpu']:.3f}", "")
    table.add_row(
        "a state, MB", str(report["runs"]["checkpoints"][-1]["checkpoint"].get("mb", "")), ""
    )
    table.add_section()
    table.add_row("killed: state again after", f"{back['state_again']:.1f} s", "")
    table.add_row("the broker let it join after", f"{back['joined']:.1f} s", "")
    table.add_row("first recommendation after", f"{back['recommendation']:.1f} s", "")
    joined = f"{back['recommendation_after_joining']:.1f} s"
    table.add_row("… after the broker let it join", joined, f"≤ {RESTART_S:.0f} s")
    own = f"{back['without_the_wait_for_the_broker']:.1f} s"
    table.add_row("… without the wait for the broker", own, "")
    return table


def workers_table(report: dict[str, Any]) -> Table:
    title = f"{report['log']}: processor time an event, all at once and at {report['rate']:,}/s"
    table = Table(title=title, title_justify="left")
    for name in ("workers", "events/s", "CPU µs", "ratio (≤ 1.25)", "at the pace µs", "ratio",
                 "HR@10", "NDCG@10", "ratio (≥ .97)", "memory, MB"):  # fmt: skip
        table.add_column(name, justify="right")
    for row in report["rows"]:
        flat, paced = row["flat"], row["paced"]
        cpu = "" if flat["cpu_us_ratio"] <= CPU_RATIO else "bold red"
        ndcg = "" if paced["ndcg@10_ratio"] >= NDCG_RATIO else "bold red"
        table.add_row(
            str(row["workers"]), f"{flat['events_per_second']:,.0f}", f"{flat['cpu_us']:,.0f}",
            f"[{cpu or 'default'}]{flat['cpu_us_ratio']:.3f}", f"{paced['cpu_us']:,.0f}",
            f"{paced['cpu_us_ratio']:.3f}", f"{paced['hr@10']:.4f}", f"{paced['ndcg@10']:.4f}",
            f"[{ndcg or 'default'}]{paced['ndcg@10_ratio']:.4f}", f"{paced['peak_rss_mb']:,.0f}",
        )  # fmt: skip
    return table
