"""The demo's screen: what is measured and what shoppers see, drawn with rich.

`Screen` draws one `Frame` into whatever room the terminal has; it knows no broker and no
warehouse. Without a terminal, `plain_line` says the same in one line.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

BARS = "▁▂▃▄▅▆▇"  # never the full block: lines above each other stay apart
ASCII_BARS = "_.-=+*#"
OURS = "bold cyan"
PEER = "dim"
LINES_ABOVE = 11  # of the screen, before the shoppers


@dataclass(frozen=True, slots=True)
class Line:
    """One recommendation as a shopper would read it."""

    title: str
    price: float | None
    reason: str
    fresh: bool  # entered the slate with the shopper's latest event


@dataclass(frozen=True, slots=True)
class Shopper:
    user_id: str
    events: int
    latest: str  # title of the newest purchase
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """All that the screen shows at one moment. None: not measured yet.

    The series are one value per poll, oldest first; the screen shows as many as fit.
    """

    stage: str
    elapsed_s: float
    total: int  # events to replay
    sent: int  # confirmed by the broker
    written: int  # readable in the warehouse
    rates: Sequence[float] = ()  # events written per second
    hits: Sequence[float] = ()  # prequential HR@10 so far
    peer_hits: Sequence[float] = ()  # popularity's, on the same events
    ndcgs: Sequence[float] = ()
    peer_ndcgs: Sequence[float] = ()
    p50s: Sequence[float] = ()  # event to row, ms, of the last seconds
    p99s: Sequence[float] = ()
    shoppers: tuple[Shopper, ...] = ()

    @property
    def lag(self) -> int:
        """Events that the broker has and the warehouse does not."""
        return max(self.sent - self.written, 0)


def sparkline(
    values: Sequence[float], width: int, top: float | None = None, bars: str = BARS
) -> str:
    """All values as at most `width` bars from 0 to `top` (default: the highest of them).

    A longer series is thinned out to means, so that the bars always show its whole course.

    >>> sparkline([0, 1, 2, 4, 8], 5)
    '▁▁▂▄▇'
    >>> sparkline([0, 2, 4, 4], 2)
    '▂▇'
    """
    count = min(len(values), max(width, 0))
    edges = [round(i * len(values) / count) for i in range(count + 1)] if count else [0]
    shown = [
        max(sum(values[low:high]) / (high - low), 0.0) for low, high in itertools.pairwise(edges)
    ]
    height = max([top or 0.0, *shown])
    if not height:
        return bars[0] * len(shown)
    return "".join(bars[min(int(value / height * len(bars)), len(bars) - 1)] for value in shown)


def plain_line(frame: Frame) -> str:
    """One line of progress, for logs and pipes."""
    parts = [
        f"{frame.elapsed_s:5.0f} s",
        f"{frame.stage}: {frame.written:,} of {frame.total:,} events",
        f"{_last(frame.rates):,.0f}/s",
        f"lag {frame.lag:,}",
    ]
    if frame.hits:
        parts.append(f"HR@10 {frame.hits[-1]:.3f} (popularity {_last(frame.peer_hits):.3f})")
        parts.append(f"NDCG@10 {_last(frame.ndcgs):.3f} ({_last(frame.peer_ndcgs):.3f})")
    if frame.p50s:
        parts.append(f"fresh p50 {frame.p50s[-1]:,.0f} ms, p99 {_last(frame.p99s):,.0f} ms")
    return " | ".join(parts)


class Screen:
    """A rich renderable of one frame, cut to the room that the console gives."""

    def __init__(self, frame: Frame, subtitle: str = "") -> None:
        self.frame = frame
        self.subtitle = subtitle

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.height or console.height
        ascii_only = options.ascii_only
        yield self._head(options.max_width)
        yield _measures(self.frame, options.max_width, ASCII_BARS if ascii_only else BARS)
        yield Rule(
            Text("what shoppers are recommended, as their events arrive", "dim"),
            style="dim",
            characters="-" if ascii_only else "─",
        )
        yield _shoppers(self.frame.shoppers, options.max_width, height - LINES_ABOVE)

    def _head(self, width: int) -> RenderableType:
        frame = self.frame
        title = Text.assemble(("freshrec ", "bold"), (self.subtitle, "dim"), no_wrap=True)
        title.truncate(width, overflow="ellipsis")
        counts = f"{frame.written:,} of {frame.total:,} events"
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(no_wrap=True)
        line.add_column(ratio=1)
        line.add_column(no_wrap=True, justify="right")
        line.add_row(
            Text(frame.stage, "bold"),
            ProgressBar(frame.total, frame.written, complete_style="cyan", finished_style="cyan"),
            Text(f"{counts}  {frame.elapsed_s:.0f} s"),
        )
        return Group(title, line, Text())


def _measures(frame: Frame, width: int, bars: str) -> Table:
    """Five rows: name, value, comparison, course over time."""
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(no_wrap=True, justify="right", min_width=9)
    table.add_column(no_wrap=True, min_width=24)
    table.add_column(no_wrap=True, ratio=1)
    room = max(width - 56, 8)

    def course(values: Sequence[float], top: float | None = None) -> Text:
        return Text(sparkline(values, room, top, bars), OURS)

    def versus(ours: Sequence[float], peer: Sequence[float]) -> Text:
        if not ours or not peer:
            return Text("")
        times = f"  ×{ours[-1] / peer[-1]:.1f}" if peer[-1] > 0 else ""
        return Text.assemble((f"popularity {peer[-1]:.3f}", PEER), (times, "green"))

    table.add_row(
        "events/s", _value(frame.rates, "{:,.0f}"), f"lag {frame.lag:,}", course(frame.rates)
    )
    hits_top, ndcg_top = _top(frame.hits, frame.peer_hits), _top(frame.ndcgs, frame.peer_ndcgs)
    table.add_row(
        "HR@10 so far",
        _value(frame.hits, "{:.3f}"),
        versus(frame.hits, frame.peer_hits),
        course(frame.hits, hits_top),
    )
    table.add_row(
        "NDCG@10 so far",
        _value(frame.ndcgs, "{:.3f}"),
        versus(frame.ndcgs, frame.peer_ndcgs),
        course(frame.ndcgs, ndcg_top),
    )
    p99 = Text(f"p99 {_last(frame.p99s):,.0f} ms" if frame.p99s else "")
    table.add_row("event to row, p50", _value(frame.p50s, "{:,.0f} ms"), p99, course(frame.p50s))
    return table


def _shoppers(shoppers: Sequence[Shopper], width: int, height: int) -> RenderableType:
    """Shoppers with at least three lines each; with more room, more of both."""
    if not shoppers:
        return Text("waiting for the first events …", "dim")
    count = max(1, min(len(shoppers), height // (4 if height < 20 else 5)))
    lines = max(1, min(height // count - 1, 7))
    parts: list[RenderableType] = []
    for shopper in shoppers[:count]:
        head = Text.assemble(
            ("shopper ", "dim"),
            (shopper.user_id, "bold"),
            (f" bought {shopper.events:,}, just now ", "dim"),
            (shopper.latest, "yellow"),
        )
        head.truncate(width, overflow="ellipsis")
        parts += [head, _slate(shopper.lines[:lines], width)]
    return Group(*parts)


def _slate(lines: Sequence[Line], width: int) -> RenderableType:
    """One line each: mark, title, price, reason; cut to `width`."""
    room = min(36, max(width // 2 - 10, 16))
    shown = []
    for line in lines:
        style = "bold green" if line.fresh else ""
        title = Text(line.title, style)
        title.truncate(room, overflow="ellipsis", pad=True)
        price = "" if line.price is None else f"{line.price:.2f}"
        mark = "+ " if line.fresh else "  "
        text = Text.assemble((mark, style), title, f" {price:>7}  ", (line.reason, "dim"))
        text.truncate(width, overflow="ellipsis")
        shown.append(text)
    return Group(*shown)


def _last(values: Sequence[float]) -> float:
    return values[-1] if values else 0.0


def _top(*series: Sequence[float]) -> float:
    return max((value for values in series for value in values), default=0.0)


def _value(values: Sequence[float], form: str) -> Text:
    return Text(form.format(values[-1]), OURS) if values else Text("…", "dim")
