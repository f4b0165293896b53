"""What a benchmark ran on, and how much memory a process uses."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any


class BenchError(RuntimeError):
    """A benchmark cannot go on; says why."""


def machine() -> dict[str, Any]:
    """What figures depend on."""
    return {
        "cores": _cores(),
        "processor": _processor(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "freshrec": importlib.metadata.version("freshrec"),
    }  # fmt: skip


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")


def resident_mb(pid: int) -> float:
    """Memory that a process and all below it hold, in MB (2^20 bytes); 0 if gone. Linux only.

    Pages that several of them share (libraries, a state that a fork writes) count once, as Linux
    shares them out ("Pss"): a sum of resident sizes would count torch's code four times.
    """
    return sum(_own_mb(each) for each in [pid, *_below(pid)])


def _below(pid: int) -> list[int]:
    return [each for child in _children(pid) for each in (child, *_below(child))]


def _children(pid: int) -> list[int]:
    """A thread, or a process, that ends meanwhile has none."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def _own_mb(pid: int) -> float:
    for name, what in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):  # containers may lack one
        try:
            for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
                if line.startswith(what):
                    return int(line.split()[1]) / 1024
        except OSError:
            continue
    return 0.0


def cpu_s(pid: int) -> float:
    """Processor time of a process and all that live below it, in seconds. Linux only."""
    ticks = 0
    for each in [pid, *_below(pid)]:
        with contextlib.suppress(OSError):
            after_name = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, after_name[11:15]))  # own, and of children that ended
    return ticks / os.sysconf("SC_CLK_TCK")


def cpu_s_by_part(pid: int) -> dict[str, float]:
    """Processor time of a process, as "worker", and of each below it by its module's name."""
    found = {"worker": cpu_s(pid)}
    _split(found, "worker", pid)
    return found


def _split(found: dict[str, float], name: str, pid: int) -> None:
    """Take out of `name` what those below it took."""
    for child in _children(pid):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
            if not words[0]:  # it has ended: its parent's
                continue
            module = words[words.index("-m") + 1] if "-m" in words else Path(words[0]).name
            part, took = module.rpartition(".")[2], cpu_s(child)
            found[part] = found.get(part, 0.0) + took
            found[name] -= took
            _split(found, part, child)
