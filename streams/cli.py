"""The command `freshrec`: its parser, and what users see when something is wrong.

Exit codes: 0 done, 1 failed, 2 the command line or a setting is wrong, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from streams.commands import (
    audit,
    backtest,
    bench,
    bench_workers,
    check,
    compare,
    demo,
    forget,
    produce,
    query,
    run,
    search,
    train,
    tune_text,
)
from streams.commands.common import Failure, UsageFault

# by name: importing the modules that define them would make every command slow to start
USAGE = {"LogError", "ConfigError", "SettingsError", "DeviceError", "TextModelError"}
FAILURES = {"WarehouseError", "BrokerError", "BrokerUnreachable", "SqlError", "PlotError",
            "BenchError", "CheckpointError", "TrainingError", "TuningError", "TrainerLost",
            "TrainerRefused", "TextLost"}  # fmt: skip

app = typer.Typer(
    name="freshrec",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        typer.echo(f"freshrec {importlib.metadata.version('freshrec')}")
        raise typer.Exit


@app.callback()
def freshrec(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A streaming recommender that learns online: events in, fresh recommendations out.

    Start with [bold]freshrec demo[/bold], or [bold]freshrec up[/bold] and
    [bold]freshrec produce LOG[/bold]. Settings are read from FRESHREC_… variables
    and from .env; [bold]freshrec check[/bold] tells whether they work.
    """


for command in (
    demo.demo, run.up, produce.produce, query.recommend, search.search, search.similar,
    query.query, forget.forget,
    backtest.backtest, compare.compare, train.train, tune_text.tune_text, check.check,
    audit.audit, run.worker, run.migrate,
):  # fmt: skip
    app.command()(command)
bench.bench.command()(bench_workers.recovery)
bench.bench.command()(bench_workers.workers)
app.add_typer(bench.bench, name="bench")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code. Failures are lines on stderr, never a traceback.

    FRESHREC_DEBUG=1 lets the exception through.
    """
    try:
        return _run(arguments)
    except BaseException as e:
        if os.environ.get("FRESHREC_DEBUG", "") not in ("", "0"):
            raise
        return _fault(e)


def _run(arguments: list[str] | None) -> int:
    outcome = app(args=arguments, prog_name="freshrec", standalone_mode=False)
    return outcome if isinstance(outcome, int) else 0


def _fault(e: BaseException) -> int:
    if isinstance(e, KeyboardInterrupt | typer.Abort):
        return 130
    if isinstance(e, SystemExit):
        return e.code if isinstance(e.code, int) else 1
    if isinstance(e, BrokenPipeError):  # `freshrec query … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    message, code = _worded(e)
    for line in (message.rstrip() or type(e).__name__).splitlines():
        print(f"freshrec: {line}", file=sys.stderr)
    return code


def _worded(e: BaseException) -> tuple[str, int]:
    if hasattr(e, "format_message") and hasattr(e, "exit_code"):  # the parser's own faults
        context = getattr(e, "ctx", None)
        see = f"\nsee {context.command_path} --help" if context else ""
        return f"{e.format_message()}{see}", int(e.exit_code)
    if isinstance(e, Failure):
        return str(e), 1
    kinds = {kind.__name__ for kind in type(e).__mro__}
    if isinstance(e, UsageFault) or kinds & USAGE:
        return str(e), 2
    if kinds & FAILURES:
        return str(e), 1
    return f"unexpected {type(e).__name__}: {e}\nFRESHREC_DEBUG=1 shows where it comes from", 1


if __name__ == "__main__":
    sys.exit(main())
