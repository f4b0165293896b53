"""`freshrec bench recovery` and `freshrec bench workers`."""

from __future__ import annotations

from typing import Annotated

import typer

from streams.commands.bench import JsonOut, Log, _deliver, _progress
from streams.commands.common import (
    Failure,
    Map,
    Set,
    TsUnit,
    reading_of,
    refuse_unwritable,
    settings_of,
)


def recovery(
    events: Annotated[int, typer.Option(min=10_000, help="Events to learn.")] = 150_000,
    users: Annotated[int, typer.Option(min=100, help="Different users.")] = 100_000,
    items: Annotated[int, typer.Option(min=100, help="Different items.")] = 50_000,
    json_out: JsonOut = None,
) -> None:
    """What checkpoints cost, and how soon a worker that was killed serves again.

    The same events with checkpoints as they are set, and with hardly any; then a kill.

    [dim]freshrec bench recovery --json recovery.json[/dim]
    """
    refuse_unwritable(json_out)
    settings = settings_of()
    from streams.bench.recovery import RecoveryPlan, run
    from streams.recovery_report import recovery_table

    with _progress() as say:
        report = run(RecoveryPlan(events, users, items, settings.seed), settings, say)
    _deliver(report, json_out, [recovery_table(report)])


def workers(
    log: Log,
    count: Annotated[str, typer.Option(metavar="N,N,…", help="How many workers.")] = "1,2,4",
    events: Annotated[int, typer.Option(min=1000, help="Events of the log.")] = 100_000,
    rate: Annotated[int, typer.Option(min=1, help="Events/s at the pace.")] = 500,
    flat: Annotated[int, typer.Option(min=1000, help="Events that come at once.")] = 40_000,
    json_out: JsonOut = None,
    rename: Map = None,
    fixed: Set = None,
    ts_unit: TsUnit = "ms",
) -> None:
    """Several workers on one log, beside one: processor time for each event, and quality.

    [dim]freshrec bench workers clicks.parquet --count 1,4[/dim]
    """
    refuse_unwritable(json_out)
    settings = settings_of()
    from streams.bench.workers import WorkersPlan, run
    from streams.recovery_report import workers_table

    try:
        numbers = tuple(int(n) for n in count.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(1 <= n <= 16 for n in numbers):
        raise Failure(f"--count {count}: use whole numbers from 1 to 16, such as 1,2,4")
    plan = WorkersPlan(log, numbers, events, rate, flat, reading_of(rename, fixed, ts_unit))
    with _progress() as say:
        report = run(plan, settings, say)
    _deliver(report, json_out, [workers_table(report)])
