"""`freshrec compare`: is one backtest of a log better than another, and for whom?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streams.commands.common import note, refuse_unwritable, screen, write_json


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="Ranks of a backtest.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Ranks of another one, of the same log.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples.")] = 0,
    resamples: Annotated[
        int, typer.Option(min=100, max=1_000_000, help="How often users are drawn anew.")
    ] = 2_000,
    json_out: Annotated[
        Path | None, typer.Option("--json", metavar="OUT", help="Write the figures there.")
    ] = None,
) -> None:
    """Compare two backtests target by target: B - A, each with a 95% interval.

    Both files come from backtest --ranks. Differences are shown for all targets, for new and
    returning users, rare items, and by the time since the user's event before.

    [dim]freshrec backtest log.csv --ranks a.parquet[/dim]

    [dim]freshrec backtest log.csv --config block=64 --ranks b.parquet[/dim]

    [dim]freshrec compare a.parquet b.parquet[/dim]
    """
    refuse_unwritable(json_out)
    from streams import comparison
    from streams.comparison_table import comparison_report, paired_table
    from streams.pairing import pair
    from streams.targets import read_targets

    names = (str(a), str(b))
    pairs = pair(read_targets(a), read_targets(b), names)
    found = comparison.compare(pairs, seed, resamples)
    if json_out is not None:
        write_json(json_out, comparison_report(found, names, seed, resamples, pairs.moved))
    screen().print(paired_table(found, names, seed, resamples, pairs.moved))
    if json_out is not None:
        note(f"written: {json_out}")
