"""What a paired comparison looks like: a table for terminals, a report for programs."""

from __future__ import annotations

import dataclasses
from itertools import groupby
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from streams.comparison import CONFIDENCE, FEW, MEASURES, Difference, Segment


def comparison_report(
    found: list[Segment], names: tuple[str, str], seed: int, resamples: int, moved: int
) -> dict[str, Any]:
    """The figures of the table as JSON has them: intervals are [low, high] or null."""
    return {
        "a": names[0],
        "b": names[1],
        "targets": found[0].targets,
        "users": found[0].users,
        "confidence": CONFIDENCE,
        "resamples": resamples,
        "seed": seed,
        "moved": moved,
        "segments": [dataclasses.asdict(segment) for segment in found],
    }


def paired_table(
    found: list[Segment], names: tuple[str, str], seed: int, resamples: int, moved: int
) -> Table:
    """One block of lines for each measure; bold: the interval leaves out zero."""
    title = escape(f"A: {names[0]}\nB: {names[1]}")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("", "targets", "A", "B", "B - A", f"{CONFIDENCE:.0%} interval"):
        table.add_column(name, justify="right" if name else "left")
    for measure in MEASURES:
        table.add_row(f"[bold]{measure.upper()}[/]")
        for _, group in groupby(found, key=lambda segment: segment.group):
            for segment in group:
                table.add_row(*_row(segment, measure))
        table.add_section()
    table.caption = _caption(found, seed, resamples, moved)
    table.caption_justify = "left"
    return table


def _row(segment: Segment, measure: str) -> list[str]:
    start = [segment.name, f"{segment.targets:,}"]
    d = segment.measures.get(measure)
    if d is None:
        return start
    shown = f"{d.difference:+.4f}"
    row = [*start, f"{d.a:.4f}", f"{d.b:.4f}", f"[bold]{shown}[/]" if _sure(d) else shown]
    if d.interval is not None:
        row.append("{:+.4f} … {:+.4f}".format(*d.interval))
    return row


def _sure(d: Difference) -> bool:
    return d.interval is not None and not d.interval[0] <= 0 <= d.interval[1]


def _caption(found: list[Segment], seed: int, resamples: int, moved: int) -> str:
    users = found[0].users
    lines = [f"intervals: {resamples:,} resamples of {users:,} users, seed {seed}"]
    if any(0 < segment.users < FEW for segment in found):
        lines.append(f"no interval: fewer than {FEW} users")
    if moved:
        lines.append(
            f"{moved:,} targets have other events before them in B (ties in another order):"
            " segments are A's"
        )
    return "\n".join(lines)
