"""`freshrec check`: would it run here, and if not, what is the cure?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from streams.checks import Finding


def check() -> None:
    """Test the settings, the state folder, the broker, the topics and the warehouse.

    One line each: ok, a note, or a fault with its cure. The exit code is 1 on a fault.
    """
    from rich.markup import escape

    from infra.log import configure
    from streams.checks import findings
    from streams.commands.common import screen

    configure("error")
    console = screen()
    failed = False
    for finding in findings(os.environ):
        failed |= finding.state == "fault"
        console.print(
            f"[{_style(finding)}]{finding.state:5}[/] [bold]{finding.part:10}[/] "
            f"{escape(finding.text)}",
            highlight=False,
            soft_wrap=True,
        )
    raise typer.Exit(1 if failed else 0)


def _style(finding: Finding) -> str:
    return {"ok": "green", "note": "yellow", "fault": "bold red"}[finding.state]
