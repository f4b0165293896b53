"""A disk that can be filled: a small tmpfs."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class Disk:
    def __init__(self, folder: Path, kb: int) -> None:
        self.folder = folder
        folder.mkdir()
        self._mount(f"size={kb}k", "-t", "tmpfs", "none")

    def resize(self, kb: int) -> None:
        self._mount(f"remount,size={kb}k")

    def fill(self) -> None:
        with contextlib.suppress(OSError), (self.folder / "rubbish").open("wb", 0) as file:
            while file.write(b"?" * 4096):
                pass

    def clear(self) -> None:
        (self.folder / "rubbish").unlink()

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=False)

    def _mount(self, options: str, *what: str) -> None:
        command = ["mount", *what, "-o", options, str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a disk that is full needs the right to mount one: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk that is full as good as at once."""
    made = Disk(tmp_path / "disk", kb=16)
    yield made
    made.unmount()
