"""Writing the core's state to files while the core goes on: a fork has it as it was.

A fork shares the memory until one side writes to it, so the core waits for milliseconds (for the
page tables), not for the hundreds of megabytes to be copied, hashed and written.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from pathlib import Path
from typing import Protocol

from infra.children import end_with_parent
from infra.parts import write_part
from online.state import State

CORE, TRAINER = "core", "trainer"  # names of the parts
LATER = 5  # niceness beside the core


class Kept(Protocol):
    """A core whose state can be kept."""

    def state(self) -> State: ...
    def save_trainer(self, place: str) -> bool: ...


class Keeping:
    """One at a time."""

    def __init__(self) -> None:
        self._child = 0

    def begin(self, core: Kept, folder: Path) -> list[str]:
        """Begin; the names of the parts that will be there. [] while the last is not done.

        What became of each part its note says (`infra.parts`).
        """
        if self._child and os.waitpid(self._child, os.WNOHANG) == (0, 0):
            return []
        die_with_us = end_with_parent(signal.SIGKILL)
        self._child = os.fork()
        if not self._child:
            try:
                if die_with_us is not None:
                    die_with_us()
                _write(core, folder)
            finally:
                os._exit(0)
        trained = core.save_trainer(str(folder / TRAINER))
        return [CORE, TRAINER] if trained else [CORE]


def _write(core: Kept, folder: Path) -> None:
    gc.disable()  # it would touch, and so copy, every page
    os.nice(LATER)
    for number in range(3, 64):  # the pipes are the core's: who waits for their end must see it
        with contextlib.suppress(OSError):
            os.close(number)
    write_part(folder / CORE, core.state())
