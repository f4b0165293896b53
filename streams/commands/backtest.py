"""`freshrec backtest`: how well, and how fast, would this log have been recommended?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands.common import (
    Map,
    Set,
    TsUnit,
    UsageFault,
    note,
    pairs,
    progress_bar,
    reading_of,
    refuse_output,
    refuse_unwritable,
    screen,
    write_json,
)

if TYPE_CHECKING:
    from online.events import Item
    from streams.logfile import EventLog
    from streams.ranks import Ranks
    from streams.understanding import Understood


def backtest(
    log: Annotated[
        Path, typer.Argument(help="Events: Parquet, CSV or JSONL, optionally .gz.", metavar="LOG")
    ],
    items: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Catalogue, announced before the replay.")
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(metavar="TYPES", help="Event types to predict, such as click,purchase."),
    ] = None,
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen", help="Never recommend what the user already had.")
    ] = False,
    text: Annotated[
        bool, typer.Option("--text/--no-text", help="Understand what the items' texts say.")
    ] = True,
    text_model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="As FRESHREC_TEXT_MODEL (default: the included one)."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N events.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of all chance (default 0).")] = None,
    batch: Annotated[int, typer.Option(min=1, max=100_000, help="Events of one step.")] = 512,
    config: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="K=V", help="A setting of the recommender; repeatable."),
    ] = None,
    shuffle_ties: Annotated[
        int | None,
        typer.Option(min=0, metavar="SEED", help="Permute events that share a timestamp."),
    ] = None,
    json_out: Annotated[
        Path | None, typer.Option("--json", metavar="OUT", help="Write the report there.")
    ] = None,
    ranks: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write every target's rank there (Parquet), for compare."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Draw the curve there (PNG).")
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="OTHER", help="The report of another backtest, to put beside."),
    ] = None,
    rename: Map = None,
    fixed: Set = None,
    ts_unit: TsUnit = "ms",
    items_map: Annotated[
        list[str] | None,
        typer.Option("--items-map", metavar="OURS=THEIRS", help="As --map, for --items."),
    ] = None,
) -> None:
    """Replay a log through the live recommender and measure it, test then learn.

    Every event of a target type is first predicted among all known items, then learned
    from: no split, no sampled negatives. Same log, same seed: same figures.

    [dim]freshrec backtest clicks.parquet --items products.csv --json out.json[/dim]

    [dim]freshrec backtest log.csv --map user_id=customer --set type=click --ts-unit s[/dim]
    """
    from streams.logfile import EventLog, ItemFile
    from streams.options import recommender_config
    from streams.ranks import Ranks
    from streams.targets import Targets

    refuse_unwritable(json_out, ranks, plot)
    if compare is not None and not compare.is_file():
        raise UsageFault(f"--compare {compare} does not exist: name the JSON of another backtest")
    chosen = recommender_config(
        pairs("--config", config),
        seed=seed,
        targets=tuple(t.strip() for t in targets.split(",") if t.strip()) if targets else None,
        exclude_seen=exclude_seen or None,
    )
    catalogue = ItemFile(items, reading_of(items_map, None, "ms", "--items-map")) if items else None
    announced = list(catalogue or ())
    understood = _understood(announced, text_model) if text and announced else None
    with EventLog(log, reading_of(rename, fixed, ts_unit)) as events:
        if not events.in_order:
            note(f"{log} is not in the order of ts: it is sorted first")
        settings = {
            "batch": batch, "limit": limit, "shuffle_ties": shuffle_ties, "log": log.name,
            "items": items.name if items else None,
            "text_model": understood.model if understood else None,
            "text_precision": understood.precision if understood else None,
        }  # fmt: skip
        kept = Targets() if ranks else Ranks() if compare else None
        report = _replay(events, announced, chosen, settings, kept, understood)
    if kept is not None and ranks is not None:
        try:
            kept.write(ranks)
        except OSError as e:
            refuse_output(ranks, e)
    _deliver(report, kept, json_out, plot, compare)
    written = [str(p) for p in (json_out, ranks, plot) if p is not None]
    if written:
        note(f"written: {', '.join(written)}")


def _understood(items: list[Item], model: str | None) -> Understood | None:
    """The items' texts as vectors; None when they have none."""
    from encoders.text_config import TextModelError
    from streams.texts import text_of
    from streams.understanding import understand

    wordy = sum(1 for item in items if text_of(item))
    if not wordy:
        return None
    with progress_bar() as bar:
        task = bar.add_task("reading texts", total=wordy, note="")
        try:
            return understand(items, model, lambda count: bar.advance(task, count))
        except TextModelError as fault:
            raise UsageFault(str(fault)) from None


def _replay(
    events: EventLog,
    items: list[Item],
    config: Any,
    settings: dict[str, Any],
    kept: Ranks | None,
    understood: Understood | None,
) -> dict[str, Any]:
    import dataclasses

    from online.texts import TextConfig
    from streams.replay import backtest as replay

    limit = settings["limit"]
    total = min(events.rows, limit or events.rows)
    with progress_bar() as bar:
        task = bar.add_task("replaying", total=total, note="")

        def on_step(count: int, step: Any) -> None:
            bar.advance(task, count)
            if kept is not None:
                kept.add(step)

        if understood is not None:
            config = dataclasses.replace(config, text=TextConfig(understood.width))
        return replay(
            events.batches(settings["batch"], limit=limit, shuffle_ties=settings["shuffle_ties"]),
            items,
            config,
            reader=understood.reader if understood else None,
            texts=understood.items if understood else (),
            settings=settings,
            on_step=on_step,
        )


def _deliver(
    report: dict[str, Any],
    kept: Ranks | None,
    json_out: Path | None,
    plot: Path | None,
    compare: Path | None,
) -> None:
    from streams import report as pages

    if json_out is not None:
        write_json(json_out, report)
    screen().print(pages.quality_table(report))
    if compare is not None:
        other = pages.load_report(compare)
        screen().print(pages.comparison_table(report, other, compare, kept))
    if plot is not None:
        pages.plot_curve(report, plot)
