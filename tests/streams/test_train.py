"""`freshrec train`, what starts from its checkpoint, and a trainer that cannot start or is gone."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from online.events import Delivery, Event
from streams.assembly import make_core
from streams.cli import main
from streams.core_process import CoreLost, CoreProcess
from tests.encoders.streams import walk
from tests.streams.cores import LEARNS


def event(n: int, user: int, item: int, ts: int) -> Event:
    return Event(event_id=f"e{n}", type="click", user_id=f"u{user}", item_id=f"i{item}", ts=ts)


def events(count: int) -> list[Event]:
    user, item, _, _, ts = (column.tolist() for column in walk(count))
    return [event(n, user[n], item[n], ts[n]) for n in range(count)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    rows = [
        {"event_id": e.event_id, "type": e.type, "user_id": e.user_id, "item_id": e.item_id,
         "ts": e.ts} for e in events(2_000)
    ]  # fmt: skip
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_a_worker_that_starts_from_the_checkpoint_knows_what_was_learned(
    log: Path, tmp_path: Path
) -> None:
    out, report = tmp_path / "encoder", tmp_path / "report.json"
    arguments = ["train", str(log), "--protocol", "leave-one-out", "--epochs", "40"]
    given = ["--out", str(out), "--json", str(report), "--plot", str(tmp_path / "curves.png")]
    assert main([*arguments, *given]) == 0
    figures = json.loads(report.read_text())
    assert figures["items"] == 60 and figures["test"]["targets"] == 20
    assert figures["epochs"][-1]["loss"] < figures["epochs"][0]["loss"]
    assert (tmp_path / "curves.png").stat().st_size > 1_000
    core = make_core(replace(LEARNS, encoder=replace(LEARNS.encoder, every=10_000, start=str(out))))
    batch = [Delivery(e, "events", 0, n, e.ts) for n, e in enumerate(events(200))]
    step = core.step(batch, batch[-1].event.ts)
    assert step.slates[0].model_version.endswith("-encoder-1")
    assert len(step.vectors) > 20  # of users and items, before any lesson
    core.close()


def test_a_checkpoint_of_another_shape_is_refused_before_anything_starts(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "encoder"
    assert main(["train", str(log), "--epochs", "1", "--out", str(out)]) == 0
    config = ["--config", f"encoder.start={out}", "--config", "encoder.width=8"]
    assert main(["backtest", str(log), *config]) == 1
    assert "train it anew" in capsys.readouterr().err


def test_a_folder_of_other_files_is_refused_before_training(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(log), "--out", str(tmp_path)]) == 1
    assert "holds other files" in capsys.readouterr().err
    assert log.exists()


def test_a_log_without_anything_to_learn_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "one.jsonl"
    row = {"event_id": "e", "type": "click", "user_id": "u", "item_id": "i", "ts": 1}
    path.write_text(json.dumps(row))
    assert main(["train", str(path)]) == 1
    assert "nothing to learn" in capsys.readouterr().err
    assert main(["train", str(path), "--protocol", "magic"]) == 2
    assert "last-validates, leave-one-out" in capsys.readouterr().err


def test_a_core_whose_encoder_cannot_start_says_why() -> None:
    lacking = replace(LEARNS, encoder=replace(LEARNS.encoder, start="/nowhere"))
    with pytest.raises(CoreLost, match="cannot start.*freshrec train --out"):
        CoreProcess(lacking)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what is asked for")
def test_a_device_that_is_not_there_is_named_with_the_cure() -> None:
    elsewhere = replace(LEARNS, encoder=replace(LEARNS.encoder, device="cuda"))
    with pytest.raises(CoreLost, match="FRESHREC_DEVICE=cuda: .* use auto or cpu"):
        CoreProcess(elsewhere)


def test_a_trainer_that_is_gone_ends_the_core_and_rejects_nothing() -> None:
    core = CoreProcess(LEARNS)
    (trainer,) = _children(core.pid)
    os.kill(trainer, signal.SIGKILL)
    batch = [Delivery(e, "events", 0, n, e.ts) for n, e in enumerate(events(200))]
    with pytest.raises(CoreLost):
        core.step(batch, batch[-1].event.ts)
    assert core.exit_code == 1
    core.close()


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
