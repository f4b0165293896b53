"""A worker as a child process, measured from outside: its health over HTTP, its memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from infra.address import BrokerAddress
from infra.children import end_with_parent
from streams.bench.machine import BenchError, cpu_s, resident_mb
from streams.status import Running

READY_S = 120.0
MEMORY_S = 10.0
STOP_S = 30.0
STALL_S = 60.0  # without a new row: something is wrong


class BenchWorker:
    """`python -m MODULE` against `broker` with a folder of its own. Use it in a `with` block.

    It inherits the FRESHREC_ settings of this process but for broker, warehouse, state and HTTP.
    """

    def __init__(
        self, folder: Path, broker: BrokerAddress, group: str, module: str = "streams.worker",
        settings: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """settings: FRESHREC_ variables of its own."""
        self.state = folder / group
        self.log = folder / f"{group}.log"
        self._module = module
        self._environ = {
            **os.environ,
            "FRESHREC_BROKER": f"kafka://{','.join(broker.servers)}",
            "FRESHREC_WAREHOUSE": f"chdb://{self.state.absolute()}/warehouse",
            "FRESHREC_STATE": str(self.state.absolute()),
            "FRESHREC_CHECKPOINTS": "",  # there as well
            "FRESHREC_HTTP": "127.0.0.1:0",
            "FRESHREC_HTTP_TOKEN": "",  # nobody else reaches it
            "FRESHREC_HTTP_TOKEN_FILE": "",
            "FRESHREC_GROUP": group,
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._http = ""
        self._peak_mb = self._mb = self._weighed = self._launched = 0.0

    def __enter__(self) -> BenchWorker:
        self.state.mkdir(parents=True)
        self.launch()
        return self

    def launch(self) -> None:
        """Start it; again, after `kill`."""
        self._http = ""
        self._launched = self._weighed = time.monotonic()
        with self.log.open("ab") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=self._environ,
                process_group=0,  # Ctrl-C is for the benchmark, which then stops the worker
                preexec_fn=end_with_parent(),
            )

    def kill(self) -> None:
        """As a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def cpu_s(self) -> float:
        """Seconds of processor time of it and its children so far."""
        assert self._process is not None
        return cpu_s(self._process.pid)

    def said(self) -> str:
        """Everything that it logged."""
        return self.log.read_text(errors="replace")

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)

    @property
    def http_url(self) -> str:
        """Where it answers, once it runs."""
        if not self._http:
            running = Running.load(self.state)
            self._http = running.http_url if running else ""
        return self._http

    def health(self) -> dict[str, Any]:
        """The answer of /health, empty while there is none. Raises BenchError after the end."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise BenchError(f"the worker ended with {self._process.returncode}:\n{self._said()}")
        self.keep_weight()
        if not self.http_url:
            return {}
        try:
            with urllib.request.urlopen(f"{self.http_url}/health", timeout=10) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as e:  # starting or degraded: an answer all the same
            return dict(json.load(e))
        except (OSError, ValueError):
            return {}

    def keep_weight(self) -> None:
        """Have what it holds be known, not older than MEMORY_S (less while it is young): counting
        shared pages takes time, in which the worker waits whenever it maps memory."""
        now = time.monotonic()
        if now - self._weighed >= min(MEMORY_S, (now - self._launched) / 4):
            self._weigh()

    def rss_mb(self) -> float:
        """What it holds; see `keep_weight`."""
        self.keep_weight()
        return self._mb

    @property
    def peak_mb(self) -> float:
        """The most that it was seen to hold; it is looked at once more."""
        self._weigh()
        return self._peak_mb

    def _weigh(self) -> None:
        assert self._process is not None
        self._weighed, self._mb = time.monotonic(), resident_mb(self._process.pid)
        self._peak_mb = max(self._peak_mb, self._mb)

    def await_ready(self) -> None:
        self.until(lambda health: health.get("status") == "ok", READY_S, "it is ready")

    def until(
        self, holds: Callable[[dict[str, Any]], bool], within_s: float, what: str
    ) -> dict[str, Any]:
        """Poll /health until `holds`. Raises BenchError after `within_s` seconds."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            health = self.health()
            if holds(health):
                return health
            time.sleep(0.05)
        raise BenchError(f"not within {within_s:.0f} s: {what}; the worker said:\n{self._said()}")

    def rate_until(self, total: int, progress: Callable[[int], None]) -> float:
        """Events a second from the first row written until `total` messages are done with."""
        first: tuple[float, int] | None = None
        done, moved = 0, time.monotonic()
        looked = moved  # while there was nothing
        while True:
            health = self.health()
            now, count = time.monotonic(), _done(health)
            if count != done:
                done, moved = count, now
                progress(count)
            if count and first is None:  # when the first look finds all: since the one before
                first = (now, count) if count < total else (looked, 0)
            looked = now
            if count >= total and first is not None:
                return (count - first[1]) / max(now - first[0], 1e-3)
            if now - moved > (STALL_S if first else READY_S):
                raise BenchError(f"no new row for {now - moved:.0f} s; it said:\n{self._said()}")
            time.sleep(0.25)

    def _said(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(f"  {line[:300]}" for line in lines[-8:])


def _done(health: dict[str, Any]) -> int:
    return sum(int(health.get(name, 0)) for name in ("events_total", "rejects", "duplicates"))
