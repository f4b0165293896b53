"""Child processes that do not outlive us, however we end."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable


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
