"""`freshrec up`, `worker` and `migrate`: what runs until it is stopped, and what it needs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from streams.commands.common import note, print_lines, settings_of

if TYPE_CHECKING:
    from infra.settings import Settings

Fresh = Annotated[
    bool,
    typer.Option("--fresh", help="Set the checkpoints aside, and begin from the journal."),
]


NoText = Annotated[bool, typer.Option("--no-text", help="Do not read texts: as FRESHREC_TEXT=off.")]


def up(fresh: Fresh = False, no_text: NoText = False) -> None:
    """Start everything: the embedded parts and a worker. Ctrl-C stops it, losing nothing.

    With the default settings that is a broker and a warehouse on this machine; with
    FRESHREC_BROKER and FRESHREC_WAREHOUSE set, a worker on your own servers.

    [dim]freshrec up[/dim]
    """
    settings = _settings(no_text)
    from streams.worker import run_up

    raise typer.Exit(run_up(settings, fresh))


def worker(fresh: Fresh = False, no_text: NoText = False) -> None:
    """Start one more worker against your own Kafka (FRESHREC_BROKER=kafka://…).

    Workers of one FRESHREC_GROUP share the partitions; start as many as there are.

    [dim]FRESHREC_BROKER=kafka://kafka:9092 freshrec worker[/dim]
    """
    settings = _settings(no_text)
    from streams.worker import run_worker

    raise typer.Exit(run_worker(settings, fresh))


def _settings(no_text: bool) -> Settings:
    if no_text:
        os.environ["FRESHREC_TEXT"] = "off"
    return settings_of(say_unknown=False)  # the worker logs them


def migrate() -> None:
    """Create or update the warehouse's tables; safe to repeat.

    A worker does the same when it starts. Use this before an upgrade of several workers.
    """
    settings = settings_of()
    from infra.warehouse import connect, without_password

    warehouse = connect(settings.warehouse_url)
    try:
        applied = warehouse.migrate()
    finally:
        warehouse.close()
    for name in applied:
        print_lines(f"applied {name}")
    note(f"{without_password(settings.warehouse_url)} is up to date")
