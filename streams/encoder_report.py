"""What `freshrec bench encoder` found, as tables: every figure beside its limit."""

from __future__ import annotations

from typing import Any

from rich.table import Table


def encoder_tables(report: dict[str, Any]) -> list[Table]:
    """Speed beside the device's peak, one event more, the nearest items, and the bounds."""
    tables = [_speed_table(report), _events_table(report)]
    if report["nearest"]:
        tables.append(_nearest_table(report))
    return [*tables, _bounds_table(report)]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for n, name in enumerate(columns):
        table.add_column(name, justify="right" if n else "left")
    return table


def _times(found: dict[str, Any]) -> list[str]:
    return [f"{found['p50_ms']:.3f}", f"{found['p99_ms']:.3f}"]


def _speed(found: dict[str, Any]) -> list[str]:
    return [*_times(found), f"{found['gflops']:,.1f}", f"{found['of_peak']:.1%}"]


def _speed_table(report: dict[str, Any]) -> Table:
    name = report["device_name"] or report["device"]
    table = _table(
        f"the encoder on {name}, {report['precision']}",
        "", "sequences/s", "p50, ms", "p99, ms", "GFLOP/s", "of the peak",
    )  # fmt: skip
    for row in report["whole_sequences"]:
        what = f"encode {row['users']} × {row['events']}"
        table.add_row(what, f"{row['encodes_per_second']:,.0f}", *_speed(row))
    table.add_section()
    for row in report["training"]:
        what = f"train on {row['items']:,} items"
        table.add_row(what, f"{row['train_sequences_per_second']:,.0f}", *_speed(row))
    table.add_section()
    for name, peak in report["peak_gflops"].items():
        table.add_row(f"limit, {name}", "", "", "", f"{peak:,.1f}", "")
    table.caption = (
        "users × events; the limit is the best matrix product; one thread, as in workers"
    )
    if report["torch_compile"]:
        table.caption += "; with torch.compile"
    return table


def _events_table(report: dict[str, Any]) -> Table:
    found = report["one_event"]
    table = _table(
        f"one event more for each of {found['users']:,} users, ms",
        "events before", "core: p50", "p99", f"of {found['limit_ms']:g} ms", "GFLOP/s",
        "of peak", "torch: p50", "p99", "anew, µs",
    )  # fmt: skip
    for row in found["histories"]:
        ours = row["compiled"]
        speed = _speed(ours)
        share = f"{ours['p50_ms'] / found['limit_ms']:.1%}"
        table.add_row(
            f"{row['events']:,}", *speed[:2], share, *speed[2:], *_times(row["torch"]),
            f"{row['rebuild_us_per_user']:,.1f}",
        )  # fmt: skip
    table.caption = "anew: a user's state from so many events, when other weights had made it"
    return table


def _nearest_table(report: dict[str, Any]) -> Table:
    table = _table(
        "nearest items, µs", "items", "recall@100", "search", "exact", "search/exact",
        "update", "longest update, ms",
    )  # fmt: skip
    for row in report["nearest"]:
        table.add_row(
            f"{row['items']:,}", f"{row['recall_at_100']:.3f}", f"{row['search_us']:,.0f}",
            f"{row['exact_us']:,.0f}", f"{row['search_us'] / row['exact_us']:.2f}",
            f"{row['update_us']:,.1f}", f"{row['longest_update_ms']:,.1f}",
        )  # fmt: skip
    return table


def _bounds_table(report: dict[str, Any]) -> Table:
    table = _table("bounds", "", "is", "may be", "ratio")
    event, apart, state = report["one_event"], report["differences"], report["state"]
    slowest = event["of_limit"] * event["limit_ms"]
    table.add_row(
        f"one event, {event['users']:,} users: p50, ms",
        f"{slowest:.2f}", f"{event['limit_ms']:g}", _ratio(event["of_limit"]),
    )  # fmt: skip
    first, last = (event["histories"][n]["events"] for n in (0, -1))
    for form, name in (("compiled", "core"), ("torch", "torch")):
        what = f"{name}: after {last:,} / {first:,} events"
        table.add_row(what, f"{event['growth'][form]:.2f}", "about 1", "")
    table.add_row(
        "largest difference of the forms",
        f"{apart['largest']:.1e}", f"{apart['limit']:.0e}",
        _ratio(apart["largest"] / apart["limit"]),
    )  # fmt: skip
    if "bfloat16/whole" in apart:
        table.add_row("… of bfloat16 (training)", f"{apart['bfloat16/whole']:.1e}", "", "")
    table.add_row("bytes of a user's state", f"{state['bytes_per_user']:,}", "", "")
    table.add_row(f"users in {state['megabytes']:g} MB", f"{state['users']:,}", "", "")
    return table


def _ratio(share: float) -> str:
    return f"{share:.1%}" if share <= 1 else f"{share:.1%}: BEYOND"
