"""The demo's worker: its state folder, and `freshrec up` as a child process."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from infra.access import place
from infra.checkpoints import About
from infra.children import end_with_parent
from infra.locks import owned
from infra.settings import Settings
from infra.warehouse import WarehouseError, connect
from streams.sql_client import worker_health
from streams.status import Running

MARK = "demo.json"  # in the state folder: these brokers' events are the demo's own
READY_S = 300.0  # a first start compiles, which takes a minute on a slow machine
LAST_WORDS = 12  # lines of the log that are shown when the worker ended


class DemoError(RuntimeError):
    """The demo cannot run; the message says why and what to do."""


def claim_state(settings: Settings) -> None:
    """Remove what an earlier demo left and learned; refuse a folder that holds anything else."""
    state = settings.state
    cure = "run the demo elsewhere: FRESHREC_STATE=another-folder freshrec demo"
    running = Running.load(state)
    if running:
        raise DemoError(
            f"a worker (pid {running.pid}) runs with the state folder {str(state)!r}: stop it, or"
            f" {cure}"
        )
    marked = _marked(state)
    folder, checkpoints = state / "warehouse", state / "checkpoints"
    foreign = folder if folder.exists() and _foreign_events(folder, marked) else None
    foreign = foreign or _foreign_state(checkpoints, marked)
    if foreign:
        raise DemoError(
            f"{str(foreign)!r} holds events that are not the demo's, and the demo starts empty:"
            f" move it away, or {cure}"
        )
    for left in (checkpoints, folder, state / "faust"):  # a core that knew the log would skip it
        if left.exists():
            shutil.rmtree(left)
    (state / MARK).unlink(missing_ok=True)


def _marked(state: Path) -> list[str]:
    try:
        return [str(broker) for broker in json.loads((state / MARK).read_text())["brokers"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _foreign_events(folder: Path, brokers: list[str]) -> bool:
    """Whether the warehouse holds events of another broker, or cannot be read as one of ours."""
    try:
        warehouse = connect(f"chdb://{folder.absolute()}")
    except WarehouseError:
        return True
    try:
        found = warehouse.query("SELECT DISTINCT broker_id FROM events").rows
        return any(broker not in brokers for (broker,) in found)
    except WarehouseError:
        return bool(warehouse.query("SHOW TABLES").rows)  # a start that got no further is nobody's
    finally:
        warehouse.close()


def _foreign_state(checkpoints: Path, brokers: list[str]) -> Path | None:
    """A state that a worker at another broker, or another warehouse, has learned, or may read."""
    for lock in checkpoints.glob("shard-*/lock"):
        try:
            held = owned(lock)
        except OSError:  # another user's
            held = None
        if held is None:
            return lock.parent
        held.close()
    for path in checkpoints.rglob("about.json"):  # also of those that were set aside
        try:
            about = msgspec.json.decode(path.read_bytes(), type=About)
        except (OSError, msgspec.MsgspecError):
            return path.parent
        if about.events and about.broker_id not in brokers:
            return path.parent
    return None


class DemoWorker:
    """Broker, warehouse and worker as one child process. Use it in a `with` block."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self._state = settings.state.absolute()
        self._http = _free_address(settings)
        self._token = settings.http_token  # the child reads the same setting
        self._shutdown_s = settings.shutdown_s
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.running: Running  # known once ready

    def __enter__(self) -> DemoWorker:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        own = {
            "FRESHREC_BROKER": "embedded",
            "FRESHREC_WAREHOUSE": "",  # in the state folder, whatever `.env` says
            "FRESHREC_CHECKPOINTS": "",  # there as well
            "FRESHREC_STATE": str(self._state),
            "FRESHREC_HTTP": self._http,
        }
        with self._log.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streams.worker"],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env={**os.environ, **own},
                process_group=0,  # Ctrl-C is for the demo, which then stops the worker
                preexec_fn=end_with_parent(),
            )
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(self._shutdown_s + 5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def await_ready(self, waiting: Callable[[str], None]) -> Running:
        """Where it runs, once it takes events; `waiting` is told what it does. Raises DemoError."""
        began = time.monotonic()
        while time.monotonic() - began < READY_S:
            if not self.alive():
                raise DemoError(f"the worker did not start: see {self._log}\n{self.last_words()}")
            running = Running.load(self._state)
            health: dict[str, Any] = {}
            if running and self._process and running.pid == self._process.pid:
                health = worker_health(running.http_url, self._token)
                if health.get("status") == "ok":
                    self._mark(running)
                    self.running = running
                    return running
            waiting(health.get("detail") or "starting broker and warehouse")
            time.sleep(0.2)
        raise DemoError(f"the worker was not ready after {READY_S:.0f} s: see {self._log}")

    def health(self) -> dict[str, Any]:
        """The worker's /health; empty if it does not answer."""
        return worker_health(self.running.http_url, self._token)

    def wait(self) -> None:
        """Until the worker ends, or Ctrl-C."""
        if self._process is not None:
            try:
                self._process.wait()
            except KeyboardInterrupt:
                return

    def last_words(self) -> str:
        """The end of the worker's log."""
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(f"  {line[:300]}" for line in lines[-LAST_WORDS:])

    def _mark(self, running: Running) -> None:
        (self._state / MARK).write_text(json.dumps({"brokers": [running.cluster_id]}) + "\n")


def _free_address(settings: Settings) -> str:
    """The configured HTTP address, or a free port if something listens there already."""
    host, port = settings.http_host, settings.http_port
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            port = 0
    return place(host, port)
