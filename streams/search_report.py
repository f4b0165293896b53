"""What `freshrec bench search` and `bench vectors` found, as tables: figures beside limits."""

from __future__ import annotations

from typing import Any

from rich.table import Table


def search_tables(report: dict[str, Any]) -> list[Table]:
    """How long answers and new items took beside what is allowed; processors and memory."""
    return [_waits_table(report), _costs_table(report)]


def _waits_table(report: dict[str, Any]) -> Table:
    plan, limits = report["plan"], report["limits"]
    search, items = report["search_ms"], report["new_item_ms"]
    table = Table(
        title=f"{plan['searches']:g} searches/s among {plan['items']:,} items while"
        f" {report['events_per_second']:,.0f} events/s are learned, ms",
        title_justify="left",
    )
    for n, name in enumerate(("", "p50", "p99", "highest", "of", "allowed", "is … of it")):
        table.add_column(name, justify="right" if n else "left")

    def row(what: str, found: dict[str, Any], *names: str) -> None:
        allowed = " / ".join(f"{limits[name]:,.0f}" for name in names)
        ratio = " / ".join(f"{report['ratios'][n]:.2f}" for n in names if n in report["ratios"])
        values = (found[key] for key in ("p50", "p99", "max"))
        shown = ("" if value is None else f"{value:,.0f}" for value in values)
        table.add_row(what, *shown, f"{found['count']:,}", allowed, ratio)

    row("/search", search, "search_p50_ms", "search_p99_ms")
    for who, found in report["search_ms_of"].items():
        row(f"  {who}", found)
    table.add_section()
    row("new item, published to read", items["rows"], "item_p99_ms")
    row("  a client sees what is like it", items["client: like it"])
    row("  a client finds its title", items["client: its title"])
    table.caption = (
        f"{search['failed']} answers failed, {search['empty']} were empty;"
        f" {items['rows']['unread']} new items were not read, {items['unseen']} not seen"
    )
    return table


def _costs_table(report: dict[str, Any]) -> Table:
    table = Table(title="meanwhile", title_justify="left")
    table.add_column("part")
    table.add_column("processors", justify="right")
    for name, share in sorted(report["processors"].items(), key=lambda each: -each[1]):
        table.add_row(name, f"{share:.2f}")
    table.add_section()
    table.add_row("all", f"{sum(report['processors'].values()):.2f}")
    table.caption = (
        f"memory at most {report['peak_rss_mb']:,.0f} MB, of the bound of {report['bound_mb']:,} MB"
        f" {report['peak_rss_mb'] / report['bound_mb']:.2f};\n"
        f"{report['items_read_per_second']:,.0f} texts/s were read before"
    )
    return table


def vectors_tables(report: dict[str, Any]) -> list[Table]:
    """What is found, how long it takes, and what it takes in memory."""
    table = Table(
        title=f"text vectors of {report['width']} numbers, as the core keeps and searches them",
        title_justify="left",
    )
    for name in ("items", "recall@10", "least", "search, ms p50", "p99"):
        table.add_column(name, justify="right")
    for row in report["sizes"]:
        times = (f"{row[f'scan_ms_{p}']:.2f}" for p in ("p50", "p99"))
        least = f"{report['least_recall']:.2f}"
        table.add_row(f"{row['items']:,}", f"{row['recall@10']:.4f}", least, *times)
    most = max(row["items"] for row in report["sizes"])
    table.caption = (
        f"{report['texts_mb']:,.0f} MB for {most:,} items ({report['vectors_mb']:,.0f} of them the"
        f" vectors), {report['ratio']:.2f} of FRESHREC_MEMORY_MB={report['bound_mb']};\nwith all"
        f" else that is known of items, that holds {report['items_within_bound']:,};"
        f" {report['bound_for_all_mb']:,} MB hold {most:,}"
    )
    return [table]
