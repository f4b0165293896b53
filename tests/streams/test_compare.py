"""`freshrec compare`: files of targets, their pairs, and what is said of the differences."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from river import stats

from online.core import RecommenderConfig
from online.events import Delivery, Event
from online.quality import measures
from online.step import Step
from online.teaching import EncoderConfig
from streams import cli, comparison, sample
from streams.logformat import LogError
from streams.pairing import pair
from streams.replay import backtest
from streams.targets import SCHEMA, Targets, read_targets

DAY = 24 * comparison.HOUR_MS
PLAIN = RecommenderConfig(encoder=EncoderConfig(on=False))


def table(targets: int = 400, users: int = 40, **columns: Any) -> pa.Table:
    """Targets of users who take turns; every rank is 5 unless told."""
    n = np.arange(targets)
    made = {
        "event_id": [f"e{i}" for i in n],
        "user_id": [f"u{i % users}" for i in n],
        "item_id": [f"i{i % 7}" for i in n],
        "ts": n * 1000,
        "offset": n,
        "rank": np.full(targets, 5.0),
        "user_events": n // users,
        "item_events": n // 7,
        "gap_ms": np.where(n < users, -1, users * 1000),
        "same_time": np.full(targets, False),
    }
    return pa.table({**made, **columns}, schema=SCHEMA)


def by_name(found: list[comparison.Segment]) -> dict[str, comparison.Segment]:
    return {segment.name: segment for segment in found}


class TestStatistics:
    def test_the_same_file_twice_differs_by_nothing(self) -> None:
        rank = np.random.default_rng(1).integers(1, 20, 400).astype(float)
        rank[:9] = np.inf
        a = table(rank=rank)
        for segment in comparison.compare(pair(a, a)):
            for found in segment.measures.values():
                assert (found.a, found.difference) == (found.b, 0.0)
                assert found.interval == (0.0, 0.0)

    def test_an_improvement_is_found_in_its_segment(self) -> None:
        """B is better at rare items only, for three users of four; the rest is noise."""
        rng = np.random.default_rng(2)
        a, n = rng.integers(1, 15, 400).astype(float), np.arange(400)
        b = np.where(rng.random(400) < 0.5, a, rng.permutation(a))
        rare = n // 7 <= 4
        b[rare & (n % 4 > 0)] = 1.0
        found = by_name(comparison.compare(pair(table(rank=a), table(rank=b)), seed=3))
        gain = found["rare items (0-4)"].measures["ndcg@10"]
        true = comparison.gains(b[rare])[0] - comparison.gains(a[rare])[0]
        assert gain.difference == pytest.approx(true.mean())
        assert gain.interval is not None and 0 < gain.interval[0] < gain.difference
        other = found["other items"].measures["ndcg@10"]
        assert other.interval is not None and other.interval[0] < 0 < other.interval[1]
        counts = [found[name].targets for name in ("rare items (0-4)", "other items")]
        assert counts == [rare.sum(), (~rare).sum()]

    def test_the_interval_is_of_users_not_of_targets(self) -> None:
        """A target of each user ten times over tells nothing new."""
        rng = np.random.default_rng(4)
        gained = rng.random(100) < 0.5
        once = table(100, 100), table(100, 100, rank=np.where(gained, 1.0, 5.0))
        often = table(1000, 100), table(1000, 100, rank=np.where(np.tile(gained, 10), 1.0, 5.0))
        first, tenfold = (
            comparison.compare(pair(*tables), seed=5)[0].measures["ndcg@10"]
            for tables in (once, often)
        )
        assert tenfold.interval == pytest.approx(first.interval)
        gain = 1 - 1 / math.log2(6)
        margin = 1.96 * gain * math.sqrt(gained.mean() * (1 - gained.mean()) / 100)
        expected = (first.difference - margin, first.difference + margin)
        assert first.interval == pytest.approx(expected, abs=0.25 * margin)

    def test_the_same_seed_gives_the_same_interval(self) -> None:
        rng = np.random.default_rng(6)
        pairs = pair(table(), table(rank=rng.integers(1, 20, 400).astype(float)))
        assert comparison.compare(pairs, seed=7) == comparison.compare(pairs, seed=7)
        assert comparison.compare(pairs, seed=7) != comparison.compare(pairs, seed=8)

    def test_a_few_users_get_no_interval_and_nobody_no_means(self) -> None:
        found = by_name(comparison.compare(pair(table(90, 9), table(90, 9)), resamples=100))
        assert found["all targets"].users == 9
        assert found["all targets"].measures["hr@10"].interval is None
        assert found["at the same time"].targets == 0
        assert found["at the same time"].measures == {}

    def test_the_edges_of_the_segments(self) -> None:
        gaps = [-1, 0, comparison.HOUR_MS - 1, comparison.HOUR_MS, 30 * DAY, 30 * DAY + 1]
        pairs = pair(*[
            table(
                6, gap_ms=gaps, same_time=[g == 0 for g in gaps],
                user_events=[0, 1, 2, 3, 4, 5], item_events=[3, 4, 5, 6, 0, 9],
            )
        ] * 2)  # fmt: skip
        found = {
            name: np.flatnonzero(mask).tolist() for _, name, mask in comparison.segments(pairs)
        }
        assert found == {
            "all targets": [0, 1, 2, 3, 4, 5],
            "first 3 of a user": [0, 1, 2], "later ones": [3, 4, 5],
            "rare items (0-4)": [0, 1, 4], "other items": [2, 3, 5],
            "gap over 30 days": [5], "gap 1 h to 30 days": [3, 4], "gap under 1 h": [1, 2],
            "at the same time": [1],
        }  # fmt: skip


class TestPairs:
    def test_the_order_of_the_files_does_not_matter(self) -> None:
        rank = np.arange(1.0, 401.0)
        a, b = table(rank=rank), table(rank=rank + 1)
        turned = b.take(pa.array(np.random.default_rng(8).permutation(400)))
        pairs = pair(a, turned)
        assert (pairs.a == rank).all() and (pairs.b == rank + 1).all()
        assert pairs.moved == 0

    def test_an_id_that_two_users_have_is_paired_in_order(self) -> None:
        ids = [f"e{i // 2}" for i in range(400)]
        rank = np.arange(1.0, 401.0)
        pairs = pair(table(event_id=ids, rank=rank), table(event_id=ids, rank=rank))
        assert (pairs.a == pairs.b).all()

    def test_other_targets_are_refused_with_their_numbers(self) -> None:
        b = table(390, event_id=[f"e{i + 13}" for i in range(390)])
        said = "13 are only in a.parquet and 3 only in b.parquet; run both .* same LOG"
        with pytest.raises(LogError, match=said):
            pair(table(400), b, ("a.parquet", "b.parquet"))

    def test_other_users_under_the_same_ids_are_refused(self) -> None:
        with pytest.raises(LogError, match="the same event ids with different user_id: run both"):
            pair(table(users=40), table(users=41))

    def test_ties_in_another_order_are_counted(self) -> None:
        moved = np.arange(400) // 40
        moved[:5] += 1
        assert pair(table(), table(user_events=moved)).moved == 5


def click(n: int, user: str, item: str, ts: int, kind: Any = "click", **fields: Any) -> Event:
    return Event(event_id=f"e{n}", type=kind, user_id=user, item_id=item, ts=ts, **fields)


LOG = [
    click(0, "ann", "cup", 1000),
    click(1, "ann", "pan", 1000),
    click(2, "bob", "cup", 2000),
    click(3, "bob", "", 2500, "search", query="mug"),
    click(4, "ann", "cup", 1000 + 31 * DAY, "view"),
    click(0, "ann", "cup", 1000 + 31 * DAY),  # a duplicate
    click(5, "bob", "cup", 3000 + 31 * DAY),
    click(6, "ann", "pan", 4000 + 31 * DAY),
]


class TestTargets:
    @pytest.mark.parametrize("batch", [1, 3, 100])
    def test_what_came_before_each_target(self, tmp_path: Path, batch: int) -> None:
        kept = Targets()
        parts = [LOG[at : at + batch] for at in range(0, len(LOG), batch)]
        backtest(parts, config=PLAIN, on_step=lambda _, step: kept.add(step))
        kept.write(tmp_path / "ranks.parquet")
        found = read_targets(tmp_path / "ranks.parquet").drop_columns(["rank"]).to_pylist()
        names = [n for n in SCHEMA.names if n != "rank"]
        gap = 31 * DAY
        assert [tuple(row[n] for n in names) for row in found] == [
            ("e0", "ann", "cup", 1000, 0, 0, 0, -1, False),
            ("e1", "ann", "pan", 1000, 1, 1, 0, 0, True),
            ("e2", "bob", "cup", 2000, 2, 0, 1, -1, False),
            ("e5", "bob", "cup", 3000 + gap, 6, 2, 3, gap + 500, False),
            ("e6", "ann", "pan", 4000 + gap, 7, 3, 1, 3000, False),
        ]
        assert [p.name for p in tmp_path.iterdir()] == ["ranks.parquet"]

    def test_a_miss_is_infinity(self, tmp_path: Path) -> None:
        kept = Targets()
        d = Delivery(LOG[0], "replay", 0, 0, 0)
        kept.add(Step(accepted=[d], ranks=[(d, math.inf)]))
        kept.write(tmp_path / "ranks.parquet")
        assert read_targets(tmp_path / "ranks.parquet")["rank"].to_pylist() == [math.inf]

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            ({"event_id": ["e"], "rank": [1.0]}, "lacks the columns user_id, item_id, ts"),
            (table(3).set_column(5, "rank", [["one", "two", "three"]]), "holds no ranks"),
            (table(2, rank=[1.0, 0.5]), "has ranks below 1"),
            (table(2, rank=[1.0, None]), "has empty cells"),
            (table(0), "has no targets"),
        ],
    )
    def test_foreign_tables_are_refused(self, tmp_path: Path, columns: Any, said: str) -> None:
        path = tmp_path / "x.parquet"
        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path)
        with pytest.raises(LogError, match=f"{said}.*freshrec backtest LOG --ranks"):
            read_targets(path)


class TestCommand:
    @pytest.fixture
    def files(self, tmp_path: Path) -> tuple[str, str]:
        """Two small backtests of the sample."""
        paths = tmp_path / "a.parquet", tmp_path / "b.parquet"
        for path, block in zip(paths, ("16", "64"), strict=True):
            arguments = [
                str(sample.EVENTS), "--items", str(sample.ITEMS), "--limit", "600",
                "--config", "encoder.on=false", "--config", f"block={block}",
                "--ranks", str(path), "--json", str(path.with_suffix(".json")),
            ]  # fmt: skip
            assert cli.main(["backtest", *arguments]) == 0
        return str(paths[0]), str(paths[1])

    def test_files_say_what_the_reports_say(
        self, files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out.json"
        capsys.readouterr()
        assert cli.main(["compare", *files, "--resamples", "200", "--json", str(out)]) == 0
        shown = capsys.readouterr().out
        compared = json.loads(out.read_text())
        everything = compared["segments"][0]["measures"]
        for name, path in zip("ab", files, strict=True):
            report = json.loads(Path(path).with_suffix(".json").read_text())
            rank = read_targets(Path(path))["rank"].to_numpy()
            assert len(rank) == report["targets"] == compared["targets"]
            for measure in comparison.MEASURES:
                mean = stats.Mean()  # the report's own arithmetic: exactly its figure
                for value in measures(rank, rank)[measure].tolist():
                    mean.update(value)
                assert mean.get() == report[measure]
                assert everything[measure][name] == pytest.approx(report[measure], abs=1e-12)
                assert f"{report[measure]:.4f}" in shown
        for segment in compared["segments"]:
            assert segment["name"] in shown and f"{segment['targets']:,}" in shown
        assert "200 resamples of" in shown and compared["seed"] == 0
        assert max(map(len, shown.splitlines())) <= 80

    def test_faults_come_with_their_cure(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        good, other, text = (str(tmp_path / n) for n in ("a.parquet", "b.parquet", "c.parquet"))
        pq.write_table(table(20), good)
        pq.write_table(table(10), other)
        Path(text).write_text("event_id,rank\n")
        for arguments, said in (
            ([good, other], f"10 are only in {good} and 0 only in {other}; run both"),
            ([good, text], f"{text} holds no ranks"),
            ([good, str(sample.EVENTS)], "lacks the columns"),
            ([good, str(tmp_path / "gone.parquet")], "gone.parquet holds no ranks"),
            ([good, good, "--json", str(tmp_path / "no" / "out.json")], "is no writable folder"),
            ([good, good, "--resamples", "3"], "Invalid value for '--resamples'"),
        ):
            assert cli.main(["compare", *arguments]) == 2
            told = capsys.readouterr().err
            assert said in told and "Traceback" not in told
            assert all(line.startswith("freshrec: ") for line in told.splitlines())

    def test_a_place_where_ranks_cannot_be_written_is_refused_before_the_run(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def never(*_: Any, **__: Any) -> None:
            raise AssertionError("the log was read")

        monkeypatch.setattr("streams.logfile.EventLog.__init__", never)
        for path, said in (
            (tmp_path / "no" / "r.parquet", "no writable folder"),
            (tmp_path, "is a folder"),
        ):
            assert cli.main(["backtest", str(sample.EVENTS), "--ranks", str(path)]) == 2
            assert said in capsys.readouterr().err

    def test_it_explains_itself(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["compare", "--help"]) == 0
        assert "Usage: freshrec compare" in capsys.readouterr().out
