"""`freshrec bench encoder`: what it counts, what it reports, and that all forms agree."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from encoders.config import Shape, TrainingConfig
from encoders.devices import Device
from streams import cli
from streams.bench import encoder as encoder_bench
from streams.bench.encoder_serving import Serving, differences
from streams.bench.encoder_training import measure, traffic
from streams.bench.encoder_work import (
    EncoderPlan,
    compared_items,
    event_flops,
    random_events,
    random_model,
    random_vectors,
    step_flops,
)
from streams.bench.timing import one_thread, timed
from streams.encoder_report import encoder_tables

TINY = EncoderPlan(
    device="cpu",
    seconds=0.01,
    shape=Shape(width=8, channels=12, hidden=16),
    training=TrainingConfig(sequences=4, length=10, negatives=16),
    sides=(16, 32),
    batches=(1, 3),
    length=12,
    users=5,
    histories=(3, 20),
    catalogues=(20, 200),
    indexed=(300,),
)
NEAREST = {
    "items": 300, "recall_at_100": 0.97, "search_us": 40.0, "exact_us": 100.0, "update_us": 2.0,
    "longest_update_ms": 0.5,
}  # fmt: skip


def quiet(*_: object) -> None:
    """Nobody watches."""


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Stands for the index, which takes a second; what was asked of it."""
    asked: list[tuple[int, int]] = []

    def bench_index(items: int, seed: int) -> dict[str, Any]:
        asked.append((items, seed))
        return {**NEAREST, "items": items}

    module = SimpleNamespace(bench_index=bench_index)
    monkeypatch.setitem(sys.modules, "streams.bench.index", module)
    return asked


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command measures little, whatever it asks for but device and time."""

    def plan(device: str, seconds: float, compiled: bool) -> EncoderPlan:
        return replace(TINY, device=device, seconds=seconds, compiled=compiled)

    monkeypatch.setattr("streams.bench.encoder_work.EncoderPlan", plan)


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from numbers(each)
    elif isinstance(value, int | float):
        yield float(value)


def test_every_figure_is_there_and_finite() -> None:
    said: list[tuple[str, int, int]] = []
    threads = torch.get_num_threads()
    report = encoder_bench.run(TINY, lambda *what: said.append(what))
    assert torch.get_num_threads() == threads and report["threads"] == 1
    assert [n for _, n, _ in said] == list(range(7)) and said[0] == ("peak gflops", 0, 7)
    assert np.isfinite(list(numbers(report))).all()
    json.dumps(report, allow_nan=False)

    assert report["peak_gflops"].keys() == {"cpu float32"} and report["device"] == "cpu"
    assert [row["users"] for row in report["whole_sequences"]] == [1, 3]
    for row in report["whole_sequences"]:
        assert row["encodes_per_second"] > 0 and 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["events"] == 12 and row["gflops"] > 0 and row["of_peak"] > 0
    event = report["one_event"]
    assert [row["events"] for row in event["histories"]] == [3, 20]
    for row in event["histories"]:
        assert row["rebuild_us_per_user"] > 0
        for form in ("compiled", "torch"):
            assert row[form]["calls"] >= 5 and 0 < row[form]["p50_ms"] <= row[form]["p99_ms"]
    assert event["limit_ms"] == 8.0 and 0 < event["of_limit"] < 1
    assert event["growth"]["compiled"] > 0 and event["growth"]["torch"] > 0
    assert [row["items"] for row in report["training"]] == [20, 200]
    for row in report["training"]:
        assert row["train_sequences_per_second"] == pytest.approx(
            4 * row["steps_per_second"], rel=0.01
        )
        assert 0 < row["p50_ms"] <= row["p99_ms"] and row["of_peak"] > 0
    assert 0 < report["differences"]["largest"] <= report["differences"]["limit"] == 1e-4
    assert report["state"]["bytes_per_user"] == 4 * 12 + 149
    assert report["nearest"][0].keys() == NEAREST.keys()
    assert [row["items"] for row in report["nearest"]] == [300]


def test_everything_is_shown(index: list[tuple[int, int]]) -> None:
    report = encoder_bench.run(TINY, quiet)
    assert report["nearest"] == [NEAREST] and index == [(300, TINY.seed)]
    assert [table.row_count for table in encoder_tables(report)] == [5, 2, 1, 6]
    report["nearest"], report["torch_compile"] = [], True
    report["differences"]["bfloat16/whole"] = 0.1
    assert [table.row_count for table in encoder_tables(report)] == [5, 2, 7]


def test_the_forms_agree_at_the_default_shape() -> None:
    rng = np.random.default_rng(3)
    vectors, events = random_vectors(rng, 500, 48), random_events(rng, 12, 120, 500)
    assert len(set(events.gap.ravel().tolist())) > 20 and not events.gap[:, 0].any()
    found = differences(random_model(Shape(), 3), events, vectors, Device.named("cpu"))
    assert found.keys() == {"compiled/step", "compiled/whole", "step/whole", "largest"}
    assert 0 < found["largest"] <= 1e-4


def test_a_timed_rebuild_leaves_the_state_of_its_history() -> None:
    """What is timed is what the core computes: the state is that of PyTorch's step form."""
    rng = np.random.default_rng(5)
    shape = TINY.shape
    model, vectors = random_model(shape, 5), random_vectors(rng, 50, shape.width)
    events = random_events(rng, 1, 9, 50)
    serving = Serving(model, vectors, users=3)
    assert serving.time_rebuild(events, 0.0).ms.shape == (5,)
    x = events.torch_inputs(vectors, Device.named("cpu"))
    state = torch.zeros(1, shape.channels)
    with torch.no_grad():
        for t in range(9):
            one = (x[name][:, t] for name in ("vectors", "kind", "gap", "price"))
            state, _ = model.step(state, *one)
    np.testing.assert_allclose(serving.state, state.expand(3, -1), rtol=0, atol=1e-5)
    before = serving.state
    assert serving.time_advance(random_events(rng, 3, 1, 50), 9, 0.0).p50 > 0
    assert (serving.state != before).any(1).all()


def test_work_is_counted_as_it_is_done() -> None:
    """The operations of the matrix products are those that PyTorch itself counts."""
    from torch.utils.flop_counter import FlopCounterMode

    rng, shape = np.random.default_rng(0), Shape()
    vectors, events = random_vectors(rng, 30, shape.width), random_events(rng, 4, 7, 30)
    model = random_model(shape, 0)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        model(**events.torch_inputs(vectors, Device.named("cpu")))
    recurrence = 2 * shape.channels
    assert counted.get_total_flops() == 4 * 7 * (event_flops(shape) - recurrence)

    forward = 5 * event_flops(shape) + 2 * 5 * 40 * shape.width
    assert step_flops(shape, targets=5, others=40) == 3 * forward


def test_compared_items_are_those_that_the_trainer_draws() -> None:
    rng = np.random.default_rng(1)
    count = 1.0 / np.arange(1, 3_001)
    drawn = [
        len(np.unique(np.concatenate([
            rng.choice(3_000, 256, p=count / count.sum()), rng.integers(0, 3_000, 256),
        ])))
        for _ in range(50)
    ]  # fmt: skip
    assert compared_items(count, 512) == pytest.approx(np.mean(drawn), rel=0.02)


def test_traffic_has_every_item_and_long_sequences() -> None:
    events = traffic(2_000, 7)
    assert len(np.unique(events.item)) == 2_000 and len(events.item) == 22_000
    assert np.bincount(events.user).min() > 50
    assert all((a == b).all() for a, b in zip(events, traffic(2_000, 7), strict=True))
    assert (events.item != traffic(2_000, 8).item).any()


def test_training_reports_what_it_did() -> None:
    found = measure(TINY, Device.named("cpu"), 50, peak=10.0)
    assert found["items"] == 50 and found["sequences"] == 4 and found["events"] == 10
    assert found["of_peak"] == pytest.approx(found["gflops"] / 10.0, abs=1e-4)


def test_a_timing_has_a_least_number_of_calls_after_its_warm_up() -> None:
    calls: list[int] = []
    timing = timed(lambda: calls.append(len(calls)), 0.0)
    assert len(calls) == 8 and timing.ms.shape == (5,)
    with pytest.raises(ValueError, match="on the way"), one_thread():
        assert torch.get_num_threads() == 1
        raise ValueError("on the way")


def test_the_command(
    index: list[tuple[int, int]], tiny: None, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "encoder.json"
    command = ["bench", "encoder", "--device", "cpu", "--seconds", "0.01", "--json", str(out)]
    assert cli.main(command) == 0
    assert json.loads(out.read_text())["benchmark"] == "encoder"
    assert "the encoder on cpu" in capsys.readouterr().out


def test_forms_that_differ_fail_the_command(
    index: list[tuple[int, int]], tiny: None, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(encoder_bench, "LIMIT_DIFFERENCE", 1e-12)
    assert cli.main(["bench", "encoder", "--device", "cpu", "--seconds", "0.01"]) == 1
    shown = capsys.readouterr()
    assert "BEYOND" in shown.out and "the forms of the encoder differ by" in shown.err


def test_a_device_that_is_not_there_is_said_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["bench", "encoder", "--device", "cuda"]) == 2
    assert "use auto or cpu" in capsys.readouterr().err
    assert cli.main(["bench", "encoder", "--device", "abacus"]) == 2
    assert "use one of auto, cpu, cuda, mps" in capsys.readouterr().err
