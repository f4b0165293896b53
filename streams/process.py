"""What a worker does as a process: own its state folder, heed signals, end in time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from infra.locks import owned
from infra.log import get_log
from streams.status import Running

log = get_log("worker")


class StateError(RuntimeError):
    """The state folder cannot be used; the message says why and what to do."""


@contextlib.contextmanager
def claimed(state: Path) -> Iterator[None]:
    """Own the folder `state` (made if missing) until the block or the process ends."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = owned(state / "worker.lock")
    except OSError as error:
        raise StateError(
            f"FRESHREC_STATE={str(state)!r} cannot be used ({error.strerror}): name a folder "
            "that this user may write to"
        ) from None
    if lock is None:
        running = Running.load(state)
        who = f" (pid {running.pid})" if running else ""
        raise StateError(
            f"another worker{who} uses the state folder {str(state)!r}: stop it, or set "
            "FRESHREC_STATE to another folder"
        )
    with lock:
        yield


class Ending:
    """How a worker ends: `asked` is set by the first signal; a second one ends it at once.

    From `bound()` on the process lives for `within_s` at most, whatever hangs.
    """

    def __init__(self, within_s: float) -> None:
        self.asked = threading.Event()
        self._within_s = within_s
        self._last_resort: threading.Timer | None = None

    def heed_signals(self) -> None:
        """Handle SIGINT, SIGTERM and the end of the terminal on the running event loop."""

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
            loop.add_signal_handler(signal.SIGHUP, self._ask)  # it may come twice

    def _on_signal(self) -> None:
        if self.asked.is_set():
            _end_process(130)
        self._ask()

    def _ask(self) -> None:
        if not self.asked.is_set():
            log.info("stopping", within_s=self._within_s)
            self.asked.set()
            self.bound()

    def bound(self) -> None:
        if self._last_resort is None:
            self._last_resort = threading.Timer(self._within_s, _end_process)
            self._last_resort.daemon = True
            self._last_resort.start()


def begin_again() -> NoReturn:
    """Run the same command in this process anew. Close everything first."""
    log.warning("beginning_again", pid=os.getpid())
    command = [word for word in sys.orig_argv if word != "--fresh"]
    os.execv(sys.executable, [sys.executable, *command[1:]])


def spare_garbage_collection() -> None:
    """Keep what was made so far out of collections, and collect seldom.

    What a batch makes is freed by its reference counts; looking for cycles among the hundred
    thousands of objects of a running worker took a sixth of its processor time.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _end_process(code: int = 1) -> None:
    log.warning("forced_to_end", cure="your own broker delivers unwritten events again")
    os._exit(code)
