"""`freshrec audit`: was every event counted, once?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streams.commands.common import Failure, progress_bar, screen, settings_of, write_json

if TYPE_CHECKING:
    from rich.table import Table

    from streams.audit import Audit

WORDS = {
    "messages": "in the log",
    "counted": "counted: one row in events",
    "refused": "refused: one row in dead_letters, with the reason",
    "repeated": "repeated: the same event was counted once, from another place",
    "erased": "erased: their users asked to be forgotten",
    "lost": "LOST: no row anywhere",
    "double": "DOUBLED: more than one row",
}


def audit(
    report: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures there.")
    ] = None,
) -> None:
    """Account for every message of the topic events: counted or refused, once.

    Reads the whole log and asks the warehouse about each message; run it when workers have caught
    up. The exit code is 1 when anything was lost or doubled.

    [dim]freshrec audit[/dim]
    """
    from dataclasses import asdict

    from streams.audit import Auditor
    from streams.reader import open_reader
    from streams.status import reachable_broker
    from streams.topics import log_of

    settings = settings_of()
    broker = reachable_broker(settings)
    if broker is None:
        raise Failure(
            "the embedded broker's log ends with its worker: audit while `freshrec up` runs, or "
            "set FRESHREC_BROKER"
        )
    reader = open_reader(settings)
    try:
        with progress_bar() as bar:
            task = bar.add_task("auditing", total=None)
            auditor = Auditor(
                broker, _broker_id(settings.state, log_of(broker).id), reader,
                settings.max_record_bytes,
                settings.pseudonyms.user if settings.pseudonyms else lambda user: user,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )  # fmt: skip
            found = auditor.run()
    finally:
        reader.close()
    screen().print(_table(found))
    if report is not None:
        write_json(report, asdict(found))
    if not found.whole:
        places = ", ".join([*found.missing, *found.doubled])
        raise Failure(
            f"{found.lost} messages are lost and {found.double} doubled ({places}, …): if "
            "workers are still at work, let them catch up and audit again; else report this: a bug"
        )


def _broker_id(state: Path, asked: str) -> str:
    """The embedded broker's id is the one that its worker gave it."""
    from streams.status import Running

    running = Running.load(state)
    return running.cluster_id if running is not None and running.embedded else asked


def _table(found: Audit) -> Table:
    from rich.table import Table

    table = Table("messages", "", show_header=False)
    for name, meaning in WORDS.items():
        number = int(getattr(found, name))
        bad = name in ("lost", "double") and number
        style = "bold red" if bad else ("" if number else "dim")
        table.add_row(f"{number:,}", meaning, style=style)
    return table
