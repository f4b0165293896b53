"""The command line as people meet it: help, faults, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from infra.checkpoint import FORMAT, About, write_checkpoint
from infra.schema import migrations
from online.teaching import EncoderConfig
from streams import cli, sample
from streams.commands.common import Failure, UsageFault, pairs, write_json
from streams.commands.produce import GIVE_UP, _send, pace_of
from streams.producer import Delivered

COMMANDS = ("demo", "up", "produce", "recommend", "query", "backtest", "check", "worker",
            "migrate", "forget", "bench")  # fmt: skip
HEAVY = (
    "numpy",
    "torch",
    "pyarrow",
    "pandas",
    "chdb",
    "kafka",
    "faust",
    "numba",
    "river",
    "msgspec",
)


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder and an environment without anybody's settings."""
    import os

    for name in [n for n in os.environ if n.startswith("FRESHREC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FRESHREC_TEXT", "off")  # a language model takes seconds to start
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    program = (
        "import sys; from streams.cli import main; code = main(['--help']);"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (answer.returncode, answer.stderr.strip()) == (0, "[]")
    for command in COMMANDS:
        assert f" {command} " in answer.stdout


def test_reading_does_not_load_the_model() -> None:
    program = (
        "import sys, streams.reader;"
        "print([m for m in ('numba', 'river', 'torch', 'chdb', 'pyarrow') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert answer.stdout.strip() == "[]", answer.stderr


@pytest.mark.parametrize("command", [*COMMANDS, "bench live", "bench backtest", "bench soak"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command.split(), "--help"]) == 0
    said = capsys.readouterr()
    assert "Usage: freshrec " + command in said.out and not said.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("freshrec 0.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["backtest"], "Missing argument 'LOG'"),
        (["backtest", "x.csv"], "x.csv does not exist"),
        (["backtest", "x.csv", "--seeed", "1"], "No such option: --seeed"),
        (["backtest", "x.csv", "--limit", "0"], "Invalid value for '--limit'"),
        (["backtest", "x.csv", "--map", "ts"], "--map ts: NAME=VALUE is needed"),
        (["backtest", "x.csv", "--json", "no/where.json"], "no is no writable folder"),
        (["backtest", "x.csv", "--ts-unit", "h"], "use one of s, ms, us, iso"),
        (["backtest", "x.csv", "--compare", "gone.json"], "gone.json does not exist"),
        (["backtest", str(sample.EVENTS), "--config", "zeed=1"], "allowed are"),
        (["backtest", str(sample.EVENTS), "--items", str(sample.EVENTS) + "x"], "use .parquet"),
        (["produce"], "name a FILE"),
        (["produce", "a.csv", "--event", "{}"], "one of them"),
        (["produce", "a.csv", "--topic", "event"], "use events or items"),
        (["produce", "a.csv", "--speed", "fast"], "use 500 (events a second) or 10x"),
        (["produce", "-", "--from", "3"], "need a FILE"),
        (["forget"], "Missing argument 'USER…'"),
        (["forget", "ann", ""], "USER '': user_id has 0 characters: 1 to 256 are allowed"),
        (["recomend", "ann"], "No such command 'recomend'"),
        (["bench", "live", "x.csv", "--events", "10"], "Invalid value for '--events'"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_says_why(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told
    assert all(line.startswith("freshrec: ") for line in told.splitlines())


def test_wrong_settings_are_all_told_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FRESHREC_BATCH", "many")
    monkeypatch.setenv("FRESHREC_BROKER", "kafka:/oops")
    for command in (["up"], ["worker"], ["query", "SELECT 1"], ["migrate"], ["demo"]):
        assert cli.main(command) == 2
        told = capsys.readouterr().err
        assert "FRESHREC_BATCH='many'" in told and "FRESHREC_BROKER='kafka:/oops'" in told


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (ZeroDivisionError("oops"), 1, "unexpected ZeroDivisionError: oops"),
        (UsageFault("use this"), 2, "freshrec: use this"),
        (SystemExit(3), 3, ""),
    ],
)
def test_whatever_happens_users_see_no_traceback(
    raised: BaseException, code: int, said: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def fail(arguments: list[str] | None) -> int:
        raise raised

    monkeypatch.setattr(cli, "_run", fail)
    assert cli.main([]) == code
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told
    monkeypatch.setenv("FRESHREC_DEBUG", "1")
    with pytest.raises(type(raised)):
        cli.main([])


def test_pairs_keep_what_follows_the_first_equals_sign() -> None:
    assert pairs("--set", ["query=a=b"]) == {"query": "a=b"}
    assert pairs("--set", None) == {}


def test_pace_by_count_and_by_the_time_of_the_log() -> None:
    assert [pace_of("4")(n, 0) for n in range(3)] == [0, 0.25, 0.5]
    doubled = pace_of("2x")
    assert [doubled(n, ts) for n, ts in enumerate((1_000, 1_000, 5_000))] == [0, 0, 2.0]
    assert pace_of(None)(10, 10) == 0


def test_reports_are_replaced_in_one_go(clean: Path) -> None:
    path = clean / "r.json"
    write_json(path, {"a": 1.5})
    write_json(path, {"a": 2.5})
    assert json.loads(path.read_text()) == {"a": 2.5}
    assert [p.name for p in clean.iterdir()] == ["r.json"]
    with pytest.raises(UsageFault, match="cannot be written"):
        write_json(clean / "no" / "r.json", {})


class TestCheck:
    def test_a_fresh_machine_is_fine(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["check"]) == 0
        told = capsys.readouterr().out
        for part in ("settings", "state", "worker", "broker", "warehouse"):
            assert part in told
        assert "fault" not in told and not Path("state").exists()

    def test_every_fault_has_its_line(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("FRESHREC_BROKER", "kafka://127.0.0.1:1")
        monkeypatch.setenv("FRESHREC_WAREHOUSE", "clickhouse://ann:secret@127.0.0.1:1/shop")
        monkeypatch.setenv("FRESHREC_BATHC", "1")
        assert cli.main(["check"]) == 1
        told = capsys.readouterr().out
        assert sum(line.startswith("fault") for line in told.splitlines()) == 2
        assert "secret" not in told
        assert "no Kafka broker answers at kafka://127.0.0.1:1" in told
        assert "did you mean FRESHREC_BATCH?" in told

    def test_the_language_model_is_tried(
        self, clean: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("FRESHREC_TEXT", "on")
        monkeypatch.setenv("FRESHREC_TEXT_MODEL", str(clean))
        assert cli.main(["check"]) == 1
        told = capsys.readouterr().out
        assert "FRESHREC_TEXT_MODEL=" in told and "cannot be loaded" in told

    def test_the_encoders_device_and_checkpoint_are_tried(
        self, clean: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        import torch

        if not torch.cuda.is_available():
            monkeypatch.setenv("FRESHREC_DEVICE", "cuda")
            assert cli.main(["check"]) == 1
            assert "FRESHREC_DEVICE=cuda: PyTorch" in capsys.readouterr().out
        monkeypatch.setenv("FRESHREC_DEVICE", "cpu")
        shape = EncoderConfig()
        for width, code, told in ((shape.width, 0, "trained, 2 items"), (8, 1, "has width")):
            about = About(FORMAT, width, shape.channels, shape.hidden, ["a", "b"], {})
            write_checkpoint(Path("trained"), about, {"x": np.zeros(3)})
            monkeypatch.setenv("FRESHREC_ENCODER_FROM", "trained")
            assert cli.main(["check"]) == code
            assert told in capsys.readouterr().out
        (clean / "trained" / "encoder.safetensors").write_bytes(b"cut")
        assert cli.main(["check"]) == 1
        assert "is not what was written" in capsys.readouterr().out

    def test_wrong_settings_end_it(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("FRESHREC_SLATE", "0")
        assert cli.main(["check"]) == 1
        assert "FRESHREC_SLATE='0': use a whole number" in capsys.readouterr().out

    def test_a_pending_migration_is_said_and_migrate_applies_it(
        self, clean: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (clean / "state" / "warehouse").mkdir(parents=True)
        assert cli.main(["check"]) == 0
        assert "freshrec migrate" in capsys.readouterr().out
        assert cli.main(["migrate"]) == 0
        assert "applied 0001_tables" in capsys.readouterr().out
        assert cli.main(["check"]) == 0
        assert f"schema {migrations()[-1].number}" in capsys.readouterr().out


class _Unheard:
    """A producer whose broker confirms nothing."""

    topic = "events"
    sent = 0

    def send(self, record: object) -> None:
        self.sent += 1

    def delivered(self) -> Delivered:
        return Delivered(self.sent, 0, self.sent, "no leader")

    flush = delivered


def test_the_rest_of_a_log_is_not_sent_to_a_broker_that_is_gone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    producer = _Unheard()
    with pytest.raises(Failure, match="were not confirmed: no leader; send them again"):
        _send(producer, range(10_000), 10_000, pace_of(None), "log")  # type: ignore[arg-type]
    assert GIVE_UP <= producer.sent < 1_000
    assert "the rest is not sent" in capsys.readouterr().err
