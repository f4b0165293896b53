"""Child processes that do not outlive us, however we end, and threads that give way."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Collection
from pathlib import Path


def end_with_parent(number: int = signal.SIGTERM) -> Callable[[], None] | None:
    """A `preexec_fn` that has the child signalled when the thread that starts it ends.

    None where the system cannot do that (it is Linux's prctl).
    """
    if not sys.platform.startswith("linux"):
        return None
    parent = os.getpid()
    ask, when_parent_ends = ctypes.CDLL(None).prctl, 1  # PR_SET_PDEATHSIG; loaded before the fork

    def before_exec() -> None:
        ask(when_parent_ends, number, 0, 0, 0)
        if os.getppid() != parent:  # the parent went before we asked
            os._exit(1)

    return before_exec


def leave_signals_to_the_parent() -> None:
    """Ignore what a terminal sends to all of a group: whoever started us decides when we end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def lower_threads(names: Collection[str], niceness: int) -> int:
    """Let threads of this process with these names give way to others; how many there are.

    Only Linux knows the niceness of a thread; elsewhere none is found.
    """
    found = 0
    for thread in Path("/proc/self/task").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if (thread / "comm").read_text().strip() in names:
                os.setpriority(os.PRIO_PROCESS, int(thread.name), niceness)
                found += 1
    return found
