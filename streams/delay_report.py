"""What `freshrec bench delay` found, as a table and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from streams.report import new_figure, save_figure


def delay_table(report: dict[str, Any]) -> Table:
    """Quality by delay; the encoder's own hit rate beside that of the whole."""
    table = Table(title=f"{report['log']}: {report['events']:,} events", title_justify="left")
    table.add_column("events until weights serve")
    for name in ("HR@10", "NDCG@10", "the encoder's own HR@10"):
        table.add_column(name, justify="right")
    for row in report["rows"]:
        own = f"{row['encoder_hr@10']:.4f}" if row["encoder_hr@10"] else ""
        table.add_row(row["delay"], f"{row['hr@10']:.4f}", f"{row['ndcg@10']:.4f}", own)
    return table


def plot_delay(reports: list[dict[str, Any]], path: Path) -> None:
    """What the encoder adds to NDCG@10, and its own HR@10, against the delay: a line for each log.

    Raises PlotError without matplotlib.
    """
    figure, both = new_figure(rows=2)
    for report in reports:
        *points, frozen, without = report["rows"]
        every = [row["every"] for row in points]
        for axes, key, base in zip(both, ("ndcg@10", "encoder_hr@10"), (without, {}), strict=True):
            least = base.get(key, 0.0)
            values = [row[key] - least for row in points]
            (line,) = axes.plot(every, values, marker="o", label=report["log"])
            axes.axhline(frozen[key] - least, color=line.get_color(), linestyle="--", linewidth=1)
    gain, own = both
    gain.set(ylabel="NDCG@10 more than without encoder", xscale="log", ylim=(0, None))
    gain.set_title("dashed: frozen after half", fontsize=9)
    own.set(ylabel="the encoder's own HR@10", xlabel="events until new weights serve")
    gain.legend()
    for axes in both:
        axes.grid(alpha=0.3)
    save_figure(figure, path)
