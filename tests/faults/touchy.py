"""A worker whose core raises on some items: `python -m tests.faults.touchy`."""

from __future__ import annotations

from functools import partial

from streams import worker
from streams.core_process import CoreProcess
from tests.streams.cores import TOUCHY


def main() -> None:
    vars(worker)["CoreProcess"] = partial(CoreProcess, core=TOUCHY)
    worker.main()


if __name__ == "__main__":
    main()
