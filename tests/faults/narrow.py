"""A worker that holds little before it pauses: `python -m tests.faults.narrow`."""

from __future__ import annotations

from streams import keeping, pipeline, worker
from streams.waiting import MESSAGE_BYTES

MESSAGES = 500


def main() -> None:
    keeping.MOST_HELD = MESSAGES
    pipeline.WAITING = pipeline.WAITING_LATER = MESSAGES * MESSAGE_BYTES
    worker.main()


if __name__ == "__main__":
    main()
