"""`freshrec demo`: two minutes that show everything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streams.commands.common import Failure, settings_of


def demo(
    short: Annotated[bool, typer.Option("--short", help="A tenth of it, for CI.")] = False,
    stay: Annotated[
        bool, typer.Option("--stay", help="Stay up afterwards, to query and to send events.")
    ] = False,
    results: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the results are left.")
    ] = Path("results/demo"),
) -> None:
    """Replay two months of a real shop through Kafka and watch recommendations change.

    [dim]freshrec demo --stay[/dim]
    """
    settings = settings_of()
    from streams.demo import run
    from streams.demo_worker import DemoError

    try:
        code = run(settings, short=short, stay=stay, results=results)
    except DemoError as e:
        raise Failure(str(e)) from e
    raise typer.Exit(code)
