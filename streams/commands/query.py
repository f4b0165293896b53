"""`freshrec query` and `freshrec recommend`: read what the warehouse holds."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands.common import Failure, screen, settings_of

if TYPE_CHECKING:
    from streams.reader import Reader

_FORMAT = re.compile(r"\sFORMAT\s+(\w+)\s*;?\s*\Z", re.IGNORECASE)
_SLATE = """
SELECT r.position, r.item_id, i.title, r.score, r.reason, r.source, r.written_ms
FROM (
    SELECT position, item_id, score, reason, source, written_ms FROM live_recommendations
    WHERE user_id = {user:String} AND position <= {k:Int32}
) AS r
LEFT JOIN (SELECT item_id, title FROM live_items) AS i ON r.item_id = i.item_id
ORDER BY r.position
"""


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="A statement that reads.")],
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="JSON, CSV, … (default: a table)."),
    ] = None,
) -> None:
    """Ask the warehouse in SQL: recommendations, metrics, events, dead letters.

    A running worker is asked over HTTP; otherwise the warehouse is opened here. Views that
    always show the newest: live_recommendations, live_metrics, live_items, live_events.

    [dim]freshrec query "SELECT * FROM live_metrics"[/dim]

    [dim]freshrec query "SELECT * FROM live_recommendations" --format CSVWithNames[/dim]
    """
    said = _FORMAT.search(sql)
    if said:
        sql, form = sql[: said.start()], form or said[1]
    with _reader() as reader:
        if form is not None:
            sys.stdout.flush()
            sys.stdout.buffer.write(reader.text(sql, form))
            sys.stdout.buffer.flush()
            return
        answer = reader.answer(sql)
    screen().print(table_of(answer.columns, answer.rows))


def recommend(
    user: Annotated[str, typer.Argument(metavar="USER", help="The user's id.")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many at most.")] = 10,
) -> None:
    """Show a user's newest recommendations, with reasons.

    [dim]freshrec recommend 17850 -k 5[/dim]
    """
    pseudonyms = settings_of(say_unknown=False).pseudonyms
    known_as = pseudonyms.user(user) if pseudonyms else user
    with _reader() as reader:
        rows = reader.answer(_SLATE, user=known_as, k=k).rows
    if not rows:
        raise Failure(
            f"there are no recommendations for user {user!r}: they come with the user's first"
            ' event (freshrec query "SELECT DISTINCT user_id FROM live_recommendations")'
        )
    now_ms = time.time() * 1000
    shown = [
        (position, item, title, f"{score:.3f}", reason, source, _age(now_ms - written_ms))
        for position, item, title, score, reason, source, written_ms in rows
    ]
    screen().print(table_of(["", "item", "title", "score", "reason", "source", "age"], shown))


@contextlib.contextmanager
def _reader() -> Iterator[Reader]:
    settings = settings_of()
    from streams.reader import open_reader

    reader = open_reader(settings)
    try:
        yield reader
    finally:
        reader.close()


def table_of(columns: list[str], rows: list[tuple[Any, ...]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for n, name in enumerate(columns):
        numbers = bool(rows) and all(isinstance(row[n], int | float) for row in rows)
        table.add_column(Text(name), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if value is None else str(value)) for value in row))
    if not rows:
        table.caption = "no rows"
    return table


def _age(milliseconds: float) -> str:
    """How long ago, in the largest unit that fits.

    >>> _age(90_000)
    '1 min'
    """
    seconds = max(0.0, milliseconds / 1000)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(milliseconds)} ms" if milliseconds > 0 else "0 ms"
