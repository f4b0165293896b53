"""The demo's parts: the screen at any size, the choice of shoppers, the verdict, the results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from online.events import Event
from streams.demo_results import Summary, leave, table
from streams.demo_watch import choose_shoppers
from streams.screen import Frame, Line, Screen, Shopper, plain_line, sparkline

SHOPPERS = tuple(
    Shopper(
        user_id=str(17850 + number),
        events=40 + number,
        latest="CREAM CUPID HEARTS COAT HANGER",
        lines=tuple(
            Line(f"LUNCH BAG {n}", 1.65, "because you bought WHITE METAL LANTERN", n == 0)
            for n in range(8)
        ),
    )
    for number in range(6)
)
FRAME = Frame(
    stage="flat out",
    elapsed_s=42,
    total=50_000,
    sent=33_000,
    written=31_200,
    rates=[1000, 1500],
    hits=[0.02, 0.09],
    peer_hits=[0.02, 0.045],
    ndcgs=[0.01, 0.05],
    peer_ndcgs=[0.01, 0.02],
    p50s=[400, 60],
    p99s=[900, 140],
    shoppers=SHOPPERS,
)


def drawn(frame: Frame, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(Screen(frame, "50,000 purchases"))
    return capture.get().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (60, 16), (200, 60)])
def test_the_screen_fits_and_shows_what_matters(width: int, height: int) -> None:
    lines = drawn(FRAME, width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "31,200 of 50,000" in text and "lag 1,800" in text
    assert "0.090" in text and "0.045" in text and "×2.0" in text
    assert "60 ms" in text and "p99 140 ms" in text
    assert "17850" in text and "because you bought" in text


def test_more_room_shows_more_recommendations() -> None:
    small = "\n".join(drawn(FRAME, 80, 24)).count("LUNCH BAG")
    large = "\n".join(drawn(FRAME, 120, 40)).count("LUNCH BAG")
    assert 9 <= small < large


def test_new_recommendations_are_marked() -> None:
    assert [line[:11] for line in drawn(FRAME, 80, 24) if "LUNCH BAG" in line][:2] == [
        "+ LUNCH BAG",
        "  LUNCH BAG",
    ]


def test_the_screen_before_anything_was_measured() -> None:
    text = "\n".join(drawn(Frame("starting", 1, 50_000, 0, 0), 80, 24))
    assert "0 of 50,000" in text and "waiting" in text


def test_a_line_for_pipes_says_the_same() -> None:
    line = plain_line(FRAME)
    for part in ("31,200 of 50,000", "1,500/s", "lag 1,800", "HR@10 0.090", "p99 140 ms"):
        assert part in line
    assert "\n" not in line and "HR@10" not in plain_line(Frame("starting", 1, 10, 0, 0))


def test_a_sparkline_shows_the_whole_course() -> None:
    assert sparkline(range(1000), 7) == "▁▂▃▄▅▆▇"
    assert sparkline([0, 0], 8) == "▁▁"
    assert sparkline([1], 0) == "" == sparkline([], 8)


def purchase(number: int, user: str) -> Event:
    return Event(event_id=str(number), type="purchase", user_id=user, item_id="i", ts=number)


def test_shoppers_are_those_who_come_back() -> None:
    users = ["often", "often2", "busy-once"] * 10 + [f"once-{n}" for n in range(70)]
    events = [purchase(n, user) for n, user in enumerate(users)]
    events += [purchase(n, ("often", "often2", f"x{n}")[n % 3]) for n in range(100, 200)]
    # both come back in every tenth of the log; `often2` has one event more
    assert choose_shoppers(events, 2) == ["often", "often2"]


def test_a_good_run_has_no_faults() -> None:
    summary = good_summary()
    summary.judge()
    assert summary.faults == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": 99}, "99 rows arrived"),
        ({"dead_letters": 1}, "refused"),
        ({"users": 0}, "nobody"),
        ({"freshness": {"rows": 0}}, "freshness"),
        ({"quality": {}}, "hr@10"),
    ],
)
def test_what_went_wrong_is_said(change: dict, said: str) -> None:
    summary = good_summary()
    for name, value in change.items():
        setattr(summary, name, value)
    summary.judge()
    assert any(said in fault for fault in summary.faults)


def good_summary() -> Summary:
    return Summary(
        events=100,
        rows=100,
        items=10,
        users=5,
        seconds=9.0,
        events_per_second=50.0,
        steady_per_second=500.0,
        quality={"hr@10": 0.1, "ndcg@10": 0.05, "popularity_hr@10": 0.04},
        freshness={"rows": 50, "p50_ms": 60.0, "p99_ms": 120.0},
    )


def test_results_are_left_on_disk(tmp_path: Path) -> None:
    paths = leave(tmp_path / "demo", good_summary(), FRAME, "50,000 purchases", b"user_id\n1\n")
    assert json.loads((tmp_path / "demo" / "summary.json").read_text())["rows"] == 100
    assert (tmp_path / "demo" / "recommendations.csv").read_bytes() == b"user_id\n1\n"
    assert "LUNCH BAG" in (tmp_path / "demo" / "screen.txt").read_text()
    assert "<svg" in (tmp_path / "demo" / "screen.svg").read_text()
    assert all(path.exists() for path in paths)


def test_the_summary_shows_the_peer() -> None:
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(table(good_summary()))
    text = capture.get()
    assert "HR@10" in text and "0.040" in text and "60 ms" in text
