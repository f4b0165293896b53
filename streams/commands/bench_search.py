"""`freshrec bench search` and `freshrec bench vectors`."""

from __future__ import annotations

from typing import Annotated

import typer

from streams.commands.bench import JsonOut, _deliver, _progress
from streams.commands.common import Failure, refuse_unwritable, settings_of


def search(
    items: Annotated[int, typer.Option(min=100, help="Catalogue, made up.")] = 50_000,
    rate: Annotated[int, typer.Option(min=1, help="Events/s that are learned meanwhile.")] = 500,
    searches: Annotated[float, typer.Option(min=1, help="Questions/s to /search.")] = 20.0,
    new_items: Annotated[float, typer.Option(min=0, help="Items/s that are published.")] = 20.0,
    seconds: Annotated[float, typer.Option(min=2, help="For so long.")] = 60.0,
    history: Annotated[int, typer.Option(min=100, help="Events that are learned before.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the catalogue and traffic.")] = 0,
    short: Annotated[bool, typer.Option("--short", help="2,000 items, 10 seconds.")] = False,
    json_out: JsonOut = None,
) -> None:
    """How long shoppers wait for /search, and a new item for its shoppers, under load.

    A question's time counts from the moment at which it is due. The whole catalogue is read by the
    language model first, which takes a minute or two.

    The exit code is 1 if an answer failed or was empty.

    [dim]freshrec bench search --json search.json[/dim]
    """
    refuse_unwritable(json_out)
    settings = settings_of()
    from streams.bench.search import SearchPlan, run
    from streams.search_report import search_tables

    plan = SearchPlan(
        items=2_000 if short else items, history=2_000 if short else history, rate=rate,
        searches=searches, new_items=new_items, seconds=10.0 if short else seconds, seed=seed,
    )  # fmt: skip
    with _progress() as say:
        report = run(plan, settings, say)
    _deliver(report, json_out, search_tables(report))
    asked = report["search_ms"]
    if asked["failed"] or asked["empty"]:
        said = asked.get("first_fault", "nothing was found")
        raise Failure(
            f"{asked['failed']} answers failed and {asked['empty']} were empty, of"
            f" {asked['count']}; the first: {said}"
        )


def vectors(
    items: Annotated[int, typer.Option(min=1_000, help="Items, made up.")] = 1_000_000,
    queries: Annotated[int, typer.Option(min=10, help="Searches at each size.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the vectors.")] = 0,
    short: Annotated[bool, typer.Option("--short", help="A tenth of the items.")] = False,
    json_out: JsonOut = None,
) -> None:
    """Text vectors of many items as the core keeps them: memory, recall, and time of a search.

    The exit code is 1 if fewer than 95 % of the ten nearest are found, or if the vectors alone
    take more than FRESHREC_MEMORY_MB.

    [dim]freshrec bench vectors --json vectors.json[/dim]
    """
    refuse_unwritable(json_out)
    settings = settings_of()
    from streams.bench.vectors import VectorsPlan, run
    from streams.search_report import vectors_tables

    most = items // 10 if short else items
    plan = VectorsPlan(tuple(sorted({min(50_000, most), most})), queries=queries, seed=seed)
    with _progress("items") as say:
        report = run(plan, settings, say)
    _deliver(report, json_out, vectors_tables(report))
    worst = min(row["recall@10"] for row in report["sizes"])
    if worst < report["least_recall"] or report["ratio"] > 1.0:
        raise Failure(
            f"recall@10 {worst} (at least {report['least_recall']} is needed),"
            f" {report['texts_mb']:,.0f} MB (FRESHREC_MEMORY_MB allows {report['bound_mb']:,})"
        )
