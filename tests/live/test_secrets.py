"""Secrets in settings, through everything that fails and talks: they are nowhere in the output."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from infra.address import BrokerAddress, without_password
from infra.settings import Settings, SettingsError
from infra.warehouse import WarehouseError, connect
from tests.streams.worker_process import ROOT, WorkerProcess

SECRET = "hush/Hush#qZ7q@x"
QUOTED = quote(SECRET, safe="")
TOKEN = "k7Jq2vXw9RtB4mZc"
PARTS = ("hush", "Hush", "qZ7q", TOKEN)  # no part of it either


def freshrec(folder: Path, *arguments: str, **settings: str) -> str:
    """What a command says, on both streams; as verbose as it can be."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("FRESHREC_")}
    said = subprocess.run(
        [sys.executable, "-m", "streams.cli", *arguments],
        env={**inherited, "PYTHONPATH": str(ROOT), "FRESHREC_STATE": str(folder / "state"),
             "FRESHREC_LOG_LEVEL": "debug", "FRESHREC_TEXT": "off", **settings},
        cwd=folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in said.stderr
    return said.stdout + said.stderr


def assert_nowhere(text: str) -> None:
    assert text.strip()
    for part in PARTS:
        assert part not in text, f"{part} in {text}"


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


BROKER = "kafka://ann:{}@127.0.0.1:{}?security_protocol=SASL_PLAINTEXT&sasl_mechanism=PLAIN"
WAREHOUSE = "clickhouse://ann:{}@127.0.0.1:{}/shop?connect_timeout=1&timeout=1"


@pytest.mark.parametrize(
    "arguments",
    [
        ("check",),
        ("migrate",),
        ("query", "SELECT 1"),
        ("recommend", "ann"),
        ("produce", "--event", '{"type": "click", "user_id": "a", "item_id": "b"}'),
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize("there", [False, True], ids=["nobody", "somebody silent"])
def test_commands(
    tmp_path: Path, silent: socket.socket, arguments: tuple[str, ...], there: bool
) -> None:
    port = silent.getsockname()[1] if there else 1
    said = freshrec(
        tmp_path, *arguments,
        FRESHREC_BROKER=BROKER.format(QUOTED, port),
        FRESHREC_WAREHOUSE=WAREHOUSE.format(QUOTED, port),
        FRESHREC_HTTP_TOKEN=TOKEN,
    )  # fmt: skip
    assert "127.0.0.1" in said
    assert_nowhere(said)


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_worker_that_starts_and_fails(tmp_path: Path, silent: socket.socket, form: str) -> None:
    port = silent.getsockname()[1]
    worker = WorkerProcess(
        tmp_path / "w",
        broker=BROKER.format(QUOTED, port),
        warehouse=WAREHOUSE.format(QUOTED, port),
        http_token=TOKEN,
        log_level="debug",
        log_format=form,
    )
    try:
        worker.launch()
        while worker.alive() and "not_there_yet" not in worker.words():
            time.sleep(0.05)
    finally:
        worker.kill()
    assert "not_there_yet" in worker.words()
    assert_nowhere(worker.words())


def test_a_worker_whose_warehouse_is_away(tmp_path: Path, silent: socket.socket) -> None:
    url = WAREHOUSE.format(QUOTED, silent.getsockname()[1])
    worker = WorkerProcess(tmp_path / "w", warehouse=url, http_token=TOKEN, log_level="debug")
    worker.launch()
    try:
        while worker.alive():
            time.sleep(0.05)
        assert worker.stop() == 1
    finally:
        worker.kill()
    assert "does not answer" in worker.words()
    assert_nowhere(worker.words())


def test_a_worker_that_runs_with_a_token(tmp_path: Path) -> None:
    """Its log, the file that tells where it runs, its health and its metrics."""
    worker = WorkerProcess(tmp_path / "w", http_token=TOKEN, encoder="false", log_level="debug")
    try:
        worker.launch()
        worker.until(lambda health: bool(health))
        state = "".join(p.read_text() for p in (tmp_path / "w").glob("*.json"))
        environ = {"FRESHREC_STATE": str(tmp_path / "w"), "FRESHREC_HTTP_TOKEN": TOKEN}
        checked = freshrec(tmp_path, "check", **environ)
        assert "held by the worker" in checked
        refused = freshrec(tmp_path, "query", "SELECT 1", FRESHREC_STATE=str(tmp_path / "w"))
        assert "set FRESHREC_HTTP_TOKEN" in refused
        assert_nowhere(worker.words() + state + checked + refused + str(worker.health()))
    finally:
        worker.stop(within_s=30)


@pytest.mark.parametrize(
    "settings",
    [
        {"BROKER": f"kafka://ann:{SECRET}@h:9092"},
        {"BROKER": "kafka://ann:hush/Hush@h:9092"},
        {"BROKER": "kafka://ann:hush#Hush@h:9092"},
        {"BROKER": "kafka://ann:hush?Hush@h:9092"},
        {"BROKER": "kafka://ann:hush[Hush@h:9092"},
        {"BROKER": "kafka://ann:hush℀Hush@h:9092"},
        {"BROKER": f"kafka://ann:{QUOTED}@h:port"},
        {"BROKER": f"kafka://ann:{QUOTED}@h/topic"},
        {"BROKER": f"kafka://ann:{QUOTED}@h?security_protocol=SSL"},
        {"BROKER": "kafka://h?sasl_plain_password=hush"},
        {"BROKER": f"SASL_SSL://ann:{QUOTED}@h"},
        {"WAREHOUSE": f"clickhouse://ann:{SECRET}@h/d"},
        {"WAREHOUSE": "clickhouse://ann:hush/Hush@h:9000/d"},
        {"WAREHOUSE": "clickhouse://ann:hush#Hush@h:9000/d"},
        {"WAREHOUSE": "clickhouse://ann:hush?Hush@h:9000/d"},
        {"WAREHOUSE": "clickhouse://ann:hush℀Hush@h:9000/d"},
        {"WAREHOUSE": "clickhouse://ann:a@b/hush@h:9000/d"},
        {"WAREHOUSE": f"postgres://ann:{QUOTED}@h/d"},
        {"HTTP_TOKEN": "hush"},
        {"HTTP": "0.0.0.0:80", "HTTP_TOKEN": "hush"},
    ],
    ids=lambda settings: next(iter(settings.values()))[:40],
)
def test_settings_that_are_refused(settings: dict[str, str]) -> None:
    given = {f"FRESHREC_{name}": value for name, value in settings.items()}
    with pytest.raises(SettingsError) as raised:
        Settings.from_env(given, dotenv=None)
    assert_nowhere(str(raised.value))


@pytest.mark.parametrize(
    "url",
    [
        f"clickhouse://ann:{QUOTED}@h:x/d",
        f"clickhouse://ann:{QUOTED}@h/a-b",
        f"clickhouse://ann:{QUOTED}@h/d?password=hush",
        f"mysql://ann:{QUOTED}@h/d",
        "clickhouse://ann:hush/Hush@h:9000/d",
        "clickhouse://h/d?password=hush",
    ],
)
def test_warehouses_that_cannot_be_read(url: str) -> None:
    with pytest.raises(WarehouseError) as raised:
        connect(url)
    assert_nowhere(str(raised.value))
    assert_nowhere(without_password(url))


def test_settings_and_addresses_as_text() -> None:
    """What a debugger or a traceback with values would show."""
    settings = Settings(
        broker=BrokerAddress.parse(BROKER.format(QUOTED, 1)),
        warehouse=WAREHOUSE.format(QUOTED, 1),
        http_token=TOKEN,
    )
    assert_nowhere(f"{settings!r} {settings.broker!r} {settings.broker}")
