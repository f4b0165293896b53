"""Files that one process owns at a time, until it closes them or ends, however it ends."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO


def owned(path: Path) -> IO[str] | None:
    """Own a file, which is made if it is missing; None: another process owns it.

    Raises OSError: it cannot be opened, or its file system has no locks.
    """
    file = path.open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:
        file.close()
        raise
    return file
