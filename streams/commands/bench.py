"""`freshrec bench`: speed, freshness, memory and the encoder, beside their limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    settings_of,
    write_json,
)

bench = typer.Typer(
    no_args_is_help=True,
    help="Measure speed, freshness and memory beside their limits, in one run.",
)

Log = Annotated[Path, typer.Argument(metavar="LOG", help="Events: Parquet, CSV or JSONL (.gz).")]
Items = Annotated[Path | None, typer.Option(metavar="FILE", help="Catalogue, announced first.")]
JsonOut = Annotated[
    Path | None, typer.Option("--json", metavar="OUT", help="Write the report there.")
]


@bench.command()
def live(
    log: Log,
    items: Items = None,
    events: Annotated[int, typer.Option(min=1000, help="Events at full speed.")] = 20_000,
    rate: Annotated[int, typer.Option(min=1, help="Events/s while freshness is measured.")] = 500,
    seconds: Annotated[float, typer.Option(min=1, help="… for so long.")] = 20.0,
    json_out: JsonOut = None,
    rename: Map = None,
    fixed: Set = None,
    ts_unit: TsUnit = "ms",
) -> None:
    """The whole pipeline: Kafka in, full model, rows in chdb, offsets acknowledged.

    Limits of the same run: a Faust agent that does nothing, the same worker with a core (in its
    own process as well) that learns nothing, and the backtest of the same events.

    [dim]freshrec bench live clicks.parquet --json live.json[/dim]
    """
    refuse_unwritable(json_out)
    settings = settings_of()
    from streams.bench.live import LivePlan, run
    from streams.report import live_tables

    plan = LivePlan(log, items, events, rate, seconds, reading_of(rename, fixed, ts_unit))
    with _progress() as say:
        report = run(plan, settings, say)
    _deliver(report, json_out, live_tables(report))


@bench.command()
def text(
    log: Log,
    items: Annotated[Path, typer.Option(metavar="FILE", help="Catalogue with titles.")],
    limit: Annotated[int | None, typer.Option(min=1000, help="Only the first N events.")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="As FRESHREC_TEXT_MODEL.")
    ] = None,
    json_out: JsonOut = None,
    rename: Map = None,
    fixed: Set = None,
    ts_unit: TsUnit = "ms",
) -> None:
    """What the language model costs, and what understanding texts is worth: cold users, search.

    [dim]freshrec bench text sales.parquet --items products.parquet --limit 60000[/dim]
    """
    refuse_unwritable(json_out)
    from encoders.text_config import BUNDLED
    from streams.bench.text import TextPlan, run
    from streams.report import text_tables

    reading = reading_of(rename, fixed, ts_unit)
    plan = TextPlan(log, items, model or BUNDLED, limit, reading=reading)
    with _progress() as say:
        report = run(plan, say)
    _deliver(report, json_out, text_tables(report))


@bench.command()
def backtest(
    log: Log,
    items: Items = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N events.")] = None,
    exclude_seen: Annotated[bool, typer.Option("--exclude-seen", help="As for backtest.")] = False,
    json_out: JsonOut = None,
    rename: Map = None,
    fixed: Set = None,
    ts_unit: TsUnit = "ms",
) -> None:
    """The core on a log, beside reading the log and driving a core that learns nothing.

    [dim]freshrec bench backtest clicks.parquet --limit 20000[/dim]
    """
    refuse_unwritable(json_out)
    from streams.bench.offline import run
    from streams.report import rates_table

    extra = ["--exclude-seen"] if exclude_seen else []
    reading = reading_of(rename, fixed, ts_unit)
    with _progress() as say:
        report = run(log, items, reading, limit, extra, say)
    _deliver(report, json_out, [rates_table(report, "backtest")])


@bench.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long at full speed.")] = 10.0,
    users: Annotated[int, typer.Option(min=1, help="Distinct users.")] = 1_000_000,
    items: Annotated[int, typer.Option(min=1, help="Distinct items.")] = 200_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the traffic.")] = 0,
    json_out: JsonOut = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Draw memory and speed there (PNG).")
    ] = None,
) -> None:
    """Generated traffic at full speed: memory against FRESHREC_MEMORY_MB, speed by minute.

    Users and items arrive at an even pace, all of them by the end. The producer's time is that of
    this program, whose work for an event is always the same.

    The exit code is 1 if the worker needed more memory than its bound.

    [dim]freshrec bench soak --minutes 10 --json soak.json --plot soak.png[/dim]
    """
    refuse_unwritable(json_out, plot)
    settings = settings_of()
    from streams.bench.soak import run
    from streams.bench.traffic import Traffic
    from streams.report import plot_soak, soak_table

    with _progress("s") as say:
        report = run(settings, Traffic(users, items, seed), minutes, say)
    _deliver(report, json_out, [soak_table(report)])
    if plot is not None:
        plot_soak(report, plot)
        note(f"written: {plot}")
    if not report["within_bound"]:
        raise Failure(
            f"the worker used {report['peak_rss_mb']:,.0f} MB; FRESHREC_MEMORY_MB allows"
            f" {report['bound_mb']:,}"
        )


@bench.command()
def encoder(
    device: Annotated[
        str, typer.Option(metavar="NAME", help="What computes: auto, cpu, cuda or mps.")
    ] = "auto",
    seconds: Annotated[float, typer.Option(min=0.01, help="For each figure.")] = 3.0,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Encode and train through torch.compile.")
    ] = False,
    json_out: JsonOut = None,
) -> None:
    """The sequence encoder: serving, training and the index, beside what the device can do.

    The limits: matrix products on the same device, 8 ms for one event more of 256 users, and 1e-4
    between the queries of the core's form of the encoder and PyTorch's. The core serves from the
    processor, whatever the device.

    The exit code is 1 if the forms differ by more.

    [dim]freshrec bench encoder --json encoder.json[/dim]
    """
    refuse_unwritable(json_out)
    from streams.bench.encoder import run
    from streams.bench.encoder_work import EncoderPlan
    from streams.encoder_report import encoder_tables

    with _progress("parts") as say:
        report = run(EncoderPlan(device, seconds, compiled), say)
    _deliver(report, json_out, encoder_tables(report))
    apart = report["differences"]
    if not apart["largest"] <= apart["limit"]:
        raise Failure(
            f"the forms of the encoder differ by {apart['largest']:.1e}; {apart['limit']:.0e}"
            " is allowed"
        )


@bench.command()
def delay(
    log: Log,
    items: Items = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N events.")] = None,
    exclude_seen: Annotated[bool, typer.Option("--exclude-seen", help="As for backtest.")] = False,
    json_out: JsonOut = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Draw the curve there (PNG).")
    ] = None,
    rename: Map = None,
    fixed: Set = None,
    ts_unit: TsUnit = "ms",
) -> None:
    """Quality when the encoder's weights lag behind the events: what freshness is worth here.

    Backtests of the log whose weights serve anew after each event, every 100, 1,000 and 5,000
    events; one that stops learning them in the middle, and one without the encoder.

    [dim]freshrec bench delay clicks.parquet --plot delay.png[/dim]
    """
    refuse_unwritable(json_out, plot)
    from streams.bench.delay import DelayPlan, run
    from streams.delay_report import delay_table, plot_delay

    extra = ("--exclude-seen",) if exclude_seen else ()
    plan = DelayPlan(log, items, limit, extra, reading=reading_of(rename, fixed, ts_unit))
    with _progress("backtests") as say:
        report = run(plan, say)
    _deliver(report, json_out, [delay_table(report)])
    if plot is not None:
        plot_delay([report], plot)
        note(f"written: {plot}")


def _deliver(report: dict[str, Any], json_out: Path | None, tables: list[Any]) -> None:
    for table in tables:
        screen().print(table)
    if json_out is not None:
        write_json(json_out, report)
        note(f"written: {json_out}")


@contextmanager
def _progress(unit: str = "events") -> Iterator[Callable[[str, int, int], None]]:
    with progress_bar(unit) as bar:
        task = bar.add_task("", total=None, note="")

        def say(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield say
