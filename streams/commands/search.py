"""`freshrec search` and `freshrec similar`: ask a running worker."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from streams.commands.common import Failure, screen, settings_of
from streams.commands.query import table_of

Count = Annotated[int, typer.Option("-k", min=1, max=100, help="How many at most.")]


class By(StrEnum):
    TEXT, BEHAVIOUR, BOTH = "text", "behaviour", "both"


def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What a shopper would type.")],
    user: Annotated[
        str, typer.Option("--user", metavar="USER", help="In the order for this user.")
    ] = "",
    k: Count = 10,
) -> None:
    """Find items by words and by meaning, in the order for a user.

    It changes nothing: for a query to count, send an event of type search.

    [dim]freshrec search "warm gift for grandma" --user 17850 -k 5[/dim]
    """
    _show(_asked("/search", q=query, user=user, k=k), f"nothing fits {query!r}")


def similar(
    item: Annotated[str, typer.Argument(metavar="ITEM", help="The item's id.")],
    by: Annotated[By, typer.Option("--by", help="By what is said, done, or both.")] = By.BOTH,
    k: Count = 10,
) -> None:
    """Show items like one, by their texts, by what shoppers do, or by both.

    [dim]freshrec similar 85123A --by text[/dim]
    """
    _show(_asked("/similar", item=item, by=by.value, k=k), f"nothing is known like {item!r}")


def _asked(path: str, **asked: Any) -> list[dict[str, Any]]:
    settings = settings_of()
    from streams.sql_client import ask_worker
    from streams.status import Running

    running = Running.load(settings.state)
    if running is None:
        raise Failure(
            "no worker runs with this FRESHREC_STATE: start freshrec up, or ask another worker "
            f"over HTTP (GET {path})"
        )
    return list(ask_worker(running.http_url, path, settings.http_token, **asked)["results"])


def _show(found: list[dict[str, Any]], nothing: str) -> None:
    if not found:
        raise Failure(nothing)
    rows = [
        (one["position"], one["item_id"], one["title"], f"{one['score']:.3f}", one["reason"])
        for one in found
    ]
    screen().print(table_of(["", "item", "title", "score", "reason"], rows))
