"""`freshrec backtest` as a command: the same bytes twice, pictures, comparisons, faults."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from streams import cli, sample
from streams.logfile import EventLog
from streams.ranks import Ranks

LOG = str(sample.EVENTS)


def backtest(*arguments: str) -> None:
    assert cli.main(["backtest", *arguments]) == 0


def test_same_log_and_seed_same_bytes_and_ranks_that_add_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = []
    for name in ("a", "b"):
        out, ranks = str(tmp_path / f"{name}.json"), str(tmp_path / f"{name}.parquet")
        backtest(
            LOG, "--items", str(sample.ITEMS), "--limit", "700", "--batch", "100",
            "--seed", "3", "--shuffle-ties", "5", "--json", out, "--ranks", ranks,
        )  # fmt: skip
        report = json.loads(Path(out).read_text())
        assert report.pop("events_per_second") > 0 and report.pop("peak_rss_mb") > 0
        reports.append(json.dumps(report))
    assert reports[0] == reports[1]
    report = json.loads(reports[0])
    assert (report["events"], report["seed"], report["config"]["shuffle_ties"]) == (700, 3, 5)
    ranks_of = Ranks.read(tmp_path / "a.parquet")
    assert len(ranks_of.ranks) == report["targets"]
    hits = sum(rank <= 10 for rank in ranks_of.ranks)
    assert hits / report["targets"] == pytest.approx(report["hr@10"])
    assert "popularity" in capsys.readouterr().out


def test_a_comparison_pairs_the_events_and_names_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.json"
    backtest(
        LOG, "--limit", "400", "--json", str(other), "--ranks", str(tmp_path / "other.parquet")
    )
    capsys.readouterr()
    backtest(LOG, "--limit", "400", "--batch", "50", "--compare", str(other))
    told = capsys.readouterr().out
    assert "±" in told and "different settings: batch" in told
    (tmp_path / "other.parquet").unlink()
    backtest(LOG, "--limit", "400", "--compare", str(other))
    assert "no pairs" in capsys.readouterr().out
    other.write_text("{}")
    assert cli.main(["backtest", LOG, "--limit", "100", "--compare", str(other)]) == 2
    assert "is no report of a backtest" in capsys.readouterr().err


def test_the_curve_as_a_picture(tmp_path: Path) -> None:
    backtest(LOG, "--limit", "300", "--plot", str(tmp_path / "curve.png"))
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_foreign_unsorted_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["customer,sku,when"]
    with EventLog(sample.EVENTS) as log:
        events = next(log.batches(200))
    lines += [f"{e.user_id},{e.item_id},{e.ts // 1000}" for e in reversed(events)]
    path = tmp_path / "orders.csv.gz"
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    out = tmp_path / "out.json"
    backtest(
        str(path), "--map", "user_id=customer", "--map", "item_id=sku", "--map", "ts=when",
        "--set", "type=purchase", "--ts-unit", "s", "--targets", "purchase", "--exclude-seen",
        "--json", str(out),
    )  # fmt: skip
    report = json.loads(out.read_text())
    assert (report["events"], report["config"]["targets"]) == (200, ["purchase"])
    assert report["config"]["exclude_seen"] is True
    assert "is not in the order of ts" in capsys.readouterr().err


def test_a_faulty_log_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "bad.csv", tmp_path / "out.json"
    path.write_text("type,user_id,item_id,ts\nclick,u,i,1\nclik,u,i,2\n")
    assert cli.main(["backtest", str(path), "--json", str(out)]) == 2
    assert f"{path}, column 'type', row 2: 'clik'" in capsys.readouterr().err
    assert not out.exists()
