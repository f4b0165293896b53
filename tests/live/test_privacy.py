"""Pseudonyms, and `freshrec forget`: with a worker as an operator runs it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.address import BrokerAddress
from streams import cli
from streams.producer import Producer
from streams.topics import EVENTS
from tests.streams.worker_process import WorkerProcess

ANN = "ann.smith@example.org"
SESSION = "visit-of-ann-smith"
CLICK = '{{"type": "click", "user_id": "{}", "item_id": "22423", "session_id": "{}"}}'


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerProcess]:
    """Everything embedded, with pseudonyms."""
    monkeypatch.chdir(tmp_path)
    key = tmp_path / "key"
    key.write_text("0123456789abcdef0123456789abcdef")
    key.chmod(0o600)
    started = WorkerProcess(
        tmp_path / "state", pseudonym_key_file=str(key), encoder="false", checkpoint_s="1",
        log_level="debug",
    )  # fmt: skip
    started.start()
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("FRESHREC_STATE", str(started.state))
    monkeypatch.setenv("FRESHREC_PSEUDONYM_KEY_FILE", str(key))
    yield started
    started.kill()


def naming(folder: Path, *texts: str) -> list[tuple[str, str]]:
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            body = path.read_bytes()
            found += [(str(path), text) for text in texts if text.encode() in body]
    return found


def test_people_are_known_by_pseudonyms_only_and_can_be_forgotten(
    worker: WorkerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = [CLICK.format(ANN, SESSION), CLICK.format("bob", "visit-of-bob")]
    assert cli.main(["produce", *(w for e in typed for w in ("--event", e))]) == 0
    bad = f'{{"user_id": "{ANN}", "type": "{ANN}", "event_id": "x", "ts": 1}}'
    with Producer(BrokerAddress.at(worker.running.broker), EVENTS) as producer:
        producer.send_raw(ANN.encode(), bad.encode())  # no such type: undecodable
        producer.send_raw(ANN.encode(), CLICK.format(ANN + "\\u0007", "x").encode())
    worker.until(lambda h: h.get("events_total") == 2 and h.get("rejects") == 2, 60)
    capsys.readouterr()
    assert cli.main(["recommend", ANN]) == 0
    assert "22423" in capsys.readouterr().out

    assert cli.main(["forget", ANN, "nobody.ever.seen"]) == 0
    said = capsys.readouterr()
    assert ANN in said.out and "nobody.ever.seen" in said.out
    assert cli.main(["recommend", ANN]) == 1
    assert cli.main(["recommend", "bob"]) == 0
    worker.until(lambda h: h["erasures"] == {"pending": 0, "done": 2}, 30)
    assert worker.stop() == 0

    users, letters, done = worker.rows(
        "SELECT DISTINCT user_id, session_id FROM events WHERE type != 'forget'",
        "SELECT reason, raw FROM dead_letters ORDER BY offset",
        "SELECT events FROM live_erasures WHERE done_ms > 0 ORDER BY events",
    )
    ((user, session),) = users.rows  # bob's
    assert len(user) == len(session) == 32 and user != session
    assert done.rows == [(0,), (1,)]
    assert [raw for _, raw in letters.rows] in ([""], ["", ""])
    assert "undecodable: Invalid enum value '…'" in letters.rows[0][0]
    assert naming(worker.state, ANN, SESSION, "visit-of-bob") == []
    assert naming(worker.folder, ANN) == []  # its log


def test_forgetting_needs_a_broker_and_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["forget", "ann"]) == 1
    assert "start freshrec up first" in capsys.readouterr().err
    monkeypatch.setenv("FRESHREC_BROKER", "kafka://127.0.0.1:1")
    assert cli.main(["forget", "ann"]) == 1
    assert "no Kafka broker answers at kafka://127.0.0.1:1" in capsys.readouterr().err


def test_nobody_waits_for_ever(
    address: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRESHREC_BROKER", f"kafka://{address.servers[0]}")
    assert cli.main(["migrate"]) == 0
    started = time.monotonic()
    assert cli.main(["forget", "ann", "--timeout", "2"]) == 1
    assert "1 of 1 users are not erased after 2 s" in capsys.readouterr().err
    assert time.monotonic() - started < 60
    assert cli.main(["forget", "ann", "--no-wait"]) == 0
    assert "told the workers" in capsys.readouterr().err
