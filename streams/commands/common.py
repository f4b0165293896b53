"""What commands share: options, failures, and the wording of both."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from infra.settings import Settings
    from streams.logfile import Reading

Map = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="OURS=THEIRS", help="Read column OURS from THEIRS; repeatable."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="COLUMN=VALUE", help="Give COLUMN one value in all rows."),
]
TsUnit = Annotated[
    str, typer.Option("--ts-unit", metavar="UNIT", help="What ts counts: s, ms, us, or iso (text).")
]


class UsageFault(Exception):
    """The command line or a setting is wrong: exit code 2."""


class Failure(Exception):
    """The work could not be done: exit code 1."""


def pairs(option: str, given: list[str] | None) -> dict[str, str]:
    """`["a=b"]` as a dict.

    >>> pairs("--map", ["ts=time", "user_id=customer"])
    {'ts': 'time', 'user_id': 'customer'}
    """
    out: dict[str, str] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UsageFault(f"{option} {text}: NAME=VALUE is needed, such as {option} ts=time")
        out[name.strip()] = value
    return out


def reading_of(
    rename: list[str] | None, fixed: list[str] | None, ts_unit: str, option: str = "--map"
) -> Reading:
    """The reading that --map, --set and --ts-unit ask for."""
    from streams.logfile import LogError, Reading

    try:
        return Reading(pairs(option, rename), pairs("--set", fixed), ts_unit)
    except LogError as e:
        raise UsageFault(str(e)) from e


def settings_of(say_unknown: bool = True) -> Settings:
    """The settings of this process; of the log, only errors are shown."""
    import os

    from infra.log import configure
    from infra.settings import Settings

    settings = Settings.from_env(os.environ)
    for said in settings.unknown if say_unknown else ():
        note(f"freshrec: {said}")
    configure("error")
    return settings


def print_lines(text: str) -> None:
    """A result, to stdout."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def note(text: str) -> None:
    """Something worth knowing that is not the result, to stderr."""
    print(text, file=sys.stderr)


def screen() -> Console:
    """Where tables go: stdout."""
    from rich.console import Console

    return Console()


def progress_bar(unit: str = "events") -> Progress:
    """A bar on stderr, only if that is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + " {task.fields[note]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def write_json(path: Path, report: Any) -> None:
    """`report` as indented JSON, replaced in one go so that a reader never sees half a file."""
    import json
    import os

    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as e:
        refuse_output(path, e)


def refuse_output(path: Path, e: OSError) -> NoReturn:
    """`path` cannot be written."""
    raise UsageFault(f"{path} cannot be written ({e.strerror}): name a file in a writable folder")


def refuse_unwritable(*paths: Path | None) -> None:
    """Before long work: every output's folder must exist and be writable."""
    import os

    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise UsageFault(f"{path} is a folder: name a file")
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise UsageFault(f"{path} cannot be written: {path.parent} is no writable folder")
