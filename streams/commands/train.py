"""`freshrec train`: learn the sequence encoder from a log, for a warm start."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands.common import (
    Map,
    Set,
    TsUnit,
    UsageFault,
    note,
    progress_bar,
    reading_of,
    refuse_unwritable,
    screen,
    write_json,
)

if TYPE_CHECKING:
    from streams.training import Trained


def train(
    log: Annotated[
        Path, typer.Argument(help="Events: Parquet, CSV or JSONL, optionally .gz.", metavar="FILE")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the checkpoint there.")
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="last-validates, or leave-one-out: the last event of a user is the test too.",
        ),
    ] = "last-validates",
    epochs: Annotated[int, typer.Option(min=1, max=10_000, help="At most.")] = 60,
    patience: Annotated[
        int, typer.Option(min=1, help="Validations without a better one before it ends.")
    ] = 8,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N events.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all chance.")] = 0,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.")] = "auto",
    json_out: Annotated[
        Path | None, typer.Option("--json", metavar="OUT", help="Write the figures there.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Draw the curves there (PNG).")
    ] = None,
    rename: Map = None,
    fixed: Set = None,
    ts_unit: TsUnit = "ms",
) -> None:
    """Learn the sequence encoder from a historical log, in epochs with early stopping.

    The checkpoint is what a worker starts from (FRESHREC_ENCODER_FROM=DIR), and a backtest
    with --config encoder.start=DIR: it knows the log's items from its first event on.

    [dim]freshrec train clicks.parquet --out encoder --plot curves.png[/dim]
    """
    from encoders.devices import Device
    from encoders.offline import OfflineConfig
    from infra.checkpoint import refuse_folder
    from streams import training
    from streams.logfile import EventLog

    refuse_unwritable(json_out, plot)
    if out is not None:
        refuse_folder(out)
    if protocol not in training.PROTOCOLS:
        raise UsageFault(f"--protocol {protocol}: use one of {', '.join(training.PROTOCOLS)}")
    chosen = Device.named(device)
    config = OfflineConfig(epochs=epochs, patience=patience)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, seed=seed))
    with EventLog(log, reading_of(rename, fixed, ts_unit)) as events:
        columns, ids = training.read(e for batch in events.batches(limit=limit) for e in batch)
    started = time.monotonic()
    with progress_bar() as bar:
        task = bar.add_task("training", total=None, note="")
        done, trained = training.train(
            columns, training.default_shape(), config, chosen, protocol,
            lambda n, of, said: bar.update(task, completed=n, total=of, note=said),
        )  # fmt: skip
    seconds = time.monotonic() - started
    report = _report(log, protocol, seed, seconds, trained, len(ids), len(columns.ts))
    _deliver(report, trained, json_out, plot)
    if out is not None:
        training.save(out, done, ids, report)
        note(f"written: {out}")


def _report(
    log: Path, protocol: str, seed: int, seconds: float, trained: Trained, items: int, events: int
) -> dict[str, Any]:
    return {
        "log": log.name,
        "protocol": protocol,
        "events": events,
        "items": items,
        "seed": seed,
        "seconds": round(seconds, 1),
        "best_epoch": trained.best_epoch,
        "validation": trained.validation._asdict(),
        "test": trained.test._asdict() if trained.test else None,
        "epochs": trained.epochs,
    }


def _deliver(
    report: dict[str, Any], trained: Trained, json_out: Path | None, plot: Path | None
) -> None:
    from rich.table import Table

    table = Table(
        title=f"{report['log']}: {report['protocol']}, best of {len(trained.epochs)} epochs"
    )
    for column in ("", "HR@10", "NDCG@10", "users"):
        table.add_column(column, justify="left" if not column else "right")
    for name, score in (("validation", trained.validation), ("test", trained.test)):
        if score is not None:
            table.add_row(name, f"{score.hr:.4f}", f"{score.ndcg:.4f}", f"{score.targets:,}")
    screen().print(table)
    note(f"{report['seconds']:.0f} s, best epoch {trained.best_epoch}")
    if json_out is not None:
        write_json(json_out, report)
    if plot is not None:
        from streams.report import plot_training

        plot_training(report, plot)
