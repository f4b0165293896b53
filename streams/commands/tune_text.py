"""`freshrec tune-text`: adapt the language model to a shop, by what goes together there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from streams.commands.common import (
    Failure,
    Map,
    Set,
    TsUnit,
    note,
    progress_bar,
    reading_of,
    refuse_unwritable,
    screen,
    write_json,
)


def tune_text(
    log: Annotated[
        Path, typer.Argument(help="Events: Parquet, CSV or JSONL, optionally .gz.", metavar="LOG")
    ],
    items: Annotated[Path, typer.Option(metavar="FILE", help="Catalogue: what the items say.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the adapter there, if it gains.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an adapter in DIR.")] = False,
    text_model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="What to adapt: a folder, or hub id (default: the included one)."
        ),
    ] = None,
    pairs: Annotated[
        int, typer.Option(min=500, metavar="N", help="Learn from the newest N pairs, at most.")
    ] = 20_000,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N events.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all chance.")] = 0,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.")] = "auto",
    json_out: Annotated[
        Path | None, typer.Option("--json", metavar="OUT", help="Write the figures there.")
    ] = None,
    rename: Map = None,
    fixed: Set = None,
    ts_unit: TsUnit = "ms",
    items_map: Annotated[
        list[str] | None,
        typer.Option("--items-map", metavar="OURS=THEIRS", help="As --map, for --items."),
    ] = None,
) -> None:
    """Adapt the language model to a shop, by items of one visit and by queries' answers.

    What is learned is a small adapter: FRESHREC_TEXT_MODEL=DIR loads it with the model it belongs
    to, and so does backtest --text-model DIR. The newest part of the log only measures the gain;
    an adapter that does not gain is not written, and the exit code is 1.

    [dim]freshrec tune-text clicks.parquet --items products.csv --out shop-words[/dim]
    """
    from encoders.text_config import BUNDLED, TextConfig
    from encoders.tuning import TuningConfig
    from streams.logfile import EventLog, ItemFile
    from streams.tuning import adapt, refuse_folder

    refuse_unwritable(json_out)
    if out is not None:
        refuse_folder(out, force)
    name, _, revision = (text_model or BUNDLED).partition("@")
    base = TextConfig(model=name, revision=revision, device=device)
    if text_model and Path(text_model).is_dir():
        base = TextConfig(model=text_model, device=device)
    catalogue = list(ItemFile(items, reading_of(items_map, None, "ms", "--items-map")))
    with (
        EventLog(log, reading_of(rename, fixed, ts_unit)) as events,
        tempfile.TemporaryDirectory(prefix="freshrec-tune-") as nowhere,
        progress_bar("steps") as bar,
    ):
        task = bar.add_task("reading the log", total=None, note="")

        def say(what: str, count: int, total: int, said: str) -> None:
            bar.update(task, description=what, completed=count, total=total, note=said)

        report = adapt(
            (e for batch in events.batches(limit=limit) for e in batch), catalogue, base,
            out or Path(nowhere) / "adapter", TuningConfig(seed=seed), say, pairs, force,
        )  # fmt: skip
    report = {"log": log.name, "items": items.name, **report}
    screen().print(_table(report))
    if json_out is not None:
        write_json(json_out, report)
    if not report["gains"]:
        raise Failure(_refusal(report))
    if out is not None:
        note(f"written: {out}; use it with FRESHREC_TEXT_MODEL={out.absolute()}")


def _table(report: dict[str, Any]) -> Any:
    from rich.table import Table

    found = report["pairs"]
    table = Table(
        title=f"{report['log']}: {found['learned']:,} pairs taught, step {report['best_step']} of"
        f" {report['steps']} kept, {report['share']:.0%} of it"
    )
    for column in (
        "held out",
        "pairs",
        "recall@10",
        "adapted",
        "rank",
        "adapted",
        "better by, 95 %",
    ):
        table.add_column(column, justify="left" if column == "held out" else "right")
    for row in report["measured"]:
        recall = [f"{value:.4f}" for value in row["recall@10"]]
        rank = [f"{value:.1f}" for value in row["rank"]]
        gain = f"{row['gain']:+.1%} ({row['low']:+.1%} … {row['high']:+.1%})"
        table.add_row(row["what"], f"{row['pairs']:,}", *recall, *rank, gain)
    return table


def _refusal(report: dict[str, Any]) -> str:
    why = "; ".join(
        f"{row['what']}: {row['gain']:+.1%} ({row['low']:+.1%} … {row['high']:+.1%})"
        for row in report["measured"]
    )
    return (
        f"no adapter is written, since it does not gain for certain: {why}. The model serves as "
        "well as it is; a longer log, or one with queries, has more to learn from"
    )
