"""A worker as a child process, as an operator runs it; read over HTTP, stopped by signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.warehouse import Answer, connect
from streams.status import Running

ROOT = Path(__file__).parents[2]


class WorkerProcess:
    """`python -m streams.worker` with a state folder of its own."""

    def __init__(self, state: Path, folder: Path | None = None, **settings: str) -> None:
        self.state = state
        self.folder = folder or state.parent  # where it runs, and where its log is kept
        self.log = self.folder / f"{state.name}.log"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("FRESHREC_")}
        self._environ = {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "FRESHREC_STATE": str(state),
            "FRESHREC_HTTP": "127.0.0.1:0",
            "FRESHREC_TEXT": "off",  # it takes seconds to start: tests that need it say so
            **{f"FRESHREC_{name.upper()}": value for name, value in settings.items()},
        }
        self.command = [sys.executable, "-m", "streams.worker"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, ready_s: float = 150.0) -> WorkerProcess:
        self.launch()
        self.until(lambda health: health.get("status") == "ok", ready_s)
        return self

    def launch(self) -> None:
        """Start it, and do not wait."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                env=self._environ,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    @property
    def running(self) -> Running:
        running = Running.load(self.state)
        assert running is not None, self.words()
        return running

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def children(self, module: str) -> list[int]:
        """Process ids of its children that run `python -m MODULE`."""
        assert self._process is not None
        found = []
        for task in Path(f"/proc/{self._process.pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                if module in Path(f"/proc/{child}/cmdline").read_text().split("\0"):
                    found.append(int(child))
        return found

    def health(self) -> dict[str, Any]:
        """The answer of /health; empty while it does not answer."""
        running = Running.load(self.state)
        if running is None:
            return {}
        try:
            with urllib.request.urlopen(f"{running.http_url}/health", timeout=5) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            return dict(json.load(error))
        except OSError:
            return {}

    def page(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.running.http_url}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def until(
        self, holds: Callable[[dict[str, Any]], bool], within_s: float = 120.0
    ) -> dict[str, Any]:
        """Wait until /health satisfies `holds`; the worker must live meanwhile."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            assert self.alive(), f"the worker ended: {self.words()}"
            health = self.health()
            if holds(health):
                return health
            time.sleep(0.05)
        raise AssertionError(f"not within {within_s} s: {self.health()} {self.words()}")

    def refused(self, within_s: float = 60.0) -> str:
        """Start it where it cannot: its log, once it has ended with exit code 1 by itself."""
        self.launch()
        assert self._process is not None
        assert self._process.wait(within_s) == 1, self.words()
        assert "Traceback" not in self.words()
        return self.words()

    def stop(self, number: int = signal.SIGTERM, within_s: float = 15.0) -> int:
        """Send a signal; return the exit code."""
        if self._process is None:
            return 0
        if self.alive():
            self._process.send_signal(number)
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
            raise AssertionError(f"did not stop within {within_s} s: {self.words()}") from None

    def signal(self, number: int) -> None:
        """Send a signal to a worker that lives, and do not wait."""
        if self.alive() and self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        if self.alive() and self._process is not None:
            self._process.kill()
            self._process.wait(5)

    def words(self, newest: int = 3000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-newest:]

    def rows(self, *queries: str) -> list[Answer]:
        """Query the embedded warehouse that a stopped worker left."""
        warehouse = connect(f"chdb://{self.state}/warehouse")
        try:
            return [warehouse.query(sql) for sql in queries]
        finally:
            warehouse.close()
