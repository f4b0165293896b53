"""What the demo leaves: a verdict, and results on disk that need no broker and no warehouse."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from streams.screen import Frame, Screen

RECOMMENDATIONS = """
SELECT r.user_id AS user_id, r.position AS position, r.item_id AS item_id, i.title AS title,
    i.price AS price, r.score AS score, r.reason AS reason, r.source AS source,
    r.model_version AS model_version, r.event_time AS event_time
FROM live_recommendations AS r LEFT JOIN live_items AS i ON r.item_id = i.item_id
ORDER BY user_id, position
"""


@dataclass(slots=True)
class Summary:
    """The demo in figures. `faults` is empty when all went well."""

    events: int = 0  # sent
    rows: int = 0  # of the view live_events
    items: int = 0
    users: int = 0  # with recommendations
    dead_letters: int = 0
    seconds: float = 0.0
    events_per_second: float = 0.0  # while sent as fast as they are learned
    steady_per_second: float = 0.0  # the speed at which freshness was measured
    quality: dict[str, float] = field(default_factory=dict)  # prequential, of all events
    freshness: dict[str, float] = field(default_factory=dict)  # of the steady part
    faults: list[str] = field(default_factory=list)

    def judge(self) -> None:
        """Add a fault for everything that must hold and does not."""
        if self.rows != self.events:
            self.faults.append(f"{self.events:,} events were sent, {self.rows:,} rows arrived")
        if self.dead_letters:
            self.faults.append(
                f"{self.dead_letters:,} events were refused: see the table dead_letters"
            )
        if not self.users:
            self.faults.append("nobody has recommendations")
        if not self.freshness.get("rows"):
            self.faults.append("freshness was not measured: the steady part wrote no rows")
        for name in ("hr@10", "ndcg@10"):
            if name not in self.quality:
                self.faults.append(f"the metric {name} is missing")


def table(summary: Summary) -> Table:
    """The summary for people."""
    shown = Table.grid(padding=(0, 2))
    shown.add_column(style="dim")
    shown.add_column(justify="right", style="bold cyan")
    shown.add_column(style="dim")
    quality, fresh = summary.quality, summary.freshness

    def peer(name: str) -> str:
        value = quality.get(f"popularity_{name}")
        return "" if value is None else f"popularity on the same events: {value:.3f}"

    shown.add_row("events", f"{summary.rows:,}", f"of {summary.events:,} sent are rows")
    shown.add_row("shoppers", f"{summary.users:,}", "have fresh recommendations")
    shown.add_row("speed", f"{summary.events_per_second:,.0f}/s", "learned, ranked and written")
    for name in ("hr@10", "ndcg@10"):
        if name in quality:
            shown.add_row(name.upper(), f"{quality[name]:.3f}", peer(name))
    if fresh.get("rows"):
        at, p99 = summary.steady_per_second, fresh["p99_ms"]
        note = f"event to row at {at:,.0f} events/s; p99 {p99:,.0f} ms"
        shown.add_row("freshness", f"{fresh['p50_ms']:,.0f} ms", note)
    return shown


def leave(
    folder: Path, summary: Summary, frame: Frame, subtitle: str, recommendations: bytes
) -> list[Path]:
    """Write summary.json, recommendations.csv, screen.svg and screen.txt; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(asdict(summary), indent=2) + "\n")
    (folder / "recommendations.csv").write_bytes(recommendations)
    # recorded, not shown: the size of a roomy terminal
    drawn = Console(record=True, width=112, height=38, force_terminal=True, file=io.StringIO())
    drawn.print(Screen(frame, subtitle))
    drawn.save_svg(str(folder / "screen.svg"), title="freshrec demo", clear=False)
    (folder / "screen.txt").write_text(drawn.export_text())
    names = ("summary.json", "recommendations.csv", "screen.svg", "screen.txt")
    return [folder / name for name in names]
