"""How a worker ends."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from streams.process import Ending


@pytest.mark.parametrize("ignored", [False, True], ids=["a terminal", "nohup"])
async def test_the_end_of_the_terminal_stops_a_worker_in_order(ignored: bool) -> None:
    """By default the signal kills at once, and what the embedded broker holds would be lost."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    ending = Ending(600.0)
    try:
        ending.heed_signals()
        for _ in range(2):  # from the shell, and from the kernel
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.05)
        assert ending.asked.is_set() is not ignored
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(signal.SIGHUP, before)
        if ending._last_resort is not None:
            ending._last_resort.cancel()
