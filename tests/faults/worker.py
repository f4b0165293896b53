"""A worker that is quick to fail: `python -m tests.faults.worker [narrow | touchy]`.

It joins its group sooner than others (the embedded broker takes half a session for that). A narrow
one holds little before it pauses, and the core of a touchy one raises on some items.
"""

from __future__ import annotations

import sys
from functools import partial

from streams import app, keeping, pipeline, worker
from streams.core_process import CoreProcess
from streams.waiting import MESSAGE_BYTES
from tests.streams.cores import TOUCHY

MESSAGES = 500  # that a narrow one holds, about


def main(kind: str = "") -> None:
    app.SESSION_TIMEOUT_S, app.HEARTBEAT_S = 2, 0.5  # type: ignore[assignment]
    if kind == "narrow":
        keeping.MOST_HELD = MESSAGES
        pipeline.WAITING = pipeline.WAITING_LATER = MESSAGES * MESSAGE_BYTES
    if kind == "touchy":
        vars(worker)["CoreProcess"] = partial(CoreProcess, core=TOUCHY)
    worker.main()


def command(kind: str = "") -> list[str]:
    return [sys.executable, "-m", __name__, kind]


if __name__ == "__main__":
    main(*sys.argv[1:])
